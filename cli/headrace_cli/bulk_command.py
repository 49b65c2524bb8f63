"""Orders about many tasks, carried out here: say how many, ask, show how far, and what became of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from headrace import audit
from headrace.bulk import PARTICIPLES, Count, Jobs, Order
from headrace.bulk_job import Action, BulkJob, Progress
from headrace.bulk_run import Runner
from headrace.errors import HeadraceError, WrongCount

from .looking import Looking
from .output import complain, note
from .progress import Bar
from .records import show_one
from .session import Session, opened

__all__ = ["carry_out", "job_lines"]


def carry_out(order: Order, entry: audit.Entry, options: Mapping[str, Any]) -> int:
    """Do what was ordered, after asking. Returns the exit code: 1 if any task was left as it is.

    `entry` goes into the audit log when the job begins, with its id; `options` are `sure_options` and `-o`.
    """
    output, expected = options["output"], options["expected_count"]
    with opened() as (session, runner):
        counted = runner.run(_counted(session, order))
        if expected is not None and counted != Count(expected):
            raise WrongCount(expected, counted.found, counted.truncated)
        if options["dry_run"] or not (counted.found or counted.truncated):
            return _would_be(order.action, counted, output)
        if not options["yes"]:
            _ask(f"{_tasks(counted)} will be {PARTICIPLES[order.action]}. Go on?")
        job = runner.run(_done(session, order, entry, counted, expected))
    show_one(job, job.id, job_lines(job), output)
    return 1 if job.failed or job.state != "done" else 0


def nothing_named(action: Action, options: Mapping[str, Any]) -> int:
    """Standard input was to name the tasks, and named none. Returns the exit code."""
    if options["expected_count"]:
        raise WrongCount(options["expected_count"], 0, False)
    return _would_be(action, Count(0), options["output"])


def _would_be(action: Action, counted: Count, output: str) -> int:
    record = {"action": action, "found": counted.found, "truncated": counted.truncated, "done": 0}
    show_one(record, "", [f"{_tasks(counted)} would be {PARTICIPLES[action]}"], output)
    return 0


async def _counted(session: Session, order: Order) -> Count:
    with Bar("looked at", None, passing=True) as bar:
        return await Jobs(Looking(session.client, bar), session.settings.namespace).count(order)


async def _done(session: Session, order: Order, entry: audit.Entry, counted: Count, expected: int | None) -> BulkJob:
    runner = Runner(session.client, session.settings.namespace, session.settings)
    with Bar(PARTICIPLES[order.action], None if counted.truncated else counted.found) as bar:

        def told(progress: Progress) -> None:
            left = sum(progress.failed.values())
            bar.to(progress.done, f"{left:,} left as they are" if left else "")

        async def begun(job: BulkJob) -> None:
            written = msgspec.structs.replace(entry, detail=entry.detail | {"bulk": job.id})
            try:
                await audit.record(session.client, session.settings.namespace, written)
            except HeadraceError as error:  # the job has begun, and goes on
                complain(f"The audit log could not be written. {error}")

        try:
            return await runner.order(order, expected, tell=told, begun=begun)
        except asyncio.CancelledError:  # Ctrl-C
            note(f"Broken off: {bar.done:,} tasks were {PARTICIPLES[order.action]}, the others are as they were.")
            raise


def _tasks(counted: Count) -> str:
    many = "or more " if counted.truncated else ""
    return f"{counted.found:,} {many}task{'' if counted.found == 1 else 's'}"


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is here to be asked: add --yes, or look first with --dry-run.")
    click.confirm(question, abort=True, err=True)


def job_lines(job: BulkJob) -> list[str]:
    """What a job did, for people."""
    lines = [f"{_tasks(Count(job.done))} {PARTICIPLES[job.action]}"]
    for reason, count in job.failed.items():
        lines.append(f"{count:,} left as they are: {reason.replace('_', ' ')}, as {', '.join(job.examples[reason])}")
    return lines
