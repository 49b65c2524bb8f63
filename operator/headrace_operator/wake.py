"""Wakes the control loop at the moment at which something enters an empty queue of a pool at zero.

It reads along with the streams of such queues, whose entries nobody can have claimed; one connection a Redis. The tick
each second stays the safety net: what falls between two reads is seen there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from headrace.broker.client import AsyncClient
from headrace.broker.connection import RedisError
from headrace.errors import HeadraceError
from headrace.redis_settings import RedisSettings

from .cluster import Cluster
from .looker import Looker, Place
from .loop import ControlLoop
from .spec import Mode

logger = logging.getLogger("headrace.operator")

BLOCK_MS: Final = 500
"""After so long the set of queues is made anew."""
REST_S: Final = 0.1
"""Between two wakes: a flood of submissions to a pool that stays at zero must not make the loop spin."""
RETRY_S: Final = 1.0
STREAMS: Final = "3210"


class Waker:
    """For one Redis connection."""

    def __init__(self, name: str, settings: RedisSettings, loop: ControlLoop, looker: Looker, cluster: Cluster) -> None:
        self._name = name
        self._client = AsyncClient(settings, "headrace-operator-wake")
        self._loop = loop
        self._looker = looker
        self._cluster = cluster
        self._woke_s = float("-inf")
        self._said = ""
        """Why it could not read along the last time."""
        self._slept: list[Place] = []
        self._keys: list[str] = []
        """The streams of those."""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._once()
        finally:
            await self._client.aclose()

    async def _once(self) -> None:
        keys = self._streams()
        if not keys:
            await asyncio.sleep(BLOCK_MS / 1_000)
            return
        command: list[bytes | str | int] = [
            "XREAD",
            "COUNT",
            1,
            "BLOCK",
            BLOCK_MS,
            "STREAMS",
            *keys,
            *("$" for _ in keys),
        ]
        try:
            reply = await self._client.command(*command, timeout_s=BLOCK_MS / 1_000 + 5)
        except HeadraceError as error:
            # What only a person can mend, and that once; of a Redis that is away the pools tell.
            level = logging.WARNING if isinstance(error, RedisError) and str(error) != self._said else logging.DEBUG
            logger.log(level, "nobody wakes pools of connection %s between two ticks: %s", self._name, error)
            self._said = str(error)
            await asyncio.sleep(RETRY_S)
            return
        self._said = ""
        if reply:
            # The rest comes before the wake, not after it: nobody reads what enters meanwhile, but this wake is for it.
            now = asyncio.get_running_loop().time
            await asyncio.sleep(max(0.0, self._woke_s + REST_S - now()))
            self._woke_s = now()
            self._loop.wake.set()

    def _streams(self) -> list[str]:
        """Of all queues that sleep: mostly those of the last time."""
        if (sleeping := self._sleeping()) != self._slept:
            self._slept = sleeping
            self._keys = [self._looker.queue(place).keys[digit] for place in sleeping for digit in STREAMS]
        return self._keys

    def _sleeping(self) -> list[Place]:
        """Queues of the pools that run nothing and would wake.

        Not those that the last look could not read, as their pools say: one such stream refuses the read of all others.
        """
        return [
            place
            for key, steering in self._loop.pools.items()
            if steering.pool.spec.mode is Mode.AUTO and self._cluster.fleet(key).asked_for == 0
            for place in steering.woken_by()
            if place.connection == self._name and not isinstance(self._loop.look.get(place), Exception)
        ]
