"""Pools of two Redis: the one that falls silent holds the other's pools up not even once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.broker.demand import Demand
from headrace.redis_settings import RedisSettings
from headrace_operator import loop as operator_loop
from headrace_operator.caps import Caps
from headrace_operator.fleet import Key
from headrace_operator.looker import Looker, Place
from headrace_operator.loop import ControlLoop
from operator_kit import KEY, MemoryCluster, resource, submit_to
from worker_harness import eventually


class Silent(Looker):
    """Its connection `other` answers, until it is hushed."""

    def __init__(self, redis: RedisSettings) -> None:
        super().__init__({"default": redis, "other": redis})
        self.hushed = False
        self.asked = asyncio.Event()
        """A question to the silent one is out."""

    async def look(self, places: Iterable[Place]) -> dict[Place, Demand | Exception]:
        wanted = list(places)
        if self.hushed and any(place.connection == "other" for place in wanted):
            self.asked.set()
            await asyncio.Event().wait()
        return await super().look(wanted)


async def test_the_first_silence_of_a_redis_delays_no_pool_of_another(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is known to be slow, a tick waits for it; a task for another pool ends that."""
    monkeypatch.setattr(operator_loop, "PATIENCE_S", 3_600)
    redis = RedisSettings.parse(redis_url, "the test")
    client, looker, cluster = AsyncClient(redis), Silent(redis), MemoryCluster()
    loop = ControlLoop(cluster, looker, tick_s=3_600, caps=Caps())
    for connection in ("default", "other"):
        raw = resource(queues=[{"name": connection}], redis={"connection": connection})
        raw["metadata"] |= {"name": connection, "uid": connection}
        loop.saw_pool(raw)
    await loop.tick()
    await loop.settled()
    sound = Key(KEY.namespace, "default")
    running = asyncio.create_task(loop.run())
    try:
        looker.hushed = True
        loop.wake.set()
        await looker.asked.wait()
        await submit_to(client, Queue("default"), 1)
        loop.wake.set()

        async def decided() -> bool:
            return cluster.fleet(sound).asked_for == 1

        await eventually(decided)
        assert loop.numbers.ticks == 1, "the tick that waited ended then, and no other one"
    finally:
        running.cancel()
        await loop.aclose()
        await looker.aclose()
        await client.aclose()
