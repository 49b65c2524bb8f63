"""`headrace errors`: what goes wrong, grouped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.failures import Failures
    from headrace.summaries import ErrorGroup

    from .session import Session


@click.command(
    "errors",
    cls=Command,
    examples="""
        headrace errors
        headrace errors since:2h queue:orders
        headrace task ls $(headrace errors -o name | head -1)        # the tasks of the largest group
    """,
)
@click.argument("words", metavar="[FILTER]…", nargs=-1)
@click.option(
    "--budget", metavar="N", type=click.IntRange(1), default=10_000, show_default=True, help="Tasks to look at."
)
@session_options
@output_option
def command(words: tuple[str, ...], budget: int, output: str, **_: Any) -> None:
    """Group failed and retrying tasks by type, exception and the place that raised it; the largest group first.

    FILTER is as in `headrace task ls`. `-o name` prints the filter that finds the tasks of a group.
    """
    from headrace.summaries import error_group

    from .output import note
    from .records import Column, Listing, show_all
    from .session import run

    found = run(lambda session: _failures(session, " ".join(words), budget))
    columns: list[Column[ErrorGroup]] = [
        Column("COUNT", lambda each: each.count),
        Column("TYPE", lambda each: each.type),
        Column("EXCEPTION", lambda each: each.exception),
        Column("PLACE", lambda each: each.place),
        Column("FIRST", lambda each: each.first_at, wide=True),
        Column("LAST", lambda each: each.last_at),
        Column("SAMPLE", lambda each: each.sample_id, wide=True),
        Column("MESSAGE", lambda each: each.message),
    ]
    listing = Listing(columns, lambda each: each.filter, "Nothing has failed, as far as it is kept.")
    show_all([error_group(each) for each in found.groups], listing, output)
    if found.truncated:
        note(f"There are more failures than the {found.scanned:,} that were looked at: --budget N looks at more.")


async def _failures(session: Session, text: str, budget: int) -> Failures:
    from headrace.failures import failures
    from headrace.filters import Filter
    from headrace.listing import queues_of

    from .looking import Looking, tell_of_unknown
    from .progress import Bar

    filter = Filter.parse(text)
    queues = await queues_of(session.client, session.settings.namespace)
    tell_of_unknown(filter, queues)
    with Bar("looked at", None, passing=True) as bar:
        return await failures(Looking(session.client, bar), queues, filter, budget)
