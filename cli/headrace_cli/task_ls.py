"""`headrace task ls`: tasks that a filter means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.broker.broker import TaskView
    from headrace.summaries import TaskSummary

    from .session import Session


@click.command(
    "ls",
    cls=Command,
    examples="""
        headrace task ls
        headrace task ls state:failed type:send_email since:2h
        headrace task ls 'error:"connection refused"' -o wide
        headrace task ls args.user.id:42 tag:acme --all -o name
    """,
)
@click.argument("words", metavar="[FILTER]…", nargs=-1)
@click.option("--limit", metavar="N", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--all", "everything", is_flag=True, help="However many there are.")
@session_options
@output_option
def command(words: tuple[str, ...], limit: int, everything: bool, output: str, **_: Any) -> None:
    """List tasks. A filter is words like state:failed, of which all must hold.

    Several states, types, queues, exceptions or places are alternatives; of several tags, errors and arguments all must
    hold, too. Names are state, type, queue, tag, error, exception, place, since, until and args.PATH (an argument of
    the task). A type may end in `*`; times are 2h, 30m, 1d or RFC 3339. Ended tasks are found while they are kept.
    """
    from .records import show_all
    from .session import run
    from .task_text import LISTING

    wanted = None if everything else limit

    whole = output in {"json", "yaml"}

    async def work(session: Session) -> list[TaskSummary]:
        from headrace.summaries import summary

        found: list[TaskSummary] = []
        async for seen in _found(session, " ".join(words), wanted, output):
            if output == "name":
                click.echo(seen.id)
            else:
                found.append(summary(seen, payload=whole))
        return found

    tasks = run(work)
    if output != "name":
        show_all(tasks, LISTING, output)


async def _found(session: Session, text: str, limit: int | None, output: str) -> AsyncIterator[TaskView]:
    from headrace.filters import Filter
    from headrace.listing import MAX_LIMIT, Ask, page, queues_of

    from .looking import tell_of_unknown
    from .output import note
    from .progress import Bar

    filter, position, given, scanned = Filter.parse(text), None, 0, 0
    queues = await queues_of(session.client, session.settings.namespace)
    tell_of_unknown(filter, queues)
    payloads = output in {"json", "yaml"}
    with Bar("looked at", None, beside_data=output == "name", passing=True) as bar:
        while limit is None or given < limit:
            want = MAX_LIMIT if limit is None else min(MAX_LIMIT, limit - given)
            found = await page(session.client, queues, Ask(filter, position, want, payloads=payloads))
            for seen in found.items:
                yield seen
            given, scanned, position = given + len(found.items), scanned + found.scanned, found.next
            bar.to(scanned, f"{given:,} found")
            if position is None:
                return
    note(f"There may be more: --limit N or --all shows them (looked at {scanned:,}).")
