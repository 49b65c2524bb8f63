"""How long it takes from a submission to a pool at zero until its replicas are written, whatever goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.task import Envelope, encode_envelope, new_id
from headrace_cli.ports import free_port

from .errors import MeasureError
from .operator_figures import milliseconds, reachable, waves
from .operator_rig import NAMESPACE, Cluster, Rig

EACH: Final = 20
"""Submissions to one pool at most: it has to come back to zero in between."""
GAPS_S: Final = (0.1, 0.6)
"""Between a write and the next submission, so that these come at any moment of a tick."""
RESTED_S: Final = 2.0
"""After this at zero a pool is idle for the operator too."""
LATE_S: Final = 60.0
SHOWN: Final = 'jsonpath={.metadata.name} {.spec.replicas}{"\\n"}'


class Numbers:
    """Replicas of all Deployments, as a watch of them tells."""

    def __init__(self) -> None:
        self._now: dict[str, int] = {}
        self._changed = asyncio.Event()

    def saw(self, line: str) -> None:
        """A line of the watch: a name, and its number."""
        name, _, number = line.partition(" ")
        self._now[name] = int(number or 0)
        self._changed.set()

    async def until(self, names: Sequence[str], *, zero: bool, timeout_s: float = LATE_S) -> float:
        """When all of them were at zero, or above. Raises MeasureError if that takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                while not all(name in self._now and (self._now[name] == 0) is zero for name in names):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            wanted = "at zero" if zero else "scaled up"
            raise MeasureError(f"not {wanted} within {timeout_s:.0f} s: {', '.join(names[:3])} …") from None
        return time.monotonic()


@asynccontextmanager
async def watching(cluster: Cluster) -> AsyncIterator[Numbers]:
    """It tells all that there are first. Of a list in pages kubectl would show the first few, and no more."""
    command = cluster.command("-n", NAMESPACE, "get", "deployments", "--watch", "--chunk-size=0", "-o", SHOWN)
    watch = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert watch.stdout is not None
    numbers = Numbers()
    reading = asyncio.create_task(_read(watch.stdout, numbers))
    try:
        yield numbers
    finally:
        reading.cancel()
        watch.terminate()
        await watch.wait()


async def _read(lines: asyncio.StreamReader, numbers: Numbers) -> None:
    while line := await lines.readline():
        numbers.saw(line.decode().strip())


async def submit(client: AsyncClient, queue: Queue) -> str:
    """One task. Returns its id."""
    task_id = new_id(queue.name)
    await client.call(queue.submit([NewTask(task_id, encode_envelope(Envelope(1, 1, task_id, type="t")), 1)]))
    return task_id


async def lags(rig: Rig, names: Sequence[str], submissions: int, what: str) -> list[float]:
    """Seconds from each submission until its pool's replicas were seen above zero; the pools are idle before."""
    found: list[float] = []
    client = AsyncClient(rig.redis.tcp, "headrace-bench")
    try:
        async with watching(rig.cluster) as numbers:
            await numbers.until(names, zero=True)
            for wave in waves(names, submissions, EACH):
                rig.say(f"{rig.pools.count} pools, {what}: {len(found)} submissions")
                found += await _wave(client, numbers, wave)
    finally:
        await client.aclose()
    rig.say(f"{rig.pools.count} pools, {what}: p50 {milliseconds(found, 0.5)} ms, p99 {milliseconds(found, 0.99)} ms")
    return found


async def _wave(client: AsyncClient, numbers: Numbers, names: Sequence[str]) -> list[float]:
    """One submission to each; then all of them come to rest again."""
    found, tasks = [], []
    for name in names:
        await asyncio.sleep(random.uniform(*GAPS_S))
        began_s, queue = time.monotonic(), Queue(name)
        tasks.append((queue, await submit(client, queue)))
        found.append(await numbers.until([name], zero=False) - began_s)
    for queue, task_id in tasks:
        await client.call(queue.cancel(task_id, force=True))
    await numbers.until(names, zero=True)
    await asyncio.sleep(RESTED_S)
    return found


@contextmanager
def hanging(rig: Rig) -> Iterator[None]:
    """The other Redis does not answer: connections stand, and new ones are taken by the kernel."""
    os.kill(rig.other.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(rig.other.pid, signal.SIGCONT)
        _await_all(rig)


@contextmanager
def refusing(rig: Rig) -> Iterator[None]:
    """Nobody listens where the other Redis was, and its connections are gone."""
    rig.other.redis.config_set("port", free_port())
    rig.other.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        rig.other.redis.config_set("port", rig.other.port)
        _await_all(rig)


def _await_all(rig: Rig) -> None:
    end_s = time.monotonic() + LATE_S
    while reachable(rig.metrics()) < rig.pools.count:
        if time.monotonic() > end_s:
            raise MeasureError(f"the operator did not come back to a Redis within {LATE_S:.0f} s")
        time.sleep(0.5)
