"""The end of a replay in words: each number with how it was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from .replay_run import State
from .replay_tally import Tally, Waits

_SHOWN: Final = 10
"""Single cases that are listed; the rest is counted."""


def succeeded(tally: Tally, state: State) -> bool:
    """Whether nothing was lost, doubled or refused."""
    return not (tally.lost or tally.duplicated or state.refused)


def show(tally: Tally, state: State, *, ledger: Path | None) -> None:
    """Print the summary. `ledger` is the file that stays, if one does."""
    click.echo()
    for name, value, how in _rows(tally, state):
        click.echo(f"{name:<12}{value:>12}   {how}")
    if ledger:
        click.echo(f"{'ledger':<12}{'':>12}   {ledger}")
    cases = [*tally.lost, *tally.duplicated, *state.errors]
    for case in cases[:_SHOWN]:
        click.echo(f"  ! {case}")
    if len(cases) > _SHOWN:
        click.echo(f"  ! … and {len(cases) - _SHOWN:,} more")


def _rows(tally: Tally, state: State) -> Iterator[tuple[str, str, str]]:
    tries = sum(each.tries - 1 for each in state.accepted)
    again = f"; {tries:,} had to be sent again" if tries else ""
    yield "submitted", f"{tally.submitted:,}", f"rows that the API accepted, each under its own Idempotency-Key{again}"
    if state.refused:
        yield "refused", f"{state.refused:,}", "rows that the API did not accept, or did not answer"
    yield "completed", f"{tally.completed:,}", "tasks that GET /api/v1/tasks/{id} says are completed"
    yield "lost", f"{len(tally.lost):,}", "accepted tasks that are not completed at the end"
    known = tally.reruns is not None
    checked = ", runs that no fault on the task's record explains" if known else " (runs: not checked, no ledger)"
    yield "duplicated", f"{len(tally.duplicated):,}", f"accepted completions or tasks beyond one a row{checked}"
    if state.kills:
        yield "killed", f"{state.kills:,}", "worker processes ended by SIGKILL"
    if known:
        yield (
            "re-run",
            f"{tally.reruns:,}",
            "runs beyond the first of a task; what a fault of its worker explains is legal",
        )
    yield from _waits("wait", tally.waits_accepted, "from the acceptance by the API to the handler's first line")
    yield from _waits("since due", tally.waits_due, "from the row's own time to the handler's first line")


def _waits(name: str, waits: Waits, how: str) -> Iterator[tuple[str, str, str]]:
    for rank in ("p50", "p95", "p99"):
        value = getattr(waits, rank)
        yield f"{name} {rank}", "-" if value is None else f"{value * 1000:,.1f} ms", how
        how = ""


def as_json(tally: Tally, state: State) -> dict[str, Any]:
    """The same for programs; times in seconds."""
    return {
        "submitted": tally.submitted,
        "refused": state.refused,
        "completed": tally.completed,
        "lost": len(tally.lost),
        "duplicated": len(tally.duplicated),
        "killed": state.kills,
        "reruns": tally.reruns,
        "wait_s": vars(tally.waits_accepted),
        "since_due_s": vars(tally.waits_due),
        "cases": [*tally.lost, *tally.duplicated, *state.errors][:100],
    }
