"""A worker that is told to stop while its connections to Redis carry nothing any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace import App
from headrace.broker.broker import Call
from headrace.broker.client import BlockingClient
from headrace.errors import StoreUnavailable
from headrace.runtime.drain import BEYOND_S, SILENT_S
from headrace.settings import Durabilities
from headrace.task import State
from redis_server import RedisServer
from worker_harness import Desk, eventually, shares, working

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


async def stopped(
    held: Held, desk: Desk, proxy: FaultProxy, fault: Callable[[], None], **settings: Any
) -> tuple[str, float]:
    """The fault comes, then the stop, then the task ends. Which task, and how long the worker took."""
    async with working(held.app, proxy.url, dead_after_s=LONG_S, grace_s=GRACE_S, **settings) as worker:
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


async def test_a_queue_that_waits_for_the_disk_is_not_cut_off_by_one_that_does_not(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """They share a connection, and what confirms the report may take as long as its queue allows."""
    server, held = start_redis(appendfsync="always"), Held()
    async with FaultProxy(server.port) as proxy, Desk(server.url, "orders") as desk:

        def slow() -> None:
            proxy.delay_s = SILENT_S * 0.6

        settings = {
            "queues": shares("default", "orders"),
            "durability": Durabilities.parse("default=local,orders=fsync"),
            "durability_timeout_s": 2.0,
        }
        task, _ = await stopped(held, desk, proxy, slow, **settings)
        assert (await desk.look(task)).state is State.COMPLETED
    assert "has not confirmed" not in caplog.text


async def test_a_beat_that_hangs_keeps_it_neither_from_signing_off_nor_from_its_end(
    desk: Desk, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, hangs, over = threading.Event(), threading.Event(), threading.Event()
    call = BlockingClient.call

    def hanging(self: BlockingClient, what: Call[Any]) -> Any:
        if hang.is_set():
            hangs.set()
            over.wait(LONG_S)
            raise StoreUnavailable("redis", "hung up")
        return call(self, what)

    monkeypatch.setattr(BlockingClient, "call", hanging)
    try:
        async with working(Held().app, redis_url, dead_after_s=LONG_S, grace_s=GRACE_S):

            async def known() -> bool:
                return await desk.client.call(desk.queue.workers()) != []

            await eventually(known)
            hang.set()
            await asyncio.to_thread(hangs.wait)
            began = time.monotonic()
        assert time.monotonic() - began < GRACE_S + BEYOND_S + 1
        assert await desk.client.call(desk.queue.workers()) == []
    finally:
        over.set()
