"""Commands on several tasks: ids as arguments or, for `-`, from standard input; one that fails stops no other."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from .output import complain, print_json, print_yaml
from .progress import Bar
from .session import run

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Outcome", "ids_of", "on_each"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task."""

    task_id: str
    status: str
    words: str


def ids_of(given: Sequence[str]) -> list[str]:
    """The ids that an argument list names; `-` stands for the lines of standard input."""
    if "-" not in given:
        return list(given)
    lines = [line.strip() for line in sys.stdin]
    return [name for each in given for name in (lines if each == "-" else [each]) if name]


def on_each(given: Sequence[str], act: Callable[[Session, str], Awaitable[Outcome]], form: str) -> int:
    """Do something to each of the tasks, and say what became of them. Returns the exit code.

    The error of a single task is raised; those of several are said, and the code is 1.
    """
    from headrace.errors import HeadraceError, StoreUnavailable

    ids = ids_of(given)
    alone = len(ids) == 1 and "-" not in given
    outcomes: list[Outcome] = []
    failed = 0

    async def work(session: Session) -> None:
        nonlocal failed
        with Bar("tasks", len(ids), beside_data=form not in {"json", "yaml"}) as bar:
            for done, task_id in enumerate(ids, 1):
                try:
                    outcome = await act(session, task_id)
                except StoreUnavailable:
                    raise
                except HeadraceError as error:
                    if alone:
                        raise
                    failed += 1
                    complain(str(error))
                else:
                    outcomes.append(outcome)
                    _tell(outcome, form)
                bar.to(done)

    run(work)
    _tell_all(outcomes, form, alone)
    return 1 if failed else 0


def _tell(outcome: Outcome, form: str) -> None:
    if form == "name":
        click.echo(outcome.task_id)
    elif form not in {"json", "yaml"}:
        click.echo(f"{outcome.task_id}: {outcome.words}")


def _tell_all(outcomes: Sequence[Outcome], form: str, alone: bool) -> None:
    records = [{"task_id": each.task_id, "status": each.status} for each in outcomes]
    if form in {"json", "yaml"}:
        (print_json if form == "json" else print_yaml)(records[0] if alone else records)
