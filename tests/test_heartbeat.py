"""A worker's signs of life, from a thread, on real Redis."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis

from headrace.broker.broker import Beat, Queue
from headrace.broker.client import BlockingClient
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.runtime import heartbeat
from headrace.runtime.heartbeat import Heartbeat
from redis_server import RedisServer, await_true

BEAT_S = 0.05
LIMIT_S = 15.0
NAME = "host:1"
QUEUE, OTHER = Queue("default"), Queue("orders")


class Rig:
    """A heartbeat on two queues; what it tells the loop is put into asyncio queues."""

    def __init__(self, url: str) -> None:
        self.beats: asyncio.Queue[tuple[str, Beat]] = asyncio.Queue()
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()
        self.told_in: set[int] = set()
        settings = replace(RedisSettings.parse(url, "a test"), timeout_s=1.0)
        self.heart = Heartbeat(settings, [QUEUE, OTHER], NAME, b'{"pid":1}', BEAT_S, self._beat, self.errors.put_nowait)

    def _beat(self, queue: str, beat: Beat) -> None:
        self.told_in.add(threading.get_ident())
        self.beats.put_nowait((queue, beat))

    async def next_beat(self) -> tuple[str, Beat]:
        return await asyncio.wait_for(self.beats.get(), LIMIT_S)

    async def fresh_beat(self) -> tuple[str, Beat]:
        """One that came after now."""
        while not self.beats.empty():
            self.beats.get_nowait()
        return await self.next_beat()


@pytest.fixture
async def rig(redis_url: str) -> AsyncIterator[Rig]:
    rig = Rig(redis_url)
    yield rig
    await rig.heart.stop(LIMIT_S)


def started(rig: Rig) -> bool:
    return rig.heart.started


def counter(server: redis.Redis, queue: Queue = QUEUE) -> int:
    return int(server.hget(queue.keys["w"], NAME) or 0)


async def test_the_first_beat_is_in_every_queue_when_start_returns(rig: Rig, redis_server: RedisServer) -> None:
    """Nothing may be claimed by a worker that nobody can see."""
    assert not started(rig)
    await rig.heart.start()
    assert started(rig) and rig.heart.answered_within(LIMIT_S)
    for queue in (QUEUE, OTHER):
        assert counter(redis_server.redis, queue) >= 1
        assert redis_server.redis.hget(queue.keys["wd"], NAME) == b'{"pid":1}'


async def test_beats_go_on_and_their_answers_come_to_the_loop(rig: Rig, redis_server: RedisServer) -> None:
    """The counter grows by itself, and both queues' answers arrive in the event loop."""
    await rig.heart.start()
    first = counter(redis_server.redis)
    seen = {(await rig.next_beat())[0] for _ in range(6)}
    assert seen == {"default", "orders"} and rig.told_in == {threading.get_ident()}
    assert counter(redis_server.redis) > first


async def test_an_answer_carries_what_the_worker_is_asked_to_cancel(rig: Rig, redis_server: RedisServer) -> None:
    """A beat is how a worker learns of a cancellation."""
    await rig.heart.start()
    redis_server.redis.hset(QUEUE.keys["rev"], "some-id", NAME)
    while True:
        queue, beat = await rig.next_beat()
        if beat.asked:
            break
    assert (queue, beat.asked) == ("default", ["some-id"])


async def test_beats_go_on_while_a_handler_blocks_the_loop(rig: Rig, redis_server: RedisServer) -> None:
    """Blocked is not dead: three more beats reach Redis before the loop gets its turn again."""
    await rig.heart.start()
    before = counter(redis_server.redis)
    await_true(lambda: counter(redis_server.redis) >= before + 3)  # asks and sleeps in the loop's own thread


async def test_a_blocked_loop_is_said_with_the_line_that_blocks_it(
    rig: Rig, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop cannot say so itself. Said once, with function and file, and what to do."""
    monkeypatch.setattr(heartbeat, "BLOCKED_S", 3 * BEAT_S)
    await rig.heart.start()
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        await_true(lambda: len(caplog.records) == 1)
        beats = counter(redis_server.redis)
        await_true(lambda: counter(redis_server.redis) >= beats + 5)
    assert len(caplog.records) == 1
    text = caplog.records[0].getMessage()
    assert " in await_true, called from " in text and f"{__file__}:" in text
    assert "instead of `async def`" in text


async def test_an_answering_loop_is_not_called_blocked(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No false alarm."""
    monkeypatch.setattr(heartbeat, "BLOCKED_S", 10 * BEAT_S)
    await rig.heart.start()
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        for _ in range(60):
            await rig.next_beat()
    assert caplog.records == []


async def test_a_slow_redis_is_not_a_blocked_loop(
    rig: Rig, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that waits for its time-out, or a name server, says nothing of the loop."""
    monkeypatch.setattr(heartbeat, "BLOCKED_S", 10 * BEAT_S)
    await rig.heart.start()
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        redis_server.freeze()
        try:
            for _ in range(2):  # each takes a second
                await asyncio.wait_for(rig.errors.get(), LIMIT_S)
        finally:
            redis_server.thaw()
        await rig.fresh_beat()
    assert caplog.records == []


async def test_redis_killed_and_back_beats_go_on_with_a_larger_counter(rig: Rig, redis_server: RedisServer) -> None:
    """The counter is the process's own: it grows through an outage, so nobody mistakes it for an old one."""
    await rig.heart.start()
    before = counter(redis_server.redis)
    redis_server.kill()
    error = await asyncio.wait_for(rig.errors.get(), LIMIT_S)
    assert isinstance(error, StoreUnavailable)
    redis_server.start()
    await rig.fresh_beat()
    assert counter(redis_server.redis) > before
    assert rig.heart.answered_within(LIMIT_S)


async def test_a_frozen_redis_costs_time_outs_and_no_more(rig: Rig, redis_server: RedisServer) -> None:
    """Connections that stay open and say nothing are given up, and beats go on when it thaws."""
    await rig.heart.start()
    redis_server.freeze()
    try:
        error = await asyncio.wait_for(rig.errors.get(), LIMIT_S)
        assert isinstance(error, StoreUnavailable)
        assert not rig.heart.answered_within(BEAT_S)
    finally:
        redis_server.thaw()
    await rig.fresh_beat()


async def test_start_says_that_redis_is_away_and_may_be_called_again(rig: Rig, redis_server: RedisServer) -> None:
    """A worker that starts before Redis waits for it, and does not claim unseen."""
    redis_server.kill()
    with pytest.raises(StoreUnavailable):
        await rig.heart.start()
    assert not started(rig)
    redis_server.start()
    await rig.heart.start()
    assert started(rig) and counter(redis_server.redis) >= 2


async def test_after_stop_no_beat_comes(rig: Rig, redis_server: RedisServer) -> None:
    """What signs the worker off afterwards is not undone by a late beat."""
    await rig.heart.start()
    await rig.heart.stop(LIMIT_S)
    last = counter(redis_server.redis)
    for thread in threading.enumerate():
        if thread.name == "headrace-heartbeat":
            thread.join(10)  # it says that it is through just before it ends
            assert not thread.is_alive()
    redis_server.redis.hdel(QUEUE.keys["w"], NAME)
    assert last >= 1 and counter(redis_server.redis) == 0


async def test_a_new_description_travels_with_the_next_beat(rig: Rig, redis_server: RedisServer) -> None:
    """Drain state and the like are seen by others within one beat."""
    await rig.heart.start()
    rig.heart.info = b'{"draining":true}'
    await rig.heart.beat_now()
    assert redis_server.redis.hget(OTHER.keys["wd"], NAME) == b'{"draining":true}'


async def test_beats_after_a_flush_make_the_worker_known_again(rig: Rig, redis_server: RedisServer) -> None:
    """Whoever deleted the worker's marks, the next beat restores both."""
    await rig.heart.start()
    redis_server.redis.flushall()
    await rig.heart.beat_now()
    assert counter(redis_server.redis) >= 2
    assert redis_server.redis.hget(QUEUE.keys["wd"], NAME) == b'{"pid":1}'


async def test_waiting_for_a_beat_ends_with_stop(rig: Rig, redis_server: RedisServer) -> None:
    """No caller hangs on a heart that was stopped meanwhile."""
    await rig.heart.start()
    redis_server.freeze()
    try:
        waiting = asyncio.ensure_future(rig.heart.beat_now())
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(rig.heart.stop(LIMIT_S))
        done, _ = await asyncio.wait({waiting, stopping}, timeout=LIMIT_S)
    finally:
        redis_server.thaw()
    assert done == {waiting, stopping}
    assert waiting.cancelled() or isinstance(waiting.exception(), StoreUnavailable)


async def test_a_stop_waits_for_a_beat_that_hangs_only_as_long_as_it_says(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the worker's end must not depend on it."""
    hangs, over = threading.Event(), threading.Event()

    def hanging(self: BlockingClient, call: object) -> None:
        hangs.set()
        over.wait(LIMIT_S)
        raise StoreUnavailable("redis", "hung up")

    await rig.heart.start()
    monkeypatch.setattr(BlockingClient, "call", hanging)
    await asyncio.to_thread(hangs.wait)
    late = asyncio.ensure_future(rig.heart.beat_now())
    await asyncio.sleep(0)
    try:
        await rig.heart.stop(0.01)
        assert any(thread.name == "headrace-heartbeat" for thread in threading.enumerate())
        await asyncio.wait({late})
        assert late.cancelled()
    finally:
        over.set()
