"""Pools of two Redis: the one that falls silent holds the other's pools up not even once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

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
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.asked = asyncio.Event()
        """A question to the silent one is out."""

    async def look(self, places: Iterable[Place]) -> dict[Place, Demand | Exception]:
        wanted = list(places)
        found = await super().look(wanted)
        if any(place.connection == "other" for place in wanted) and not self.speaks.is_set():
            self.asked.set()
            await self.speaks.wait()
        return found


@dataclass(frozen=True)
class Pair:
    """A pool on each of two Redis, and a loop that only looks when it is woken."""

    loop: ControlLoop
    looker: Silent
    cluster: MemoryCluster
    client: AsyncClient

    async def submit(self, queue: str) -> None:
        await submit_to(self.client, Queue(queue), 1)
        self.loop.wake.set()

    async def decided(self, pool: str) -> None:
        async def good() -> bool:
            return self.cluster.fleet(Key(KEY.namespace, pool)).asked_for == 1

        await eventually(good)


@pytest.fixture
async def pair(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """Both were looked at once; the next look at `other` is out, and no tick gives it up."""
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
    running = asyncio.create_task(loop.run())
    looker.speaks.clear()
    loop.wake.set()
    await looker.asked.wait()
    yield Pair(loop, looker, cluster, client)
    running.cancel()
    await loop.aclose()
    await looker.aclose()
    await client.aclose()


async def test_the_first_silence_of_a_redis_delays_no_pool_of_another(pair: Pair) -> None:
    """Before it is known to be slow, a tick waits for it; a task for another pool ends that."""
    await pair.submit("default")
    await pair.decided("default")
    assert pair.loop.numbers.ticks == 1, "the tick that waited ended then, and no other one"


async def test_news_of_a_redis_whose_last_look_is_still_out_is_not_forgotten(pair: Pair) -> None:
    """That look found nothing yet, so there has to be another one as soon as it is over."""
    await pair.submit("other")
    await pair.submit("default")
    await pair.decided("default")
    pair.looker.speaks.set()
    await pair.decided("other")
