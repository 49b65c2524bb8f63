"""The measurement of `headrace bench`: submit, drain, delete what it left."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.app import App
from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.runtime.worker import Worker
from headrace.settings import QueueShare, WorkerSettings
from headrace.task import ENVELOPE_VERSION, Envelope, encode_envelope, new_id

from .progress import Bar

__all__ = ["Figure", "Plan", "measure"]

BATCH: Final = 500
LOOK_S: Final = 0.05
"""Seconds between two looks at how far it is; each costs Redis some ten microseconds."""
KEPT_S: Final = 60
"""Seconds after which the records are gone even if this process is killed before it deletes them."""
QUEUE: Final = "bench"
DELETE_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    redis: RedisSettings
    tasks: int
    payload_bytes: int
    concurrency: int
    namespace: str = field(default_factory=lambda: f"bench-{secrets.token_hex(6)}")


class Figure(msgspec.Struct, frozen=True):
    """One step of it."""

    step: str
    tasks: int
    seconds: float
    tasks_per_s: int


async def measure(plan: Plan) -> list[Figure]:
    """Submit and drain. Nothing is left behind, also when it is broken off. Raises StoreUnavailable."""
    client = AsyncClient(plan.redis, "headrace-bench")
    try:
        await client.call(Queue(QUEUE, plan.namespace).init())
        with _measured("submit", plan.tasks) as submitted:
            await _submit(plan, client)
        async with _worker(plan) as worker:
            with _measured("drain", plan.tasks) as drained:
                await _drained(plan, client, worker)
        return [*submitted, *drained]
    finally:
        await _delete(plan, client)
        await client.aclose()


@contextmanager
def _measured(step: str, tasks: int) -> Iterator[list[Figure]]:
    found: list[Figure] = []
    began = time.perf_counter()
    yield found
    seconds = time.perf_counter() - began
    found.append(Figure(step, tasks, round(seconds, 3), round(tasks / seconds)))


async def _submit(plan: Plan, client: AsyncClient) -> None:
    queue = Queue(QUEUE, plan.namespace)
    payload = msgspec.Raw(msgspec.json.encode({"data": "x" * plan.payload_bytes}))
    with Bar("submitted", plan.tasks) as bar:
        for start in range(0, plan.tasks, BATCH):
            some = [_new_task(payload) for _ in range(min(BATCH, plan.tasks - start))]
            await client.call(queue.submit(some))
            bar.to(start + len(some))


def _new_task(payload: msgspec.Raw) -> NewTask:
    task_id = new_id(QUEUE)
    envelope = Envelope(
        ENVELOPE_VERSION, 1, task_id, type="noop", created_ms=time.time_ns() // 1_000_000, payload=payload
    )
    return NewTask(task_id, encode_envelope(envelope), 1)


@asynccontextmanager
async def _worker(plan: Plan) -> AsyncIterator[Worker]:
    """A worker in this process, which has connected."""
    app: App[Any] = App("bench", queue=QUEUE, namespace=plan.namespace)

    @app.task("noop")
    async def noop(data: str) -> None:
        pass

    settings = WorkerSettings(
        concurrency=plan.concurrency,
        queues=(QueueShare(QUEUE),),
        namespace=plan.namespace,
        host="127.0.0.1",
        metrics_port=0,
        retention_s=KEPT_S,
    )
    worker = Worker(app, settings, plan.redis)
    ready = asyncio.Event()
    running = asyncio.create_task(worker.run(lambda _: ready.set()))
    await asyncio.wait([asyncio.create_task(ready.wait()), running], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield worker
    finally:
        worker.hurry()
        await running


async def _drained(plan: Plan, client: AsyncClient, worker: Worker) -> None:
    queue = Queue(QUEUE, plan.namespace)
    with Bar("drained", plan.tasks) as bar:
        while (live := (await client.call(queue.depth())).live) and not worker.failed:
            bar.to(plan.tasks - live)
            await asyncio.sleep(LOOK_S)


async def _delete(plan: Plan, client: AsyncClient) -> None:
    """All keys of the namespace, and none other: its name is random."""
    cursor = "0"
    with Bar("deleted", None) as bar:
        while True:
            reply = await client.command("SCAN", cursor, "MATCH", f"hr:{{{plan.namespace}*", "COUNT", 1_000)
            cursor, keys = reply[0].decode(), reply[1]
            for start in range(0, len(keys), DELETE_AT_ONCE):
                await client.command("UNLINK", *keys[start : start + DELETE_AT_ONCE])
            bar.to(bar.done + len(keys))
            if cursor == "0":
                return
