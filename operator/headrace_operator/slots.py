"""How many requests are out at a time: a thousand pools that change at once must not flood the API server.

Nor may a few that hang, as behind an admission that does not answer, take the places of all others: a request that is
out for long gives its place up, and counts only among the most that there may ever be. Nor may what is only told, as
the status of five hundred pools whose Redis is away, delay what is done for others: it has half of the places.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Final

from .cluster import ClusterError

AT_ONCE: Final = 16
MOST: Final = 64
"""Below what one client opens connections to."""
LONG_S: Final = 1.0
STALE_S: Final = 20.0
"""What waited longer for its turn is not sent: it was decided on what was so long ago."""


class Slots:
    """For one event loop."""

    def __init__(self) -> None:
        self._all = _Places(AT_ONCE, MOST)
        self._telling = _Places(AT_ONCE // 2, MOST // 2)

    @asynccontextmanager
    async def one(self, *, telling: bool = False) -> AsyncIterator[None]:
        """Held until the block ends. Raises ClusterError where the turn does not come in time."""
        with ExitStack() as held, ExitStack() as free:
            try:
                async with asyncio.timeout(STALE_S):
                    for places in [self._telling, self._all] if telling else [self._all]:
                        await _take(places.most, held)
                        await _take(places.at_once, free)
            except TimeoutError:
                raise ClusterError("the API server is too slow for all that is to be asked of it") from None
            held.callback(asyncio.get_running_loop().call_later(LONG_S, free.close).cancel)
            yield


class _Places:
    """So many at once, and with those that are out for long at most so many."""

    def __init__(self, at_once: int, most: int) -> None:
        self.at_once = asyncio.Semaphore(at_once)
        self.most = asyncio.Semaphore(most)


async def _take(places: asyncio.Semaphore, held: ExitStack) -> None:
    await places.acquire()
    held.callback(places.release)
