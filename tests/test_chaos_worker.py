"""Failure modes of one worker: lost replies at every point of a task's life, long tasks, clocks that jump, outages."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.calm import Watch
from chaos.counting import Counting, two_at_work
from chaos.proxy import FaultProxy
from chaos.rounds import dice, rounds, tell
from chaos.servers import SkewedServer, build_shim
from conftest import StartRedis
from headrace.broker.connecting import connect
from headrace.broker.connection import Connection
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.runtime import reconnect
from headrace.task import State
from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer
from worker_harness import Desk, eventually, impatient, working

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


# F6, F11


@pytest.mark.parametrize("kth", range(1, 13))
async def test_a_reply_lost_anywhere_in_a_tasks_life_runs_no_attempt_twice(
    desk: Desk, redis_server: RedisServer, kth: int
) -> None:
    """Of all that Redis says to the worker, each k-th reply is lost: claims, reports, retries, beats, reconciles."""
    counting = Counting()
    async with FaultProxy(redis_server.port) as proxy, working(counting.app, proxy.url, concurrency=2) as worker:
        await desk.ended(await desk.submit("count"))
        before, submitted = proxy.faults, 1
        # Not before the greeting of a connection is over, or none would ever stand.
        proxy.every(40 + kth)
        while proxy.faults == before:  # the test's own bound ends it, should no reply be lost
            tasks = [await desk.submit("count", {"fail": number % 3}) for number in range(12)]
            submitted += len(tasks)
            for number, task in enumerate(tasks):
                seen = await desk.ended(task)
                assert seen.state is State.COMPLETED and seen.counters.crashes == 0
                assert counting.of(task) == [1] * (number % 3 + 1)
        proxy.heal()
        assert worker.stats.verdicts["stale"] == worker.stats.verdicts["gone"] == 0
    assert (await desk.client.call(desk.queue.depth())).ended("completed") == submitted


# F12


async def test_a_task_ten_times_as_long_as_the_ttl_runs_once(desk: Desk, redis_url: str) -> None:
    """A second worker watches all the while, and would take it over at a missing sign of life."""
    counting = Counting()
    short = {"beat_s": 0.05, "dead_after_s": 0.3}
    async with (
        working(counting.app, redis_url, worker_id="a", **short),
        working(counting.app, redis_url, worker_id="b", **short),
    ):
        seen = await desk.ended(await desk.submit("count", {"ms": 3_000}))
    assert seen.state is State.COMPLETED and seen.counters.attempts == 1 and seen.counters.crashes == 0
    assert list(counting.runs.values()) == [1]


# F13

CPUS = os.cpu_count() or 1


async def test_a_machine_without_an_idle_cpu_reclaims_nobody(desk: Desk, redis_url: str) -> None:
    """Twice as many processes compute as there are CPUs, while two workers hold tasks and watch each other."""
    counting, lasts_s = Counting(), rounds(4, 40)
    # In full with the settings that workers have if nobody says otherwise.
    patience = {"beat_s": rounds(3, 10) / 10, "dead_after_s": float(rounds(3, 10))}
    hogs = [await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass") for _ in range(2 * CPUS)]
    try:
        async with (
            working(counting.app, redis_url, worker_id="a", concurrency=4, **patience) as one,
            working(counting.app, redis_url, worker_id="b", concurrency=4, **patience) as two,
        ):
            tasks = [await desk.submit("count", {"ms": lasts_s * 1_000}) for _ in range(8)]

            async def all_done() -> bool:
                return all([(await desk.look(task)).state is State.COMPLETED for task in tasks])

            await eventually(all_done, lasts_s + 60)
            assert one.stats.redelivered == two.stats.redelivered == 0
    finally:
        for hog in hogs:
            hog.kill()
            await hog.wait()
    assert list(counting.runs.values()) == [1] * 8


# F14


@pytest.fixture
def skewed(redis_binary: RedisBinary, tmp_path: Path) -> Iterator[SkewedServer]:
    library = build_shim(tmp_path)
    if library is None:
        pytest.skip("no C compiler, with which the shim for clocks is made")
    with SkewedServer(redis_binary, library) as server:
        yield server


HOUR_S, DAY_S = 3_600.0, 86_400.0


@pytest.mark.parametrize("by_s", [5.0, -5.0, HOUR_S, -HOUR_S, DAY_S, -DAY_S])
async def test_a_clock_that_jumps_makes_no_task_run_twice(skewed: SkewedServer, by_s: float) -> None:
    """Redis' clock is moved while a task runs under two workers, and moved back; nothing is reclaimed or stuck."""
    counting = Counting()
    desk = Desk(skewed.url)
    async with (
        working(counting.app, skewed.url, worker_id="a") as one,
        working(counting.app, skewed.url, worker_id="b") as two,
    ):
        task = await desk.submit("count", {"ms": 1_500})
        await desk.until(task, lambda seen: seen.state is State.PROCESSING)
        before = int((await desk.client.command("TIME"))[0])
        skewed.set_clock(by_s)
        assert abs(int((await desk.client.command("TIME"))[0]) - before - by_s) < 3, "the clock was moved"
        during = await desk.submit("count")
        assert (await desk.ended(during)).state is State.COMPLETED
        seen = await desk.ended(task)
        skewed.set_clock(0)
        assert (await desk.ended(await desk.submit("count"))).state is State.COMPLETED
        assert one.stats.redelivered == two.stats.redelivered == 0
    assert seen.state is State.COMPLETED and seen.counters.crashes == 0
    assert set(counting.runs.values()) == {1}
    await desk.close()


# F20


OUTAGES = ("reset", "blackhole", "half_open", "freeze", "kill")


async def test_consuming_again_within_2_s_of_every_outage(start_redis: StartRedis) -> None:
    """Resets, silence, half-open connections, a frozen and a killed Redis by turns; each time one task tells.

    In full there are several at a time, each a Redis and a worker of its own: all they do is wait.
    """
    lanes, each = rounds(1, 5), rounds(6, 100)
    servers = [start_redis(appendfsync="always") for _ in range(lanes)]
    async with asyncio.TaskGroup() as group:
        worsts = [group.create_task(worst_of(each, server, lane)) for lane, server in enumerate(servers)]
    tell(f"{lanes * each} outages, worst of all: {max(lane.result() for lane in worsts):.2f} s")


async def worst_of(times: int, server: RedisServer, lane: int) -> float:
    """So many outages of one Redis, and the longest time that a worker took to consume again."""
    rng, counting, worst = dice(f"outages {lane}"), Counting(), 0.0
    async with FaultProxy(server.port) as proxy, impatient(counting.app, proxy.url, dead_after_s=60.0):
        desk = Desk(server.url)
        await desk.ended(await desk.submit("count"))
        for _ in range(times):
            kind, lasts = rng.choice(OUTAGES), rng.uniform(0.05, 0.6)
            await strike(kind, lasts, server, proxy)
            watch = Watch(server.pid)
            await desk.close()
            await desk.ended(await desk.submit("count"))
            worst = max(worst, watch.own_s)
            assert watch.own_s < 2.0, f"after {kind} of {lasts:.2f} s ({watch.wall_s:.2f} s by the clock)"
        await desk.close()
    return worst


async def strike(kind: str, lasts_s: float, server: RedisServer, proxy: FaultProxy) -> None:
    """One outage, from its beginning to its end."""
    match kind:
        case "kill":
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(lasts_s / 2)
            await asyncio.to_thread(server.start)
        case "freeze":
            server.freeze()
            await asyncio.sleep(lasts_s)
            server.thaw()
        case _:
            getattr(proxy, kind)()
            await asyncio.sleep(lasts_s)
            proxy.heal()


async def test_a_lost_connection_holds_no_memory(redis_url: str) -> None:
    """Its buffer goes with its socket, not with the collector: an outage makes a hundred connections in seconds."""
    connection = await connect(RedisSettings.parse(redis_url, "the test"))
    assert len(connection._buffer) >= 1 << 16
    connection.close()
    await connection.wait_closed()
    assert len(connection._buffer) == len(connection._view) == 0


# F23


async def test_a_slow_redis_makes_nobody_exit_and_nothing_run_twice(start_redis: StartRedis) -> None:
    """Busy for longer than a worker's time to live: it goes on, its neighbour takes nothing over."""
    server = start_redis()
    counting = Counting()
    async with two_at_work(counting, server) as (desk, one, two, tasks):
        await asyncio.to_thread(server.redis.execute_command, "DEBUG", "SLEEP", "2.5")
        for task in tasks:
            assert (await desk.ended(task)).state is State.COMPLETED

        async def both_up() -> bool:
            return one.stats.redis_up and two.stats.redis_up

        await eventually(both_up)
        assert one.stats.redelivered == two.stats.redelivered == 0
    assert set(counting.runs.values()) == {1} and len(counting.runs) == 5


# F24


async def test_a_herd_does_not_come_back_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds lose Redis in one moment. After two seconds their tries are spread over time."""
    count, tries = rounds(100, 500), list[float]()
    loop = asyncio.get_running_loop()

    async def refused(settings: RedisSettings, name: str) -> Connection:
        tries.append(loop.time())
        raise StoreUnavailable(str(settings), "it is away")

    async def never(connection: Connection) -> None:
        raise AssertionError

    monkeypatch.setattr(reconnect, "connect", refused)
    settings, began = RedisSettings(), loop.time()
    herd = [asyncio.create_task(reconnect.keep_connected(settings, "herd", never)) for _ in range(count)]
    await asyncio.sleep(4)
    for each in herd:
        each.cancel()
    await asyncio.gather(*herd, return_exceptions=True)
    steady = [at for at in tries if at - began >= 2]
    tenths = Counter(int(at * 10) for at in steady)
    tell(f"of {count} that wait for Redis at most {max(tenths.values())} try in the same tenth of a second")
    assert len(steady) > 2 * count, "each tries again at least once a second"
    assert max(tenths.values()) < count * 0.6
