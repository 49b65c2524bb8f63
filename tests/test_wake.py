"""What enters an empty queue of a pool at zero wakes the loop, also right after another wake."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.task import Envelope, encode_envelope, new_id
from headrace_operator import wake
from headrace_operator.caps import Caps
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.wake import Waker
from operator_kit import MemoryCluster, resource
from worker_harness import eventually

REST_S = 1.0


async def blocked(client: AsyncClient, within_s: float) -> None:
    """Wait until somebody reads along, but no longer."""
    end = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < end:
        if b"\nblocked_clients:1\r" in bytes(await client.command("INFO", "clients")):
            return
        await asyncio.sleep(0.01)


async def submit(client: AsyncClient, name: str) -> None:
    each = new_id()
    await client.call(Queue(name).submit([NewTask(each, encode_envelope(Envelope(1, 1, each, type="t")), 1)]))


async def test_a_stream_that_cannot_be_read_leaves_the_wake_ups_of_other_queues(redis_url: str) -> None:
    """One of another type refuses the read of all."""
    redis = RedisSettings.parse(redis_url, "the test")
    client, looker, cluster = AsyncClient(redis), Looker({"default": redis}), MemoryCluster()
    loop = ControlLoop(cluster, looker, tick_s=60, caps=Caps())
    loop.saw_pool(resource(queues=[{"name": "bad"}, {"name": "good"}]))
    await client.command("SET", Queue("bad").keys["1"], "no stream")
    await loop.tick()
    await loop.settled()
    loop.wake.clear()
    running = asyncio.create_task(Waker("default", redis, loop, looker, cluster).run())
    try:
        await blocked(client, 5)
        await submit(client, "good")
        await asyncio.wait_for(loop.wake.wait(), 5)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await loop.aclose()
        await looker.aclose()
        await client.aclose()


async def test_what_refuses_all_wake_ups_is_said_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a user that may not XREAD. Here the stream turns bad behind the back of the last look."""
    monkeypatch.setattr(wake, "RETRY_S", 0.01)
    redis = RedisSettings.parse(redis_url, "the test")
    client, looker, cluster = AsyncClient(redis), Looker({"default": redis}), MemoryCluster()
    loop = ControlLoop(cluster, looker, tick_s=60, caps=Caps())
    loop.saw_pool(resource(queues=[{"name": "bad"}]))

    async def tried_again() -> bool:
        return len(caplog.records) >= 3

    await client.command("SET", Queue("bad").keys["1"], "no stream")
    with caplog.at_level(logging.DEBUG, "headrace.operator"):
        running = asyncio.create_task(Waker("default", redis, loop, looker, cluster).run())
        try:
            await eventually(tried_again)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await looker.aclose()
            await client.aclose()
    warned = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warned) == 1 and "WRONGTYPE" in warned[0], warned


async def test_a_task_in_another_queue_right_after_a_wake_is_not_left_to_the_tick(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "REST_S", REST_S)
    redis = RedisSettings.parse(redis_url, "the test")
    client, looker, cluster = AsyncClient(redis), Looker({"default": redis}), MemoryCluster()
    loop = ControlLoop(cluster, looker, tick_s=60, caps=Caps())
    loop.saw_pool(resource(queues=[{"name": "first"}, {"name": "second"}]))
    loop.wake.clear()
    running = asyncio.create_task(Waker("default", redis, loop, looker, cluster).run())
    now = asyncio.get_running_loop().time
    try:
        await blocked(client, 5)
        began = now()
        for name in ("first", "second"):
            await submit(client, name)
            await asyncio.wait_for(loop.wake.wait(), REST_S + 2)
            loop.wake.clear()
            await blocked(client, REST_S / 2)
        assert now() - began > REST_S * 0.9, "two wakes are not closer to each other"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await looker.aclose()
        await client.aclose()
