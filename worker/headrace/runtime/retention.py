"""Dead letters are kept for a time and up to a number; completed and cancelled records expire by themselves."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.settings import Limits

logger = logging.getLogger("headrace.worker")

_NO_BOUND: Final = 2**53 - 1
"""More than there can be, and still exact in Lua."""


class Purged(NamedTuple):
    """How many dead letters a pass deleted, and why."""

    by_age: int
    by_number: int


async def purge_pass(client: AsyncClient, queue: Queue, limits: Limits, now_ms: int) -> Purged:
    """Delete what died more than `retention_failed_s` ago, then the oldest beyond `max_failed`, in slices.

    `now_ms` is Redis' time. Raises HeadraceError; what was deleted stays so, and the next pass goes on.
    """
    before_ms = now_ms - int(limits.retention_failed_s * 1000)
    by_age = await _purge(client, queue, before_ms=before_ms, keep=_NO_BOUND)
    by_number = await _purge(client, queue, before_ms=0, keep=limits.max_failed)
    if by_number:
        logger.warning(
            "queue %s has more than %d dead letters: the %d oldest were deleted. See why so many tasks fail, "
            "or raise HEADRACE_MAX_FAILED.",
            queue.name,
            limits.max_failed,
            by_number,
        )
    return Purged(by_age, by_number)


async def _purge(client: AsyncClient, queue: Queue, *, before_ms: int, keep: int) -> int:
    total = 0
    while deleted := await client.call(queue.purge(before_ms=before_ms, keep=keep)):
        total += deleted
    return total
