"""Workers that only beat: a tenth of the pools at work, and a crowd of ten workers in every queue."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.broker.demand import TypeTime, WorkerBeat
from headrace_operator.manifests import POOL

from .errors import MeasureError
from .operator_figures import Crowd, cost
from .operator_lag import submit, watching
from .operator_rig import Rig, labelled_pods
from .server import Server

BEAT_S: Final = 1.0
LIVE: Final = 2
"""Tasks of a busy pool at a time."""
WORKERS: Final = 10
"""A queue, in the crowd."""
AT_ONCE: Final = 500
"""Beats in one write: together they hold Redis for some ms."""
TYPES: Final = (TypeTime("resize", 0.8, 0.25), TypeTime("video", 0.2, 5.0))


@dataclass
class Post:
    """The worker of one busy pool, and its tasks."""

    queue: Queue
    worker: str
    tasks: deque[str] = field(default_factory=deque)

    async def beat(self, client: AsyncClient, counter: int) -> None:
        """A second of its life: a task comes, one ends, and it says how it is."""
        self.tasks.append(await submit(client, self.queue))
        await client.call(self.queue.cycle(self.worker, 1))
        if len(self.tasks) > LIVE:
            await client.call(self.queue.cancel(self.tasks.popleft(), force=True))
        said = WorkerBeat(counter, len(self.tasks), False, 1.0, (TypeTime("t", 1.0, 1.0),))
        await client.call(self.queue.beat(self.worker, said.text()))

    async def leave(self, client: AsyncClient) -> None:
        """Its tasks end, and nothing is known of it any more."""
        for task_id in self.tasks:
            await client.call(self.queue.cancel(task_id, force=True))
        await forget(client, self.queue)


async def forget(client: AsyncClient, queue: Queue) -> None:
    """No worker was ever here."""
    await client.command("DEL", *(queue.keys[name] for name in ("w", "wd", "drain")))


@asynccontextmanager
async def busy(rig: Rig, names: Sequence[str]) -> AsyncIterator[None]:
    """These pools have a pod each, whose worker runs tasks that come and end each second."""
    client = AsyncClient(rig.redis.tcp, "headrace-bench-workers")
    posts = await _posts(rig, client, names)
    working = asyncio.create_task(_work(client, posts))
    try:
        await asyncio.sleep(3 * BEAT_S)
        yield
        if working.done():
            working.result()
    finally:
        working.cancel()
        await asyncio.wait([working])
        for post in posts:
            await post.leave(client)
        await client.aclose()


async def _posts(rig: Rig, client: AsyncClient, names: Sequence[str]) -> list[Post]:
    """A task wakes each pool; the cluster's controllers make its pod."""
    first = {name: await submit(client, Queue(name)) for name in names}
    async with watching(rig.cluster) as numbers:
        await numbers.until(names, zero=False)
    end_s, pods = time.monotonic() + 60, dict[str, str]()
    while not pods.keys() >= first.keys():
        if time.monotonic() > end_s:
            raise MeasureError("the cluster made no pods for busy pools within 60 s")
        await asyncio.sleep(0.5)
        pods = labelled_pods(rig.cluster.items("pods"), POOL)
    return [Post(Queue(name), f"{pods[name]}:1", deque([task_id])) for name, task_id in first.items()]


async def _work(client: AsyncClient, posts: Sequence[Post]) -> None:
    """Spread over the second, as workers that started at different times are."""
    counter, due_s = 0, time.monotonic()
    while True:
        counter += 1
        for number, post in enumerate(posts):
            await asyncio.sleep(due_s + BEAT_S * number / len(posts) - time.monotonic())
            await post.beat(client, counter)
        due_s = max(due_s + BEAT_S, time.monotonic() - BEAT_S)
        await asyncio.sleep(0)


# the crowd


class Beats:
    """Ten workers in every queue, each beating once a second as the real ones do."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.answered = 0

    @property
    def workers(self) -> int:
        return WORKERS * self._rig.pools.count

    async def run(self) -> None:
        """Until cancelled."""
        pools = self._rig.pools
        both = ((self._rig.redis, pools.ours), (self._rig.other, pools.others))
        # Not gather: cancelled, that waits for the first of them only, and each has a connection to close.
        async with asyncio.TaskGroup() as group:
            for server, names in both:
                if names:
                    group.create_task(self._beat(server, names))

    async def _beat(self, server: Server, names: Sequence[str]) -> None:
        client = AsyncClient(server.tcp, "headrace-bench-beats")
        queues, counter, due_s = [Queue(name) for name in names], 0, time.monotonic()
        try:
            while True:
                counter += 1
                text = WorkerBeat(counter, 1, False, 1.2, TYPES).text()
                # Worker by worker, so that each queue hears something all the time.
                for worker in range(WORKERS):
                    await asyncio.sleep(due_s + BEAT_S * worker / WORKERS - time.monotonic())
                    await self._some(client, queues, f"worker-{worker}:1", text)
                due_s = max(due_s + BEAT_S, time.monotonic() - BEAT_S)
        finally:
            for queue in queues:
                await forget(client, queue)
            await client.aclose()

    async def _some(self, client: AsyncClient, queues: Sequence[Queue], worker: str, text: str) -> None:
        connection = await client.connection()
        for start in range(0, len(queues), AT_ONCE):
            calls = [queue.beat(worker, text) for queue in queues[start : start + AT_ONCE]]
            for answer in await connection.calls(calls, 10.0):
                if isinstance(answer, Exception):
                    raise answer
                self.answered += 1


async def crowd(rig: Rig, seconds: float) -> Crowd:
    """What a tick costs while all of them beat; what the beats alone cost Redis is measured without the operator."""
    beats = Beats(rig)
    beating = asyncio.create_task(beats.run())
    try:
        rig.say(f"{rig.pools.count} pools: {beats.workers} workers begin to beat")
        await asyncio.to_thread(rig.settle, 5.0)
        before, answered = await asyncio.to_thread(rig.read), beats.answered
        await asyncio.sleep(seconds)
        after = await asyncio.to_thread(rig.read)
        rate, rss = (beats.answered - answered) / (after.at_s - before.at_s), rig.rss_mib()
        alone = await _beats_alone(rig, seconds / 2)
        if beating.done():
            beating.result()
        return Crowd(beats.workers, rate, cost(before, after), alone, rss)
    finally:
        beating.cancel()
        await asyncio.wait([beating])


async def _beats_alone(rig: Rig, seconds: float) -> float:
    """Percent of a core that Redis takes for beats."""
    servers = (rig.redis, rig.other)
    with rig.stopped():
        await asyncio.sleep(1)
        before_s, began_s = sum(each.cpu_s() for each in servers), time.monotonic()
        await asyncio.sleep(seconds)
        spent_s = sum(each.cpu_s() for each in servers) - before_s
        return 100 * spent_s / (time.monotonic() - began_s)
