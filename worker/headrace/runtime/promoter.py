"""Due tasks become pending. Any number of workers may promote at once: the script moves each task exactly once."""

from __future__ import annotations

from headrace.broker.broker import MAX_ITEMS, Queue
from headrace.broker.client import AsyncClient


async def promote(client: AsyncClient, queue: Queue, now_ms: int | None = None) -> int | None:
    """Promote all that is due at `now_ms` (Unix time; None = Redis' clock), in slices.

    Returns when the next task is due, in Unix ms; None if none waits. Raises HeadraceError; what was promoted stays so.
    """
    while True:
        promoted, next_due_ms = await client.call(queue.promote(now_ms=now_ms))
        if promoted < MAX_ITEMS:
            return next_due_ms
