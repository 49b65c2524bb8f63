"""When a worker asks for what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.runtime import due
from headrace.runtime.due import Promotions
from worker_harness import eventually

QUEUE = Queue("default")


class Slow(AsyncClient):
    """A client whose promotions the test answers: (promoted, next due ms)."""

    def __init__(self) -> None:
        super().__init__(RedisSettings())
        self.asked: list[asyncio.Future[Any]] = []

    async def call(self, call: Any, *_: Any, **__: Any) -> Any:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


async def until(good: Callable[[], bool]) -> None:
    async def look() -> bool:
        return good()

    await eventually(look)


async def test_one_promotion_at_a_time_and_none_forgotten() -> None:
    """While one is out, due times that are told do not start others; the earliest of them is planned afterwards."""
    client, tasks = Slow(), set[asyncio.Task[None]]()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.add(asyncio.create_task(work))

    promotions = Promotions(client, spawn)
    promotions.plan(QUEUE, 0)
    await until(lambda: len(client.asked) == 1)
    for _ in range(50):
        promotions.plan(QUEUE, promotions.now_ms() + 100)
        await asyncio.sleep(0)
    assert len(client.asked) == 1
    client.asked[0].set_result((1, promotions.now_ms() + 3_600_000))
    await until(lambda: len(client.asked) == 2)
    client.asked[1].set_result((1, None))
    promotions.close()
    await asyncio.gather(*tasks)


async def test_a_clock_that_was_set_back_does_not_make_promotions_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """By our clock it is due, by Redis' it is not: they come at most every AGAIN_S until a beat tells the time."""
    monkeypatch.setattr(due, "AGAIN_S", 3600.0)
    client, tasks = Slow(), set[asyncio.Task[None]]()
    promotions = Promotions(client, lambda work: tasks.add(asyncio.create_task(work)))
    promotions.plan(QUEUE, 1)
    await until(lambda: len(client.asked) == 1)
    client.asked[0].set_result((0, 1))
    await asyncio.gather(*tasks)
    for _ in range(100):
        promotions.plan(QUEUE, 1)
        await asyncio.sleep(0)
    assert len(client.asked) == 1
    promotions.close()


async def test_a_beat_that_waited_for_the_loop_does_not_delay_promotions() -> None:
    """Its time is half a second old when it is read: the clock is not put back for that, but it is for an hour."""
    promotions = Promotions(Slow(), lambda work: None)
    now = promotions.now_ms()
    promotions.learn(now)
    promotions.learn(promotions.now_ms() - 500)
    assert promotions.now_ms() - now >= -10
    promotions.learn(promotions.now_ms() - 3_600_000)
    assert promotions.now_ms() - now < -3_000_000
