"""Bulk jobs over HTTP: the tasks they act on, and what becomes of them."""

from __future__ import annotations

from typing import Any

from api_kit import Api
from headrace.broker.broker import NewTask, Queue
from headrace.bulk import Jobs
from headrace.bulk_job import Chosen, Order
from headrace.task import Envelope, Failure, encode_envelope, new_id
from worker_harness import eventually

BULK = "/api/v1/bulk"


async def add(api: Api, number: int, queue: str = "default", **fields: Any) -> list[str]:
    """So many tasks that wait."""
    made = Queue(queue)
    await api.worker.client.call(made.enlist())
    await api.worker.client.call(made.init())
    ids = [new_id(queue) for _ in range(number)]
    tasks = [NewTask(id_, encode_envelope(Envelope(1, 1, id_, type="noop", created_ms=1, **fields)), 1) for id_ in ids]
    for start in range(0, number, 500):
        await api.worker.client.call(made.submit(tasks[start : start + 500]))
    return ids


async def fail_all(api: Api, error: str = "OSError", queue: str = "default") -> int:
    """All that waits fails. How many that were."""
    failed = 0
    while claims := await api.worker.claim(500, queue):
        await api.worker.report(*(each.report("failed", error=Failure(error, "no")) for each in claims), queue=queue)
        failed += len(claims)
    return failed


async def ended(api: Api, job_id: str) -> Any:
    """The job when it has ended."""
    job: Any = None

    async def look() -> bool:
        nonlocal job
        job = (await api.get(f"{BULK}/{job_id}")).json
        return job["ended_at"] is not None

    await eventually(look)
    return job


async def order(api: Api, body: Any) -> Any:
    """An order that is taken."""
    answer = await api.ask("POST", BULK, json=body)
    assert answer.status == 202, answer.text
    assert answer.headers["Location"] == f"{BULK}/{answer.json['id']}"
    return answer.json


async def depth(api: Api, queue: str = "default") -> Any:
    return (await api.get(f"/api/v1/queues/{queue}")).json


async def metrics(api: Api) -> dict[str, float]:
    """Those of bulk jobs that are not 0."""
    text = (await api.get("/metrics")).text
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("headrace_bulk_"))
    return {name.removeprefix("headrace_bulk_"): float(value) for name, _, value in lines if float(value)}


async def pretend_dead_process(api: Api, jobs: Jobs, body: Any, chosen: list[Chosen]) -> str:
    """A job whose process kept which tasks it acts on next, and then died."""
    job = await jobs.start(Order(body["action"], ids=tuple(body["ids"]), who="somebody"), owner="gone")
    work = await jobs.take("gone", job.id)
    assert work is not None
    work.progress.listed = True
    assert await jobs.save(work, "gone", chosen) == "running"
    await jobs.let_go(work, "gone")
    return job.id
