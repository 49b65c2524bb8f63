"""Five hundred pools of which a tenth hang or are refused: the others are led on within two ticks all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from chaos.proxy import FaultProxy
from chaos.rounds import tell
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace_operator import loop as operator_loop
from headrace_operator.caps import Caps
from headrace_operator.cluster import ClusterError, Refused
from headrace_operator.fleet import Key
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.manifests import Pool
from operator_kit import KEY, MemoryCluster, resource, submit_to
from redis_server import RedisServer

POOLS: Final = 500
LOOKED_AT: Final = 20
TICK_S: Final = 1.0
BROKEN: Final = ("stuck", "refused", "silent")


def name_of(number: int) -> str:
    """Each tenth is broken, in one of three ways."""
    return f"{BROKEN[number // 10 % 3] if number % 10 == 0 else 'sound'}-{number}"


class Crowded(MemoryCluster):
    """Whose API server does not answer to what is about some pools, and refuses others."""

    async def apply(self, pool: Pool) -> None:
        if pool.name.startswith("stuck"):
            await asyncio.sleep(10)
            raise ClusterError("the API server does not answer: nothing within 10 s")
        if pool.name.startswith("refused"):
            raise Refused("admission says no")
        await super().apply(pool)


@pytest.fixture
async def crowd(redis_server: RedisServer, redis_url: str) -> AsyncIterator[tuple[ControlLoop, Crowded]]:
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(FaultProxy(redis_server.port))
        line.blackhole()
        looker = Looker({
            "default": RedisSettings.parse(redis_url, "the test"), "silent": RedisSettings.parse(line.url, "the test"),
        })  # fmt: skip
        stack.push_async_callback(looker.aclose)
        cluster = Crowded()
        loop = ControlLoop(cluster, looker, tick_s=TICK_S, caps=Caps())
        stack.push_async_callback(loop.aclose)
        for number in range(POOLS):
            loop.saw_pool(named(name_of(number)))
        yield loop, cluster


def named(name: str) -> dict[str, Any]:
    raw = resource(queues=[{"name": name}], redis={"connection": "silent" if name.startswith("silent") else "default"})
    raw["metadata"] |= {"name": name, "uid": f"uid-{name}"}
    return raw


@pytest.mark.slow
async def test_a_tenth_that_is_broken_delays_no_other(crowd: tuple[ControlLoop, Crowded], redis_url: str) -> None:
    """No submission wakes the loop here: the tick finds it."""
    loop, cluster = crowd
    client = AsyncClient(RedisSettings.parse(redis_url, "the test"))
    running = asyncio.create_task(loop.run())
    sound = [Key(KEY.namespace, name_of(number)) for number in range(POOLS) if number % 10]
    try:
        await until(lambda: all(cluster.fleet(key).exists for key in sound), 60)
        lags = []
        for key in sound[:: len(sound) // LOOKED_AT]:
            await submit_to(client, Queue(key.name), 1)
            began_s = time.monotonic()
            await until(lambda key=key: cluster.fleet(key).asked_for == 1, 60)
            lags.append(time.monotonic() - began_s)
            await asyncio.sleep(0.13)  # at any moment of a tick
        lags.sort()
        tell(
            f"{len(lags)} decisions among {POOLS} pools: median {lags[len(lags) // 2]:.2f} s, longest {lags[-1]:.2f} s"
        )
        assert lags[-1] <= 2 * TICK_S + 1.0
        assert not any(cluster.fleet(key).asked_for for key in cluster.fleets if not key.name.startswith("sound"))
        shown = {name.partition("-")[0] for name in cluster.statuses}
        assert shown == {"sound", "stuck", "refused", "silent"}, "each says how it is"
    finally:
        running.cancel()
        await client.aclose()


class Held(MemoryCluster):
    """Whose API server answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()
        self.free = asyncio.Event()

    async def apply(self, pool: Pool) -> None:
        self.asked.add(pool.name)
        await self.free.wait()
        await super().apply(pool)


@pytest.fixture
async def held(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ControlLoop, Held]]:
    """Five pools, of which two may be in their first step."""
    monkeypatch.setattr(operator_loop, "FIRST_AT_ONCE", 2)
    looker, cluster = Looker({"default": RedisSettings.parse(redis_url, "the test")}), Held()
    loop = ControlLoop(cluster, looker, tick_s=TICK_S, caps=Caps())
    for number in range(1, 6):
        loop.saw_pool(named(name_of(number)))
    yield loop, cluster
    await loop.aclose()
    await looker.aclose()


async def test_a_crowd_of_new_pools_begins_a_few_at_a_time(
    held: tuple[ControlLoop, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_loop, "FIRST_S", 3_600)
    loop, cluster = held
    await loop.tick()
    assert len(cluster.asked) == 2
    loop.lost_pool(Key(KEY.namespace, "sound-5"))
    cluster.free.set()
    await loop.settled()
    assert cluster.asked == {f"sound-{number}" for number in range(1, 5)}, "what was deleted meanwhile is not begun"


async def test_new_pools_whose_first_step_hangs_keep_no_other_waiting(
    held: tuple[ControlLoop, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_loop, "FIRST_S", 0.01)
    loop, cluster = held
    await loop.tick()
    await until(lambda: len(cluster.asked) == 5, 60)


async def until(good: Any, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not good():  # noqa: ASYNC110 - the loop makes it so
            await asyncio.sleep(0.01)
