"""What a kubelet would do: a real worker for each pod of a namespace, in this process; one that vanishes is ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from headrace import App
from headrace.redis_settings import RedisSettings
from headrace.runtime.worker import Worker
from headrace_operator.cluster import ClusterError
from operator_yard import Yard
from worker_harness import quick, shares


class Pods:
    """Of all pools of a yard; a pool `x` serves the queue `x` with one slot a pod."""

    def __init__(self, at: Yard) -> None:
        self.cut: list[str] = []
        """Pods that went while they ran a task."""
        self.ended = 0
        """Pods that went."""
        self.ran: Counter[str] = Counter()
        """Task → how often it was begun."""
        self._at = at
        self._running: Counter[str] = Counter()
        self._workers: dict[str, tuple[Worker, asyncio.Task[Any]]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with suppress(ClusterError):
                    await self._look()
                await asyncio.sleep(0.05)
        finally:
            for name in [*self._workers]:
                self._workers[name][0].stop()
            await asyncio.gather(*(task for _, task in self._workers.values()), return_exceptions=True)

    async def _look(self) -> None:
        there = {each["metadata"]["name"]: each for each in await self._at.all("pods")
                 if "deletionTimestamp" not in each["metadata"]}  # fmt: skip
        for name in self._workers.keys() - there.keys():
            self._end(name)
        for name in there.keys() - self._workers.keys():
            await self._begin(name, there[name]["metadata"]["labels"]["headrace.dev/pool"])

    def _end(self, name: str) -> None:
        worker, task = self._workers.pop(name)
        self.ended += 1
        if self._running[name]:
            self.cut.append(name)
        worker.stop()
        task.add_done_callback(lambda done: done.exception())

    async def _begin(self, name: str, pool: str) -> None:
        settings = quick(worker_id=name, queues=shares(pool), concurrency=1, beat_s=0.25, dead_after_s=30.0)
        worker = Worker(self._app(name), settings, RedisSettings.parse(self._at.redis, "the test"))
        self._workers[name] = worker, asyncio.create_task(worker.run())
        await self._at.make_ready(name)

    def _app(self, pod: str) -> App[Any]:
        app: App[Any] = App("pods")

        @app.task(name="nap")
        async def nap(seconds: float, label: str) -> None:
            self.ran[label] += 1
            self._running[pod] += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self._running[pod] -= 1

        return app
