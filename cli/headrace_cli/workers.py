"""`headrace workers`: who works, and on what."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.roster import WorkerInfo
    from headrace.summaries import WorkerSummary

    from .session import Session


@click.command(
    "workers",
    cls=Command,
    examples="""
        headrace workers
        headrace workers -o json | jq '.[] | select(.alive == false).worker'
    """,
)
@click.option("--quick", is_flag=True, help="Do not look twice, so dead ones look alive.")
@session_options
@output_option
def command(quick: bool, output: str, **_: Any) -> None:
    """List the workers: their queues, how many of their slots are busy, and what they run.

    Whether a worker lives shows only when its beat changes, so this looks twice and takes two seconds.
    """
    from headrace.summaries import worker_summary

    from .records import Column, Listing, show_all, span
    from .session import run

    found = run(lambda session: _workers(session, quick))
    columns: list[Column[WorkerSummary]] = [
        Column("WORKER", lambda each: each.worker),
        Column("STATE", _state),
        Column("BUSY", lambda each: each.held),
        Column("SLOTS", lambda each: each.slots),
        Column("QUEUES", lambda each: ",".join(each.queues)),
        Column("AGE", lambda each: span(_age_s(each.started_at))),
        Column("VERSION", lambda each: each.version, wide=True),
        Column("HOST", lambda each: each.host, wide=True),
        Column("PID", lambda each: str(each.pid or ""), wide=True),
        Column("RUNS", _runs),
    ]
    none = "No worker runs: start one with `headrace worker`, or `headrace dev`."
    show_all([worker_summary(each) for each in found], Listing(columns, lambda each: each.worker, none), output)


async def _workers(session: Session, quick: bool) -> list[WorkerInfo]:
    from headrace import roster
    from headrace.listing import queues_of

    from .progress import Waiting

    queues = await queues_of(session.client, session.settings.namespace)
    again_s = 0.0 if quick else roster.LOOK_AGAIN_S
    with Waiting("looking twice for who lives"):
        return await session.connections.arun(lambda client: roster.look(queues, again_s=again_s))


def _state(each: WorkerSummary) -> str:
    if each.alive is False:
        return "dead"
    return "draining" if each.draining else "running"


def _age_s(moment: str | None) -> float | None:
    from datetime import UTC, datetime

    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds() if moment else None


def _runs(each: WorkerSummary) -> str:
    counts = Counter(task.type for task in each.running)
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in counts.most_common())
