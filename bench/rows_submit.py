"""How fast tasks enter: one by one, from many coroutines at once, and in bulk."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec
import uvloop

from headrace import App
from headrace.broker.broker import NewTask, Submitted
from headrace.broker.client import AsyncClient
from headrace.settings import ApiSettings
from headrace.task import ENVELOPE_VERSION, Envelope, Priority, encode_envelope, new_id
from headrace_api.ingest import Door
from headrace_api.store import Store

from .app import noop
from .harness import Bench, Measure, Reading, Round
from .server import Server

R = TypeVar("R")

PRODUCERS: Final = 64
BULK: Final = 100
BULK_OUT: Final = 4
PAYLOAD: Final = 100


class Submit:
    """One by one goes over loopback TCP, where most clients are. The CPU columns are the submitter's and Redis'."""

    name = "submit"
    measures = (
        Measure("submit_one", "submit one by one, aenqueue / PING, same client, TCP", "×", 0.9, prototype="1.0"),
        Measure("submit_one_raw", "  a bare script call / PING, same client", "×"),
        Measure("submit_one_floor", "  the same in the bare client", "×"),
        Measure("submit_64", "submit from 64 coroutines, the API's group commit", "/s", 140_000, prototype="190k"),
        Measure("submit_64_floor", f"  over the bare client, {PRODUCERS // 2} a call", "×"),
        Measure("submit_64_library", "  the same by aenqueue", "/s"),
        Measure("submit_bulk", "submit in bulk, 100 a call", "/s", 300_000, prototype="400k"),
        Measure("submit_bulk_floor", "  over the bare client", "×"),
    )

    def round(self, bench: Bench) -> Round:
        server, sizes = bench.server, bench.sizes
        bare_ping = bench.floor.run(server, "ping", sizes.pings, settings=server.tcp)
        server.fresh()
        bare = bench.floor.run(server, "submit", sizes.singles, settings=server.tcp)
        ping = timed(server, sizes.pings, ping_one_by_one)
        raw = timed(server, sizes.singles, submit_one_by_one)
        single = timed(server, sizes.singles, enqueue_one_by_one)
        grouped = timed(server, sizes.concurrent, submit_through_door)
        library = timed(server, sizes.concurrent, enqueue_from_many)
        bulk = timed(server, sizes.bulk, submit_in_bulk)
        bare_group, bare_bulk = (bare_rate(bench, batch) for batch in (PRODUCERS // 2, BULK))
        server.fresh()
        return {
            "submit_one": over(single, ping.rate),
            "submit_one_raw": over(raw, ping.rate),
            "submit_one_floor": Reading(
                bare.rate / bare_ping.rate, bare.rate, bare_ping.rate, bare.client_us, bare.redis_us
            ),
            "submit_64": grouped,
            "submit_64_floor": over(grouped, bare_group),
            "submit_64_library": library,
            "submit_bulk": bulk,
            "submit_bulk_floor": over(bulk, bare_bulk),
        }


def bare_rate(bench: Bench, batch: int) -> float:
    """Tasks a second of the bare client with two calls outstanding."""
    bench.server.fresh()
    return bench.floor.run(bench.server, "submit", bench.sizes.bulk, batch=batch, out=2).rate


def over(run: Reading, floor: float) -> Reading:
    return Reading(run.rate / floor, run.rate, floor, run.client_us, run.redis_us)


def timed(server: Server, tasks: int, work: Callable[[Server, int], Coroutine[Any, Any, float]]) -> Reading:
    """Run it on an empty queue, in a loop of its own. `work` returns the seconds that count."""
    server.fresh()
    redis = server.cpu_s()
    cpu = time.process_time()
    seconds = uvloop.run(work(server, tasks))
    cpu, redis = time.process_time() - cpu, server.cpu_s() - redis
    rate = tasks / seconds
    return Reading(rate, rate, client_us=cpu / tasks * 1e6, redis_us=redis / tasks * 1e6)


def payload(n: int) -> bytes:
    """PAYLOAD bytes that fit the handlers."""
    start = b'{"n":%d,"text":"' % n
    return start + b"x" * (PAYLOAD - len(start) - 2) + b'"}'


def new_task(n: int, kind: str = "noop") -> NewTask:
    """What every door builds of an accepted request."""
    task_id = new_id()
    envelope = Envelope(
        version=ENVELOPE_VERSION,
        priority=Priority.MEDIUM,
        id=task_id,
        type=kind,
        created_ms=int(time.time() * 1000),
        payload=msgspec.Raw(payload(n)),
    )
    return NewTask(task_id, encode_envelope(envelope), Priority.MEDIUM)


async def one_by_one(tasks: int, step: Callable[[int], Awaitable[object]]) -> float:
    await step(0)  # connects
    start = time.perf_counter()
    for n in range(1, tasks + 1):
        await step(n)
    return time.perf_counter() - start


async def ping_one_by_one(server: Server, tasks: int) -> float:
    client = AsyncClient(server.tcp)
    seconds = await one_by_one(tasks, lambda n: client.command("PING"))
    await client.aclose()
    return seconds


async def submit_one_by_one(server: Server, tasks: int) -> float:
    client = AsyncClient(server.tcp)
    seconds = await one_by_one(tasks, lambda n: client.call(server.queue.submit([new_task(n)])))
    await client.aclose()
    return seconds


async def enqueue_one_by_one(server: Server, tasks: int) -> float:
    async with App("bench", url=server.tcp.url) as app:
        return await one_by_one(tasks, _enqueue(app))


def _enqueue(app: App[None]) -> Callable[[int], Awaitable[object]]:
    text = "x" * 80
    task = app.task()(noop)
    return lambda n: task.aenqueue(n, text)


async def from_many(tasks: int, step: Callable[[int], Awaitable[object]]) -> float:
    """Share the steps among PRODUCERS coroutines, each of which waits for its own."""
    await step(0)
    numbers = iter(range(1, tasks + 1))

    async def produce() -> None:
        for n in numbers:
            await step(n)

    start = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    return time.perf_counter() - start


async def enqueue_from_many(server: Server, tasks: int) -> float:
    async with App("bench", url=server.settings.url) as app:
        return await from_many(tasks, _enqueue(app))


async def submit_through_door(server: Server, tasks: int) -> float:
    store = Store(server.settings)
    door = Door(store, server.queue, ApiSettings())
    seconds = await from_many(tasks, lambda n: door.submit([new_task(n)]))
    await door.aclose()
    await store.aclose()
    return seconds


async def submit_in_bulk(server: Server, tasks: int) -> float:
    client = AsyncClient(server.settings)
    await client.connection()
    start = time.perf_counter()
    out: deque[asyncio.Task[list[Submitted]]] = deque()
    for first in range(0, tasks, BULK):
        if len(out) == BULK_OUT:
            await out.popleft()
        batch = [new_task(n) for n in range(first, min(first + BULK, tasks))]
        out.append(asyncio.create_task(client.call(server.queue.submit(batch))))
    await asyncio.gather(*out)
    seconds = time.perf_counter() - start
    await client.aclose()
    return seconds
