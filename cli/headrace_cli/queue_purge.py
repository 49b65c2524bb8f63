"""`headrace queue purge`: a queue is emptied of what waits, or of its dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .bulk_options import sure_options
from .command import Command
from .complete import queue_names
from .options import output_option, session_options

if TYPE_CHECKING:
    from .session import Session


@click.command(
    "purge",
    cls=Command,
    examples="""
        headrace queue purge orders --dry-run
        headrace queue purge orders
        headrace queue purge orders --dead-letters --yes
    """,
)
@click.argument("name", metavar="QUEUE", shell_complete=queue_names)
@click.option("--dead-letters", is_flag=True, help="Delete those instead; what waits stays.")
@sure_options
@session_options
@output_option
def command(name: str, dead_letters: bool, **options: Any) -> int:
    """Cancel all that waits in a queue, or delete its dead letters. Running tasks go on.

    Cancelled tasks are kept as such for a time; deleted dead letters are gone.
    """
    from headrace import audit
    from headrace.bulk import Purged, purge_order

    from .bulk_command import carry_out
    from .session import run

    run(lambda session: _exists(session, name))
    tasks: Purged = "dead" if dead_letters else "waiting"
    order = purge_order(name, tasks, audit.person())
    entry = audit.Entry(order.who, "queue.purge", name, name, detail={"tasks": tasks})
    return carry_out(order, entry, options)


async def _exists(session: Session, name: str) -> None:
    """Raises UnknownQueue: emptying what is not there would look as if all went well."""
    from headrace import queues

    await queues.require(session.client, session.queue(name))
