"""A worker inside the test's event loop, and the few questions tests ask of a queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Self

import msgspec

from headrace import App, Ctx
from headrace.broker.broker import NewTask, Queue, TaskView, view
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.runtime.worker import Worker
from headrace.settings import QueueShare, WorkerSettings
from headrace.task import TERMINAL, Envelope, encode_envelope, new_id

WAIT_S = 20.0


def quick(**changes: Any) -> WorkerSettings:
    """Settings of a worker that beats fast and takes any free port."""
    values: dict[str, Any] = {
        "worker_id": "test",
        "host": "127.0.0.1",
        "metrics_port": 0,
        "beat_s": 0.1,
        "dead_after_s": 1.0,
        "grace_s": 5.0,
        "backoff_base_s": 0.01,
        "backoff_cap_s": 0.05,
    }
    return WorkerSettings(**(values | changes))


def working(app: App[Any], url: str, /, **changes: Any) -> AbstractAsyncContextManager[Worker]:
    """A worker that serves `app` until the block ends, then drains."""
    return _until_drained(Worker(app, quick(**changes), RedisSettings.parse(url, "the test")))


def impatient(app: App[Any], url: str, /, **changes: Any) -> AbstractAsyncContextManager[Worker]:
    """As `working`, but a request to Redis may take only 0.3 s."""
    redis = replace(RedisSettings.parse(url, "the test"), timeout_s=0.3, connect_timeout_s=0.3)
    return _until_drained(Worker(app, quick(**changes), redis))


@asynccontextmanager
async def _until_drained(worker: Worker) -> AsyncIterator[Worker]:
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(running, WAIT_S)


def counting() -> tuple[App[None], list[str]]:
    """An App with the task `count`, and the ids of those that it began."""
    app = App("t")
    runs: list[str] = []

    @app.task()
    async def count(ctx: Ctx) -> None:
        runs.append(ctx.id)

    return app, runs


def endless(app: App[Any]) -> asyncio.Event:
    """A task `endless` for it. The event is set once it runs."""
    begun = asyncio.Event()

    @app.task("endless")
    async def run() -> None:
        begun.set()
        await asyncio.Event().wait()

    return begun


def deaf(app: App[Any]) -> threading.Event:
    """A task `deaf` for it, whose thread outlasts its time-out, until the event is set."""
    release = threading.Event()

    @app.task("deaf", timeout=0.05, max_retries=0)
    def run() -> None:
        release.wait(30)

    return release


class Desk:
    """One queue, seen from outside."""

    def __init__(self, url: str, queue: str = "default") -> None:
        self.client = AsyncClient(RedisSettings.parse(url, "the test"))
        self.queue = Queue(queue)

    async def submit(self, type: str, payload: Any = None, priority: int = 1, **options: Any) -> str:
        """One task of any type, also one that no app knows. Returns its id."""
        fields = {key: options.pop(key) for key in ("max_retries", "version") if key in options}
        task_id = new_id(self.queue.name)
        raw = msgspec.Raw(msgspec.json.encode(payload if payload is not None else {}))
        envelope = Envelope(fields.pop("version", 1), priority, task_id, type=type, created_ms=1, payload=raw, **fields)
        await self.client.call(self.queue.submit([NewTask(task_id, encode_envelope(envelope), priority, **options)]))
        return task_id

    async def look(self, task_id: str) -> TaskView:
        found = await self.client.call(self.queue.get(task_id))
        assert found is not None, f"{task_id} is unknown"
        return view(task_id, self.queue.name, found)

    async def ended(self, task_id: str) -> TaskView:
        """The task, once it is in a terminal state."""
        return await self.until(task_id, lambda seen: seen.state in TERMINAL)

    async def until(self, task_id: str, good: Callable[[TaskView], bool]) -> TaskView:
        """The task, once `good` says so."""

        async def look() -> TaskView | None:
            seen = await self.look(task_id)
            return seen if good(seen) else None

        seen: TaskView = await eventually(look)
        return seen

    async def close(self) -> None:
        await self.client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def eventually(look: Callable[[], Awaitable[Any]], timeout_s: float = WAIT_S) -> Any:
    """What `look` returns, once that is true."""
    async with asyncio.timeout(timeout_s):
        while not (seen := await look()):  # noqa: ASYNC110 - what is awaited happens in Redis
            await asyncio.sleep(0.005)
        return seen


def shares(*names: str, **weights: int) -> tuple[QueueShare, ...]:
    return tuple(QueueShare(name) for name in names) + tuple(QueueShare(n, w) for n, w in weights.items())
