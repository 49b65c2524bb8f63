"""A pool over time: replicas asked for and Ready, its pods, and the depth of its queue, looked at again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from cluster_kit import World
from headrace import App
from headrace.errors import UnknownQueue
from headrace.queues import QueueView

OFTEN_S: Final = 0.05
PATIENCE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    at_s: float
    """Since the beginning."""
    wanted: int
    """Replicas that the Deployment is asked for."""
    ready: int
    pods: int
    """All that are there, also those that start or are on their way out (these only from Kubernetes 1.35 on)."""
    waiting: int
    running: int
    completed: int
    """Since the beginning."""

    @property
    def at_rest(self) -> bool:
        """Nothing is to be done, and nobody is there for it."""
        return not (self.wanted or self.pods or self.waiting or self.running)


@dataclass(frozen=True)
class Round:
    """What one round of a measurement found."""

    figures: dict[str, float]
    lines: dict[str, list[Sample]] = field(default_factory=dict)
    """By what is drawn: the looks in their order."""


Line = Sequence[Sample]
"""Each sample holds until the next one."""


Seen = tuple[Any, QueueView | None]
"""A Deployment and a queue, as they are; None for one that is not there yet."""


def sample(at_s: float, seen: Seen) -> Sample:
    """No Deployment is one at zero, no queue an empty one."""
    deployment, queue = seen
    spec, status = (deployment or {}).get("spec", {}), (deployment or {}).get("status", {})
    pods = status.get("replicas", 0) + status.get("terminatingReplicas", 0)
    depth = (0, 0, 0) if queue is None else (queue.pending, queue.processing, queue.completed)
    return Sample(at_s, spec.get("replicas", 0), status.get("readyReplicas", 0), pods, *depth)


def pod_seconds(line: Line) -> float:
    """From the making of each pod to its end, added up."""
    return sum(each.pods * (later.at_s - each.at_s) for each, later in pairwise(line))


def writes(line: Line) -> int:
    """How often the number was written."""
    return sum(each.wanted != later.wanted for each, later in pairwise(line))


def shrinks_at_work(line: Line) -> int:
    """How often the number was lowered while tasks ran."""
    return sum(later.wanted < each.wanted and later.running > 0 for each, later in pairwise(line))


class Recorder:
    """Keeps each look that differs from the one before."""

    def __init__(self, look: Callable[[], Awaitable[Seen]], every_s: float) -> None:
        self.line: list[Sample] = []
        self._see, self._every_s = look, every_s
        self._news = asyncio.Event()
        self._began_s = time.monotonic()
        self._before = 0

    async def begin(self) -> None:
        """Time, and the count of the completed, begin now."""
        self._before = (await self._look()).completed
        self._began_s = time.monotonic()
        self._keep(await self._look())

    async def run(self) -> None:
        while True:
            self._keep(await self._look())
            await asyncio.sleep(self._every_s)

    async def until(self, good: Callable[[Sample], bool], what: str, patience_s: float = PATIENCE_S) -> Sample:
        """The first sample that is good."""
        try:
            async with asyncio.timeout(patience_s):
                while (found := next(filter(good, self.line), None)) is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {patience_s:g} s: {what}; last seen: {self.line[-1]}") from None
        return found

    async def _look(self) -> Sample:
        seen = sample(time.monotonic() - self._began_s, await self._see())
        return replace(seen, completed=seen.completed - self._before)

    def _keep(self, seen: Sample) -> None:
        if not self.line or replace(seen, at_s=self.line[-1].at_s) != self.line[-1]:
            self.line.append(seen)
            self._news.set()


@asynccontextmanager
async def recording(made: World, name: str, queue: str, every_s: float = OFTEN_S) -> AsyncIterator[Recorder]:
    """Looks at the Deployment with this name and at its queue while the block runs, which is when time begins.

    It asks Redis, for the API looks at the queues once a second only.
    """
    app = App("looks", url=made.redis.url)

    async def look() -> Seen:
        deployment, depth = await asyncio.gather(made.get("deployments", name), _queue(app, queue))
        return deployment, depth

    try:
        async with kept(Recorder(look, every_s)) as recorder:
            yield recorder
    finally:
        await app.aclose()


@asynccontextmanager
async def kept(recorder: Recorder) -> AsyncIterator[Recorder]:
    """It looks while the block runs; if it cannot, the block ends."""
    await recorder.begin()
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(recorder.run())
        yield recorder
        looking.cancel()


async def _queue(app: App[None], name: str) -> QueueView | None:
    try:
        return await app.queues.get(name)
    except UnknownQueue:
        return None
