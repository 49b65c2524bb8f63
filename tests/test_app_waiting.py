"""Handles: waiting for results."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace

import msgspec
import pytest

from app_kit import Page, declare, finish, make_app
from conftest import StartRedis
from headrace import (
    App,
    InvalidResult,
    ResultTimeout,
    State,
    StoreUnavailable,
    Task,
    TaskCancelled,
    TaskFailed,
    UnknownTask,
)
from headrace import task as tasks
from headrace.batches import Batch
from headrace.broker.broker import Queue
from headrace.broker.sync_client import SyncClient, sync_redis
from headrace.connections import Connections
from headrace.redis_settings import RedisSettings
from redis_server import await_true


def test_get_returns_what_the_annotation_says(app: App[None], broker: SyncClient) -> None:
    """A dataclass comes back as one."""
    handle = declare(app).enqueue("u", 1)
    finish(broker, Queue("default"), "completed", result=msgspec.Raw(b'{"url":"u","words":1}'))
    assert handle.get(timeout=5) == Page("u", 1)
    assert handle.state() is State.COMPLETED


async def test_aget_hears_of_the_end(redis_url: str, broker: SyncClient) -> None:
    """Many waiters of one queue share a reader, and hear at once."""
    async with make_app(redis_url) as app:
        count = declare(app)
        handles = [await count.aenqueue("u", n) for n in range(20)]
        waiting = asyncio.gather(*(handle.aget(timeout=10) for handle in handles))
        await asyncio.sleep(0)
        start = time.monotonic()
        for n in range(20):
            result = msgspec.Raw(b'{"url":"u","words":%d}' % n)
            await asyncio.to_thread(finish, broker, Queue("default"), "completed", result=result)
        assert [page.words for page in await waiting] == list(range(20))
        assert time.monotonic() - start < 4  # the fallback looks after 5 s


async def test_aget_of_what_has_ended(redis_url: str, broker: SyncClient) -> None:
    """No news will come, so the first look answers."""
    async with make_app(redis_url) as app:
        handle = await declare(app).aenqueue("u", 1)
        await asyncio.to_thread(finish, broker, Queue("default"), "completed")
        with pytest.raises(
            InvalidResult, match=r"^Task .* completed, but its result .*: Expected `object`, got `null`"
        ):
            await handle.aget(timeout=5)  # the result is null, and Page is no null


async def test_reader_stops_when_nobody_waits(redis_url: str, broker: SyncClient) -> None:
    """Waiting again starts it again, from where the journal is then."""
    async with make_app(redis_url) as app:
        count = declare(app)
        for n in range(2):
            handle = await count.aenqueue("u", n)
            waiting = asyncio.create_task(handle.aget(timeout=10))
            result = msgspec.Raw(b'{"url":"u","words":1}')
            await asyncio.to_thread(finish, broker, Queue("default"), "completed", result=result)
            assert (await waiting).words == 1
            reader = app.connections._here().watches["default"]._reader
            assert reader is not None
            await asyncio.wait_for(reader, 5)


async def test_wait_outlives_a_restart(start_redis: StartRedis) -> None:
    """A wait rides out an outage of Redis and gets its result afterwards, by the journal."""
    server = start_redis(appendfsync="always")
    broker = SyncClient(RedisSettings.parse(server.url, "test"))
    async with make_app(server.url) as app:
        handle = await declare(app).aenqueue("u", 1)
        waiting = asyncio.create_task(handle.aget(timeout=30))
        with pytest.raises(ResultTimeout):
            await handle.aget(timeout=0.05)
        connection = await app.connections._here().watches["default"]._client.connection()
        await asyncio.to_thread(server.kill)
        await connection.wait_closed()
        await asyncio.to_thread(server.start)
        result = msgspec.Raw(b'{"url":"u","words":1}')
        await asyncio.to_thread(finish, broker, Queue("default"), "completed", result=result)
        assert (await waiting).words == 1
    broker.close()


async def test_journal_that_may_not_be_read_is_said(start_redis: StartRedis, caplog: pytest.LogCaptureFixture) -> None:
    """Waiting works without it; the log says why it is slow."""
    server = start_redis(acl=["user default on nopass ~* &* +@all -xread -xrevrange"])
    async with make_app(server.url) as app:
        handle = await declare(app).aenqueue("u", 1)
        with pytest.raises(ResultTimeout):
            await handle.aget(timeout=0.2)
    assert "journal cannot be read" in caplog.text


def test_ends_that_are_no_result(app: App[None], broker: SyncClient) -> None:
    """Failed, cancelled, unknown: each is an error of its own."""
    count, queue = declare(app), Queue("default")
    failed = count.enqueue("u", 1)
    finish(broker, queue, "failed", error=tasks.Failure("ValueError", "no such page"))
    with pytest.raises(TaskFailed, match="ValueError: no such page"):
        failed.get(timeout=1)
    crashed = count.enqueue("u", 1)
    finish(broker, queue, "failed", cause="OOMKilled")
    with pytest.raises(TaskFailed, match="OOMKilled"):
        crashed.get(timeout=1)
    cancelled = count.enqueue("u", 1)
    broker.call(queue.cancel(cancelled.id))
    with pytest.raises(TaskCancelled):
        cancelled.get(timeout=1)
    with pytest.raises(UnknownTask):
        count.handle(tasks.new_id()).get(timeout=1)
    with pytest.raises(UnknownTask):
        count.handle("../../etc")


async def test_timeout_names_the_state(redis_url: str) -> None:
    """Both ways of waiting say what the task is doing instead."""
    async with make_app(redis_url) as app:
        handle = await declare(app).aenqueue("u", 1)
        with pytest.raises(ResultTimeout, match=r"still pending after 0\.2 s"):
            await handle.aget(timeout=0.2)
        with pytest.raises(ResultTimeout, match="still pending"):
            await asyncio.to_thread(handle.get, 0.05)


async def test_a_wait_ends_in_time_while_redis_is_silent(start_redis: StartRedis) -> None:
    """Its time and that of one request, both ways; it went on for as long as a submission may insist."""
    server = start_redis()
    app = App("t")
    redis = replace(RedisSettings.parse(server.url, "the test"), timeout_s=0.3, connect_timeout_s=0.3)
    app._connections = Connections(None, None, found=redis)
    handle = await declare(app).aenqueue("u", 1)
    await asyncio.to_thread(handle.state)
    server.freeze()
    try:
        async with asyncio.timeout(5):  # of the ten of a submission
            with pytest.raises(StoreUnavailable):
                await handle.aget(timeout=0.2)
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(handle.get, 0.2)
            both = Batch([handle, handle], app.connections)
            with pytest.raises(StoreUnavailable):
                await both.aoutcomes(timeout=0.2)
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(both.outcomes, 0.2)
    finally:
        server.thaw()
        await app.aclose()


def test_one_app_in_several_loops(app: App[None]) -> None:
    """Connections belong to a loop; the App does not."""

    async def submit() -> str:
        try:
            return (await declare_once(app).aenqueue("u", 1)).id
        finally:
            await app.aclose()

    assert asyncio.run(submit()) != asyncio.run(submit())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_loops_that_ended_without_a_word_leave_no_connections(app: App[None], broker: SyncClient) -> None:
    """One `asyncio.run` a request, as in a synchronous view, and no `aclose`: each kept its connections for good."""

    async def submit_and_wait() -> None:
        handle = await declare_once(app).aenqueue("u", 1)
        with pytest.raises(ResultTimeout):
            await handle.aget(timeout=0.01)

    def connections() -> int:
        return sum("name=headrace " in line or "name=headrace-journal" in line for line in client_list(broker))

    for _ in range(5):
        asyncio.run(submit_and_wait())
    await_true(lambda: connections() <= 2)
    assert len(app.connections._loops) == 1
    asyncio.run(app.aclose())
    await_true(lambda: connections() == 0)
    gc.collect()


def client_list(broker: SyncClient) -> list[str]:
    with sync_redis(broker.settings) as redis:
        return [f"name={each['name']} " for each in redis.client_list()]


def declare_once(app: App[None]) -> Task[[str, int], Page]:
    if "count" in app.registry:
        return Task(app, app.registry["count"])
    return declare(app)


async def test_aclose_leaves_nothing_open(redis_url: str) -> None:
    """Not even a reader in the middle of its wait; a warning about an open transport would fail this test."""
    app = make_app(redis_url)
    handle = await declare(app).aenqueue("u", 1)
    with pytest.raises(ResultTimeout):
        await handle.aget(timeout=0.05)
    waiting = asyncio.create_task(handle.aget(timeout=30))
    await asyncio.sleep(0)
    reader = app.connections._here().watches["default"]._reader
    assert reader is not None
    assert not reader.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await app.aclose()
    gc.collect()
