"""A worker that is told to stop while its connections to Redis carry nothing any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from chaos.proxy import FaultProxy
from headrace import App
from headrace.runtime.drain import BEYOND_S
from headrace.task import State
from redis_server import RedisServer
from worker_harness import Desk, eventually, working

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

GRACE_S = 1.0
LONG_S = 60.0
"""Nobody is taken for dead meanwhile."""


class Held:
    """An app whose task ends when it is let go."""

    def __init__(self) -> None:
        self.app = App("t")
        self.runs = 0
        self.begun, self.go = asyncio.Event(), asyncio.Event()

        @self.app.task()
        async def held() -> None:
            self.runs += 1
            self.begun.set()
            await self.go.wait()


async def stopped(held: Held, desk: Desk, proxy: FaultProxy, fault: Callable[[], None]) -> tuple[str, float]:
    """The fault comes, then the stop, then the task ends. Which task, and how long the worker took."""
    async with working(held.app, proxy.url, dead_after_s=LONG_S, grace_s=GRACE_S) as worker:
        task = await desk.submit("held")
        await held.begun.wait()
        fault()
        worker.stop()
        held.go.set()
        began = time.monotonic()
    return task, time.monotonic() - began


async def test_over_connections_that_swallow_all_it_reports_and_signs_off(
    desk: Desk, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It gives them up, and tells all over new ones: the task has run once, and nobody has to wait for its death."""
    held = Held()
    async with FaultProxy(redis_server.port) as proxy:
        task, took_s = await stopped(held, desk, proxy, proxy.forget)
    seen = await desk.look(task)
    assert (seen.state, seen.counters.attempts, held.runs) == (State.COMPLETED, 1, 1)
    assert await desk.client.call(desk.queue.workers()) == []
    assert took_s < GRACE_S + BEYOND_S + 1
    assert "Signing off failed" not in caplog.text and "has not confirmed" not in caplog.text


async def test_without_redis_it_ends_all_the_same_and_says_what_it_could_not_tell(
    desk: Desk, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    async with FaultProxy(redis_server.port) as proxy:
        task, took_s = await stopped(held, desk, proxy, proxy.blackhole)
    assert took_s < GRACE_S + BEYOND_S + 1
    assert f"the outcome of {task}. Other workers run again" in caplog.text
    assert f"{LONG_S:g} s after the last beat" in caplog.text
    assert (await desk.look(task)).state is State.PROCESSING


async def test_a_connection_that_breaks_at_the_sign_off_is_followed_by_another(
    desk: Desk, redis_server: RedisServer
) -> None:
    """As where something that was asked before on it ends it, for want of an answer."""
    async with FaultProxy(redis_server.port) as proxy:
        async with working(Held().app, proxy.url, dead_after_s=LONG_S):

            async def known() -> bool:
                seen = await desk.client.call(desk.queue.workers())
                return seen != []

            await eventually(known)
            proxy.lose_request(b"leave")
        assert proxy.faults == 1
    assert await desk.client.call(desk.queue.workers()) == []
