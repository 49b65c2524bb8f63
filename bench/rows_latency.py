"""How long a task waits although a slot is free: idle, and at a third of what the worker could do.

Submitter, Redis and worker share this machine's monotonic clock: the handler notes when its first line ran.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import selectors
import time
from pathlib import Path
from typing import Final

import msgspec

from headrace.broker.broker import NewTask
from headrace.broker.client import AsyncClient
from headrace.task import ENVELOPE_VERSION, Envelope, Priority, encode_envelope, new_id

from .app import Marks
from .errors import MeasureError
from .harness import Bench, Measure, Reading, Round
from .quantiles import quantile
from .server import Server
from .workers import WARM, Workers, drain

IDLE_GAP_MS: Final = 10
GROUP: Final = 100
OUT: Final = 2


class Latency:
    """From the moment of sending; beside it from the answer, and from the time when a task should have been sent."""

    name = "latency"
    measures = (
        Measure("idle_p50", "sent → handler's first line, idle, p50", "ms", 0.3, at_most=True, prototype="0.2"),
        Measure("idle_p99", "  p99", "ms", 2, at_most=True, prototype="1.2"),
        Measure("idle_floor", "  over two bare clients, p50 (one submits, one waits for the marker and claims)", "×"),
        Measure("idle_answer_p50", "  answered → first line, p50", "ms", at_most=True),
        Measure("idle_answer_p99", "  answered → first line, p99", "ms", at_most=True),
        Measure("loaded_p99", "sent → first line, open loop, third of drain rate, p99", "ms", 10, True, "4"),
        Measure("loaded_p50", "  p50", "ms", at_most=True),
        Measure("loaded_answer_p99", "  answered → first line, p99", "ms", at_most=True),
        Measure("loaded_due_p99", "  due → first line, p99", "ms", at_most=True),
    )

    def round(self, bench: Bench) -> Round:
        server, sizes = bench.server, bench.sizes
        server.fresh()
        path = server.folder / "marks"
        with Workers(server, 100, marks=_room(path, sizes.idle)) as workers:
            workers.wait_until_ready()
            drain(workers, bench.floor, WARM)
            idle = paced(server, path, [IDLE_GAP_MS / 1000] * sizes.idle)
        server.fresh()
        bare = quantile(bench.floor.pickups_ms(server, sizes.idle, IDLE_GAP_MS), 0.5)
        server.fresh()
        with Workers(server, 100, marks=_room(path, 1 << 22)) as workers:
            workers.wait_until_ready()
            rate = drain(workers, bench.floor, sizes.drain).rate / 3
            number = min(int(rate * sizes.loaded_s), 1 << 22)
            loaded = paced(server, path, [random.expovariate(rate) for _ in range(number)])
        server.fresh()
        return {
            "idle_p50": Reading(idle.since(idle.sent, 0.5)),
            "idle_p99": Reading(idle.since(idle.sent, 0.99)),
            "idle_floor": Reading(idle.since(idle.sent, 0.5) / bare),
            "idle_answer_p50": Reading(idle.since(idle.answered, 0.5)),
            "idle_answer_p99": Reading(idle.since(idle.answered, 0.99)),
            "loaded_p99": Reading(loaded.since(loaded.sent, 0.99), rate),
            "loaded_p50": Reading(loaded.since(loaded.sent, 0.5), rate),
            "loaded_answer_p99": Reading(loaded.since(loaded.answered, 0.99), rate),
            "loaded_due_p99": Reading(loaded.since(loaded.due, 0.99), rate),
        }


def _room(path: Path, number: int) -> Path:
    Marks(path, number)
    return path


class Times:
    """In ns of the shared clock, by number of the task."""

    def __init__(self, number: int) -> None:
        self.due = [0] * number
        self.sent = [0] * number
        self.answered = [0] * number
        self.started = [0] * number

    def since(self, moment: list[int], share: float) -> float:
        """ms until the first line. It may run before the submitter has read its answer: then this is negative."""
        return quantile([end - start for start, end in zip(moment, self.started, strict=True)], share) / 1e6


def paced(server: Server, path: Path, gaps_s: list[float]) -> Times:
    """Submit one task after each gap, whether or not the ones before were answered."""
    times = Times(len(gaps_s))
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=_fine_loop) as runner:
            runner.run(_submit_paced(server, gaps_s, times))
    finally:
        gc.enable()
    server.wait_until_empty(60)
    times.started = Marks(path).times[: len(gaps_s)].tolist()
    if 0 in times.started:
        raise MeasureError("A task did not note its start")
    return times


def _fine_loop() -> asyncio.AbstractEventLoop:
    """Its timers are as fine as the system's; those of uvloop and of epoll count whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _submit_paced(server: Server, gaps_s: list[float], times: Times) -> None:
    """What is due goes in groups of what came together, at most OUT calls out, as in the API."""
    client = AsyncClient(server.settings)
    await client.connection()
    first = time.monotonic_ns() + 10_000_000
    times.due = due = [first + round(offset * 1e9) for offset in itertools.accumulate(gaps_s)]
    free = asyncio.Semaphore(OUT)
    sent = 0
    calls: set[asyncio.Task[None]] = set()
    while sent < len(due):
        await asyncio.sleep(max(0.0, (due[sent] - time.monotonic_ns()) / 1e9))
        await free.acquire()
        now, start = time.monotonic_ns(), sent
        while sent < len(due) and due[sent] <= now and sent - start < GROUP:
            sent += 1
        call = asyncio.create_task(_send(client, server, range(start, sent), times, free))
        calls.add(call)
        call.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    await client.aclose()


async def _send(client: AsyncClient, server: Server, numbers: range, times: Times, free: asyncio.Semaphore) -> None:
    """`sent` is before the tasks are made, as an application would see it."""
    start = time.monotonic_ns()
    try:
        await client.call(server.queue.submit([marked(n) for n in numbers]))
    finally:
        free.release()
    now = time.monotonic_ns()
    for n in numbers:
        times.sent[n], times.answered[n] = start, now


def marked(n: int) -> NewTask:
    """A task whose handler notes its start as number n."""
    task_id = new_id()
    envelope = Envelope(
        version=ENVELOPE_VERSION,
        priority=Priority.MEDIUM,
        id=task_id,
        type="mark",
        created_ms=int(time.time() * 1000),
        payload=msgspec.Raw(b'{"n":%d}' % n),
    )
    return NewTask(task_id, encode_envelope(envelope), Priority.MEDIUM)
