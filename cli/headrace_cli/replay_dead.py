"""`headrace replay-dead`: dead letters start over."""

from __future__ import annotations

from typing import Any

import click

from .bulk_options import sure_options
from .command import Command
from .options import output_option, session_options


@click.command(
    "replay-dead",
    cls=Command,
    examples="""
        headrace replay-dead --dry-run
        headrace replay-dead type:send_email error:Timeout since:2h
        headrace replay-dead queue:orders --yes
    """,
)
@click.argument("words", metavar="[FILTER]…", nargs=-1)
@sure_options
@session_options
@output_option
def command(words: tuple[str, ...], **options: Any) -> int:
    """Start failed tasks over: all, or those that a filter means (as in `headrace task ls`).

    Says how many, asks, and goes on at 2,000 tasks a second. Ctrl-C stops it; what was started over stays so.
    """
    from headrace import audit
    from headrace.bulk import Order
    from headrace.filters import Filter

    from .bulk_command import carry_out

    filter = Filter.parse(" ".join(words))
    order = Order("replay", filter, who=audit.person())
    entry = audit.Entry(order.who, "bulk.start", detail={"do": order.action, "filter": audit.filter_text(filter)})
    return carry_out(order, entry, options)
