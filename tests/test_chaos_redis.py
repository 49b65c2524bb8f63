"""Failure modes of Redis under a worker, with their numbers: full, busy, emptied, a lost claim, a herd."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from redis.exceptions import ResponseError

from chaos.calm import Watch
from chaos.counting import Counting, two_at_work
from chaos.proxy import FaultProxy
from chaos.rounds import dice, rounds, tell
from conftest import StartRedis
from headrace.broker.broker import NewTask
from headrace.broker.client import AsyncClient
from headrace.broker.connection import Connection
from headrace.broker.scripts import script
from headrace.errors import StoreFull
from headrace.redis_settings import RedisSettings
from headrace.runtime import reconnect
from headrace.runtime.promoter import promote
from headrace.task import Envelope, State, encode_envelope, new_id
from redis_server import RedisServer
from worker_harness import Desk, eventually, working

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SOON_S = 2.0
"""Within this work goes on after Redis is well again."""
DUE_MS = 4_000_000_000_000


def news(count: int, **options: Any) -> list[NewTask]:
    ids = [new_id() for _ in range(count)]
    return [NewTask(id_, encode_envelope(Envelope(1, 1, id_, type="count")), 1, **options) for id_ in ids]


async def submit_all(desk: Desk, tasks: list[NewTask]) -> None:
    """A hundred a call."""
    for at in range(0, len(tasks), 100):
        await desk.client.call(desk.queue.submit(tasks[at : at + 100]))


# F21


async def test_all_that_is_queued_drains_at_full_memory(start_redis: StartRedis) -> None:
    """Foreign keys fill Redis to its `maxmemory`; afterwards submissions work again, and nobody was restarted."""
    server, count = start_redis(maxmemory="64mb"), rounds(200, 5_000)
    counting, desk = Counting(), Desk(server.url)
    await desk.client.call(desk.queue.init())
    await submit_all(desk, news(count))
    foreign = 0
    with pytest.raises(ResponseError, match="maxmemory"):
        while True:
            server.redis.set(f"foreign-{foreign}", bytes(100_000))
            foreign += 1
    # A little beyond its limit, for what clients buffer comes and goes.
    server.redis.config_set("maxmemory", server.redis.info("memory")["used_memory"] * 9 // 10)
    with pytest.raises(StoreFull):
        await desk.submit("count")

    async def drained() -> bool:
        return (await desk.client.call(desk.queue.depth())).live == 0

    async with working(counting.app, server.url, concurrency=50):
        await eventually(drained, 120)
        used = server.redis.info("memory")
        assert used["used_memory"] > used["maxmemory"], "it was full all the time"
        for number in range(foreign):
            server.redis.delete(f"foreign-{number}")
        assert (await desk.ended(await desk.submit("count"))).state is State.COMPLETED
    assert (await desk.client.call(desk.queue.depth())).ended("completed") == count + 1
    assert set(counting.runs.values()) == {1}
    tell(f"{count:,} tasks drained at full memory")
    await desk.close()


# F23


async def test_a_busy_redis_makes_nobody_exit_and_nothing_run_twice(start_redis: StartRedis) -> None:
    """A script that never ends: all others are told BUSY for longer than a worker's time to live."""
    server = start_redis(args=["--busy-reply-threshold", "100"])
    counting = Counting()
    async with two_at_work(counting, server) as (desk, one, two, tasks):
        endless = asyncio.create_task(asyncio.to_thread(server.redis.eval, "while true do end", 0))
        await asyncio.sleep(2.5)
        with pytest.raises(ResponseError, match="BUSY"):
            server.redis.get("anything")
        server.redis.script_kill()
        watch = Watch(server.pid)
        with pytest.raises(ResponseError, match="killed by user"):
            await endless
        assert (await desk.ended(await desk.submit("count"))).state is State.COMPLETED
        assert watch.own_s < SOON_S
        for task in tasks:
            assert (await desk.ended(task)).state is State.COMPLETED
        assert one.stats.redelivered == two.stats.redelivered == 0
    assert set(counting.runs.values()) == {1} and len(counting.runs) == 6


# F5


async def test_new_tasks_run_within_2_s_of_a_redis_that_was_emptied(desk: Desk, redis_server: RedisServer) -> None:
    """By FLUSHALL, by DEL of each stream, or of the groups alone, while tasks run; the worker goes on."""
    counting, rng, worst = Counting(), dice("emptied"), 0.0
    streams = [desk.queue.keys[digit] for digit in "3210rs"]

    def groups() -> None:
        for stream in streams:
            if redis_server.redis.exists(stream):
                redis_server.redis.xgroup_destroy(stream, "g")

    emptied: tuple[Callable[[], object], ...] = (
        redis_server.redis.flushall,
        lambda: redis_server.redis.delete(*streams),
        groups,
    )
    async with working(counting.app, redis_server.url):
        for number in range(rounds(6, 90)):
            await desk.ended(await desk.submit("count"))
            await asyncio.sleep(rng.uniform(0.0, 0.1))
            emptied[number % 3]()
            watch = Watch(redis_server.pid)
            assert (await desk.ended(await desk.submit("count"))).state is State.COMPLETED
            worst = max(worst, watch.own_s)
    tell(f"emptied {rounds(6, 90)} times: new tasks run within {worst:.2f} s")
    assert worst < SOON_S


# F11


async def test_a_claim_whose_reply_is_lost_is_found_within_two_beats(desk: Desk, redis_server: RedisServer) -> None:
    """The worker holds a task of which it never heard; on its next connection it asks."""
    counting, beat_s, worst = Counting(), 0.5, 0.0
    async with (
        FaultProxy(redis_server.port) as proxy,
        working(counting.app, proxy.url, beat_s=beat_s, dead_after_s=60.0) as worker,
    ):
        await desk.ended(await desk.submit("count"))
        for number in range(rounds(5, 100)):
            proxy.lose_reply(script("cycle").sha.encode())
            watch = Watch(redis_server.pid)
            assert (await desk.ended(await desk.submit("count"))).state is State.COMPLETED
            assert proxy.faults == number + 1
            worst = max(worst, watch.own_s)
        assert worker.stats.verdicts["stale"] == worker.stats.verdicts["gone"] == 0
    tell(f"{rounds(5, 100)} lost claims found within {worst:.2f} s")
    assert set(counting.runs.values()) == {1}
    assert worst <= 2 * beat_s


# F24


class Herd:
    """Connections that each come back by themselves, as those of a worker do."""

    def __init__(self, server: RedisServer, count: int) -> None:
        self.count = count
        self.there = 0
        """Connections that stand."""
        settings = RedisSettings.parse(server.url, "the test")
        self._all = [asyncio.create_task(self._one(settings, f"herd-{number}")) for number in range(count)]

    async def _one(self, settings: RedisSettings, name: str) -> None:
        async def use(connection: Connection) -> None:
            self.there += 1

        await reconnect.keep_connected(settings, name, use)

    async def all_there(self) -> bool:
        return self.there >= self.count

    async def close(self) -> None:
        for each in self._all:
            each.cancel()
        await asyncio.gather(*self._all, return_exceptions=True)


async def received(server: RedisServer, until: Callable[[], Awaitable[bool]]) -> list[int]:
    """Connections that Redis took in each twentieth of a second until then, by its own count."""
    loop, counts = asyncio.get_running_loop(), list[int]()
    began = loop.time()
    while not await until():
        counts.append(server.redis.info("stats")["total_connections_received"])
        await asyncio.sleep(max(0.0, began + len(counts) / 20 - loop.time()))
    counts.append(server.redis.info("stats")["total_connections_received"])
    return [later - sooner for sooner, later in pairwise(counts)]


def p99_ms(server: RedisServer) -> dict[str, float]:
    """What the slowest hundredth of each command took Redis, by its own measure."""
    seen = server.redis.info("latencystats")
    prefix = "latency_percentiles_usec_"
    return {name.removeprefix(prefix): float(values["p99"]) / 1_000 for name, values in seen.items()}


async def test_a_herd_is_back_within_2_s_and_redis_stays_quick(start_redis: StartRedis) -> None:
    """Redis is killed under hundreds of connections, and comes back when their pauses are longest.

    They are spread over those pauses, half a second: no bound a second would have 500 of them back in time.
    """
    server, count = start_redis(), rounds(100, 500)
    herd = Herd(server, count)
    try:
        await eventually(herd.all_there)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(1.5)
        herd.there = 0
        await asyncio.to_thread(server.start)
        watch = Watch(server.pid)
        taken = await received(server, herd.all_there)
        own_s = watch.own_s
    finally:
        await herd.close()
    slowest = max(p99_ms(server).items(), key=lambda each: each[1])
    tell(f"{count} are back {own_s:.1f} s after a restart, at most {max(taken)} in 50 ms; p99 {slowest[1]:.1f} ms")
    assert own_s < SOON_S
    assert sum(taken) <= 2 * count, f"nobody comes again and again: {taken}"
    assert slowest[1] < 50 + watch.waited_s * 1_000, slowest


async def test_ten_thousand_due_at_once_are_promoted_in_slices(desk: Desk, redis_server: RedisServer) -> None:
    """By four promoters in one moment: each task once, and no call keeps Redis busy for long."""
    count = rounds(1_000, 10_000)
    await desk.client.call(desk.queue.init())
    await submit_all(desk, news(count, due_ms=DUE_MS))
    clients = [AsyncClient(RedisSettings.parse(redis_server.url, "the test")) for _ in range(4)]
    redis_server.redis.config_resetstat()
    watch = Watch(redis_server.pid)
    await asyncio.gather(*(promote(client, desk.queue, DUE_MS) for client in clients))
    calls, slowest = redis_server.redis.info("commandstats")["cmdstat_evalsha"], p99_ms(redis_server)["evalsha"]
    for client in clients:
        await client.aclose()
    depth = await desk.client.call(desk.queue.depth())
    tell(f"{count:,} due at once: {calls['calls']} calls, p99 {slowest:.1f} ms")
    assert depth.waiting == depth.live == count
    assert calls["calls"] >= count / 100
    assert slowest < 50 + watch.waited_s * 1_000
