"""Tasks that count how often they run, and two workers that have some of them in hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace import App, Ctx, Retry
from headrace.runtime.worker import Worker
from headrace.task import State
from redis_server import RedisServer
from worker_harness import Desk, working


class Counting:
    """An app that counts the runs of its tasks, by id and attempt."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[str, int]] = Counter()
        self.app = App("t")

        @self.app.task(retry=Retry(5, base_s=0.01, cap_s=0.02))
        async def count(ctx: Ctx, fail: int = 0, ms: int = 0) -> int:
            self.runs[ctx.id, ctx.attempt] += 1
            await asyncio.sleep(ms / 1_000)
            if ctx.attempt <= fail:
                raise OSError("as asked")
            return ctx.attempt

    def of(self, task_id: str) -> list[int]:
        """Runs of each attempt of a task."""
        return [count for (id_, _), count in sorted(self.runs.items()) if id_ == task_id]


@asynccontextmanager
async def two_at_work(counting: Counting, server: RedisServer) -> AsyncIterator[tuple[Desk, Worker, Worker, list[str]]]:
    """A desk, both workers, and five tasks of a second each of which the last has begun."""
    async with (
        Desk(server.url) as desk,
        working(counting.app, server.url, worker_id="a") as one,
        working(counting.app, server.url, worker_id="b") as two,
    ):
        tasks = [await desk.submit("count", {"ms": 1_000}) for _ in range(5)]
        await desk.until(tasks[-1], lambda seen: seen.state is State.PROCESSING)
        yield desk, one, two, tasks
