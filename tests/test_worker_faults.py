"""A worker while its Redis, its connection or its neighbours fail."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from chaos.proxy import FaultProxy
from headrace import App, Ctx
from headrace.broker.broker import Reclaim
from headrace.broker.scripts import script
from headrace.redis_settings import RedisSettings
from headrace.runtime.worker import Worker
from headrace.task import State
from redis_server import RedisServer
from worker_harness import Desk, eventually, quick, shares, working

CYCLE = script("cycle").sha.encode()
RECONCILE = script("reconcile").sha.encode()


class Counting:
    """An app whose one type counts its runs by task."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.app = App("t")

        @self.app.task()
        async def count(ctx: Ctx) -> None:
            self.runs[ctx.id] += 1
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("lose", ["lose_reply", "lose_request"])
async def test_lost_cycles_run_each_task_once(desk: Desk, redis_server: RedisServer, lose: str) -> None:
    """Ten cycles whose request or reply is lost: claims are found again, reports repeated, nothing runs twice."""
    counting = Counting()
    async with FaultProxy(redis_server.port) as proxy, working(counting.app, proxy.url, concurrency=8) as worker:
        tasks: list[str] = []
        for _ in range(10):
            getattr(proxy, lose)(CYCLE)
            tasks += [await desk.submit("count") for _ in range(20)]
            for task in tasks[-20:]:
                assert (await desk.ended(task)).state is State.COMPLETED
        assert proxy.faults >= 9
        assert worker.stats.verdicts["stale"] == worker.stats.verdicts["gone"] == 0
    assert set(counting.runs) == set(tasks) and set(counting.runs.values()) == {1}
    depth = await desk.client.call(desk.queue.depth())
    assert depth.ended("completed") == len(tasks) and depth.live == 0


async def test_a_lost_reconcile_is_asked_again(desk: Desk, redis_server: RedisServer) -> None:
    """A claim whose reply was lost, then a reconcile whose reply is lost: the next connection finds the task."""
    counting = Counting()
    async with FaultProxy(redis_server.port) as proxy, working(counting.app, proxy.url):
        proxy.lose_reply(CYCLE)
        proxy.lose_reply(RECONCILE)
        task = await desk.submit("count")
        assert (await desk.ended(task)).state is State.COMPLETED
    assert counting.runs == {task: 1}


async def test_consuming_again_after_a_blackhole(desk: Desk, redis_server: RedisServer) -> None:
    """Half-open connections carry nothing and say nothing; after the heal the worker consumes within 2 s."""
    counting = Counting()
    async with FaultProxy(redis_server.port) as proxy, working(counting.app, proxy.url, dead_after_s=60):
        await desk.ended(await desk.submit("count"))
        proxy.blackhole()
        task = await desk.submit("count")
        await asyncio.sleep(0.3)
        assert (await desk.look(task)).state is State.PENDING
        proxy.heal()
        healed = time.monotonic()
        await desk.ended(task)
        assert time.monotonic() - healed < 2.0


async def test_consuming_again_within_2_s_of_a_restart(start_redis: object) -> None:
    """Redis killed with -9 and started again with its AOF: what was queued is finished."""
    server: RedisServer = start_redis(appendfsync="always")  # type: ignore[operator]
    counting = Counting()
    async with Desk(server.url) as desk, working(counting.app, server.url, concurrency=4) as worker:
        await desk.ended(await desk.submit("count"))
        await asyncio.to_thread(server.kill)

        async def down() -> bool:
            return not worker.stats.redis_up

        await eventually(down)
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        await desk.ended(await desk.submit("count"))
        assert time.monotonic() - back < 2.0


async def test_a_dead_neighbours_tasks_are_taken_over(desk: Desk, redis_url: str) -> None:
    """A worker that claimed and vanished, even before its first beat, is noticed by the missing change of its beat."""
    counting = Counting()
    tasks = [await desk.submit("count") for _ in range(3)]
    await desk.client.call(desk.queue.init())
    dead = await desk.client.call(desk.queue.cycle("gone:1", 3))
    assert len(dead.claims) == 3
    async with working(counting.app, redis_url):
        for task in tasks:
            seen = await desk.ended(task)
            assert seen.state is State.COMPLETED and seen.counters.crashes == 1
            assert seen.attempts[0].outcome == "crashed" and seen.attempts[0].worker == "gone:1"


async def test_a_live_worker_with_a_blocked_loop_is_not_reclaimed(desk: Desk, redis_url: str) -> None:
    """A handler that blocks its event loop for longer than the TTL keeps its task: the beat comes from a thread.

    The other worker, which would take it over, has a loop of its own in another thread.
    """
    app = App("t")
    ran: list[str] = []
    stop = threading.Event()

    @app.task()
    async def block(ctx: Ctx) -> None:
        ran.append(ctx.id)
        time.sleep(2.5)  # noqa: ASYNC251 - that is the point

    async def other() -> None:
        async with working(App("other"), redis_url, worker_id="other", queues=shares("default")) as worker:
            await asyncio.to_thread(stop.wait)
            assert worker.stats.redelivered == 0

    async with working(app, redis_url):
        task = await desk.submit("block")
        await desk.until(task, lambda view: view.state is State.COMPLETED or bool(ran))
        neighbour = asyncio.create_task(asyncio.to_thread(asyncio.run, other()))
        seen = await desk.ended(task)
        stop.set()
        await neighbour
    assert seen.state is State.COMPLETED and seen.counters.crashes == 0 and len(ran) == 1


SILENCED = """
import asyncio, logging, sys
from headrace import App
from headrace.logs import setup_logging
from headrace.redis_settings import RedisSettings
from headrace.runtime import heartbeat
from headrace.runtime.worker import Worker
from worker_harness import quick

heartbeat.BLOCKED_S = 0.3
setup_logging("info", json=True)
app = App("t")

@app.task()
async def chatter() -> None:
    while True:
        logging.getLogger("app").warning("x" * 1000)

async def serve() -> None:
    await Worker(app, quick(), RedisSettings.parse(sys.argv[1], "the test")).run()

asyncio.run(serve())
"""


def start_silenced(url: str) -> subprocess.Popen[bytes]:
    """A worker whose standard error is a pipe that nobody reads."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", SILENCED, url], env=environ, stderr=subprocess.PIPE)


async def test_a_worker_that_cannot_log_is_not_taken_for_dead(desk: Desk, redis_url: str) -> None:
    """Its loop hangs in a write to the log; the beats go on, long after they have something to say of that."""

    async def beats() -> int:
        [beat] = await desk.client.command("HVALS", desk.queue.keys["w"])
        return int(beat.split()[0])

    with start_silenced(redis_url) as process:
        try:
            task = await desk.submit("chatter")
            await desk.until(task, lambda view: view.state is State.PROCESSING)
            enough = await beats() + 25  # of 0.1 s

            async def reached() -> bool:
                return await beats() >= enough

            await eventually(reached)
        finally:
            process.kill()


async def test_what_an_older_worker_parked_goes_to_a_newer_one_beside_it(desk: Desk, redis_url: str) -> None:
    """During a rollout both are up: the one that does not know the type parks it, the other releases and runs it."""
    old, new = App("old"), App("new")
    holding, go = asyncio.Event(), asyncio.Event()

    @new.task()
    async def hold() -> None:
        holding.set()
        await go.wait()

    @new.task()
    async def novel() -> None: ...

    async with working(new, redis_url, worker_id="new", concurrency=1):
        await desk.submit("hold")
        await holding.wait()
        async with working(old, redis_url, worker_id="old"):
            task = await desk.submit("novel")
            await desk.until(task, lambda view: view.state is State.PARKED)
            go.set()
            assert (await desk.ended(task)).state is State.COMPLETED


async def test_a_reclaimed_worker_cancels_its_handler_and_its_report_is_stale(desk: Desk, redis_url: str) -> None:
    """Ownership lost while it runs: the handler is cancelled, the second run's completion is the only one."""
    app = App("t")
    runs: list[int] = []
    go = asyncio.Event()

    @app.task()
    async def held(ctx: Ctx) -> int:
        runs.append(ctx.attempt)
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        await go.wait()
        return ctx.attempt

    async with working(app, redis_url) as worker:
        task = await desk.submit("held")
        await desk.until(task, lambda view: view.state is State.PROCESSING)
        await desk.client.call(desk.queue.reclaim(Reclaim(worker.name, "*", "n", cause="the test says so")))
        go.set()
        seen = await desk.ended(task)
    assert runs == [1, 2] and bytes(seen.result or b"") == b"2"
    assert seen.counters.crashes == 1 and seen.attempts[0].cause == "the test says so"


async def test_streams_that_vanish_are_made_again(desk: Desk, redis_url: str) -> None:
    """FLUSHALL under a running worker: new tasks run, nothing crashes."""
    counting = Counting()
    async with working(counting.app, redis_url):
        await desk.ended(await desk.submit("count"))
        await desk.client.command("FLUSHALL")
        assert (await desk.ended(await desk.submit("count"))).state is State.COMPLETED


async def test_full_memory_drains(start_redis: object) -> None:
    """At maxmemory submissions are refused, and what is queued is run and reported all the same."""
    from headrace.errors import StoreFull

    server: RedisServer = start_redis()  # type: ignore[operator]
    counting = Counting()
    async with Desk(server.url) as desk:
        tasks = [await desk.submit("count") for _ in range(50)]
        await desk.client.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFull):
            await desk.submit("count")
        async with working(counting.app, server.url):
            for task in tasks:
                assert (await desk.ended(task)).state is State.COMPLETED
            await desk.client.command("CONFIG", "SET", "maxmemory", "0")
            assert (await desk.ended(await desk.submit("count"))).state is State.COMPLETED


@pytest.mark.parametrize("fails", [False, True])
async def test_a_worker_that_is_stopped_while_its_deps_open_ends(redis_url: str, fails: bool) -> None:
    """They may wait for what is away: nothing was claimed, so there is nothing to wait for but their own way out."""
    opening, left = asyncio.Event(), list[str]()

    async def deps() -> AsyncIterator[None]:
        opening.set()
        try:
            await asyncio.Event().wait()
            yield
        finally:
            left.append("closed")
            if fails:
                raise OSError("it is away still")

    worker = Worker(App("t", deps=deps), quick(), RedisSettings.parse(redis_url, "the test"))
    running = asyncio.create_task(worker.run())
    await opening.wait()
    worker.stop()
    worker.stop()
    [told] = await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), 5)
    assert left == ["closed"]
    assert isinstance(told, OSError) if fails else told is True


BROKEN_END = """
import asyncio, logging, os, signal, sys, threading
from headrace import App
from headrace.redis_settings import RedisSettings
from headrace.runtime import hooks, worker
from worker_harness import quick

hooks.LEAVE_S = worker.EXIT_S = 0.1
logging.basicConfig(level="INFO")

async def deps():
    yield
    raise OSError("it cannot be closed")

async def tell(ctx, error):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.to_thread(threading.Event().wait)

app = App("t", deps=deps)

@app.task(max_retries=0, on_failure=tell)
async def fails() -> None:
    raise LookupError

asyncio.run(worker.serve(app, quick(), RedisSettings.parse(sys.argv[1], "the test")))
"""


async def test_a_worker_whose_deps_cannot_be_closed_ends_though_a_thread_goes_on(desk: Desk, redis_url: str) -> None:
    """And says why; Python itself would wait for that thread."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    await desk.submit("fails")
    command = (sys.executable, "-c", BROKEN_END, redis_url)
    process = await asyncio.create_subprocess_exec(*command, env=environ, stderr=asyncio.subprocess.PIPE)
    try:
        _, said = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 1
    assert b"handlers still run" in said and b"OSError: it cannot be closed" in said
