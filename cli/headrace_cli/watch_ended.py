"""`headrace watch`: the tasks that end, one line each, as they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.filters import Filter
    from headrace.watching import EndedTask

    from .session import Session


@click.command(
    "watch",
    cls=Command,
    examples="""
        headrace watch                                      # until Ctrl-C
        headrace watch queue:mail state:failed
        headrace watch type:send_email -o json | jq -r .id
        headrace watch -n 1                                 # until the next task has ended
    """,
)
@click.argument("filter", metavar="[FILTER]…", nargs=-1)
@click.option("-n", "count", metavar="COUNT", type=click.IntRange(min=1), help="End after so many.")
@click.option("--last-id", metavar="ID", default="", help="Go on behind the task of which `-o json` said this last_id.")
@session_options
@output_option
def command(filter: tuple[str, ...], count: int | None, last_id: str, output: str, **_: Any) -> None:
    """Follow the tasks that end: when, how, which type, which id. Filters are state:, type: and queue:.

    Each is told at once: with `-o json` as an object on a line of its own, with `-o yaml` as a document. One task is
    followed by `headrace task get ID --watch`.
    """
    from headrace.filters import Filter

    from .session import run

    wanted = Filter.parse(" ".join(filter))
    _only_what_is_known(wanted)
    run(lambda session: _follow(session, wanted, count, last_id, output))


def _only_what_is_known(wanted: Filter) -> None:
    """Raises UsageError for a word that would need a look at each task."""
    for term in wanted.terms():
        if term.name not in {"state", "type", "queue"}:
            raise click.UsageError(f"Of tasks that end only state:, type: and queue: are known, not {term.name}:.")


async def _follow(session: Session, wanted: Filter, count: int | None, last_id: str, output: str) -> None:
    from contextlib import aclosing

    from headrace.watching import watch

    from .output import note

    async with aclosing(watch(session.connections, wanted.queues, wanted.types, last_id)) as tasks:
        async for task in tasks:
            if task.gap:
                note("Others may have ended before this one that are not told: the journals hold them no more.")
            if wanted.states and task.status not in wanted.states:
                continue
            _tell(task, output)
            count = None if count is None else count - 1
            if count == 0:
                return


def _tell(task: EndedTask, output: str) -> None:
    """Each by itself: nobody knows which is the last."""
    from .output import print_json, print_yaml

    if output == "json":
        print_json(task, lines=False)
    elif output == "yaml":
        click.echo("---")
        print_yaml(task)
    else:
        click.echo(_line(task, output))


def _line(task: EndedTask, output: str) -> str:
    from headrace.logs import clean

    id_ = clean(task.id, 200)
    if output == "name":
        return id_
    queue = f"{task.queue:<20}  " if output == "wide" else ""
    return f"{task.at or '-':<24}  {task.status:<9}  {clean(task.type, 200) or '-':<20}  {queue}{id_}"
