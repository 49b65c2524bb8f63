"""`headrace events`: the tasks that end, one line each, as they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import session_options

if TYPE_CHECKING:
    from headrace.ended import Ended
    from headrace.filters import Filter

    from .session import Session


@click.command(
    "events",
    cls=Command,
    examples="""
        headrace events                                     # until Ctrl-C
        headrace events queue:mail state:failed
        headrace events type:send_email -o json | jq -r .id
        headrace events -n 1                                # until the next task has ended
    """,
)
@click.argument("filter", metavar="[FILTER]…", nargs=-1)
@click.option("-n", "count", metavar="COUNT", type=click.IntRange(min=1), help="End after so many.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "name"]),
    default="text",
    show_default=True,
    help="For people, for programs (a JSON object a line), or ids alone.",
)
@session_options
def command(filter: tuple[str, ...], count: int | None, output: str, **_: Any) -> None:
    """Follow the tasks that end: when, how, which type, which id. Filters are state:, type: and queue:."""
    from headrace.filters import Filter

    from .session import run

    wanted = Filter.parse(" ".join(filter))
    _only_what_is_known(wanted)
    run(lambda session: _follow(session, wanted, count, output))


def _only_what_is_known(wanted: Filter) -> None:
    """Raises UsageError for a word that would need a look at each task."""
    for term in wanted.terms():
        if term.name not in {"state", "type", "queue"}:
            raise click.UsageError(f"Of tasks that end only state:, type: and queue: are known, not {term.name}:.")


async def _follow(session: Session, wanted: Filter, count: int | None, output: str) -> None:
    import asyncio

    from headrace.ended import EndedTasks

    ended = EndedTasks(session.redis, session.client, session.settings.namespace)
    news: asyncio.Queue[Ended] = asyncio.Queue()

    def tell(some: Any) -> None:
        for each in some:
            if _fits(each, wanted):
                news.put_nowait(each)

    try:
        with ended.listening(tell):
            while count is None or count > 0:
                click.echo(_line(await news.get(), output))
                count = None if count is None else count - 1
    finally:
        await ended.aclose()


def _fits(each: Ended, wanted: Filter) -> bool:
    return (
        (not wanted.states or each.state in wanted.states)
        and (not wanted.queues or each.place.queue in wanted.queues)
        and each.is_of(wanted.types)
    )


def _line(each: Ended, output: str) -> str:
    import json

    from headrace.logs import clean
    from headrace.queues import at

    if output == "name":
        return clean(each.id, 200)
    if output == "json":
        record = {"id": each.id, "queue": each.place.queue, "type": each.type, "status": str(each.state)}
        return json.dumps(record | {"at": at(each.place.ms)})
    return f"{at(each.place.ms):<24}  {each.state:<9}  {each.type or '-':<20}  {clean(each.id, 200)}"
