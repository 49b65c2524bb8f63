"""How soon one task starts: at a pool at zero, beside one that is cancelled, and anew when its worker was killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from cluster_kit import World, until

from .cluster_floor import FLOOR, quiet
from .cluster_samples import Round
from .errors import MeasureError


async def wake(made: World) -> Round:
    """The floor first: the task waits already, and only then a number is written."""
    await quiet(made)
    task_id = await made.submit("begun", queue=FLOOR)
    began_s = time.time()
    await made.scale_by_hand("deployments", 1, FLOOR)
    floor_s = (await made.ended(task_id))["result"] - began_s
    await quiet(made)
    async with _watching(made) as written:
        began_s = time.time()
        task_id = await made.submit("begun")
        written_s = await written
    task = await made.ended(task_id)
    return Round({"floor_started": floor_s, "written": written_s - began_s, "started": task["result"] - began_s})


async def cancel(made: World) -> Round:
    """Of two tasks the one that came first is cancelled before a pod is there; the pool has to wake for the other."""
    await quiet(made)
    began_s = time.time()
    first, other = await made.submit("begun"), await made.submit("begun")
    answer = await made.api.ask("POST", f"/api/v1/tasks/{first}:cancel")
    task = await made.ended(other)
    cancelled = answer.status == 200 and (await made.api.task(first))["status"] == "cancelled"
    if not cancelled:
        raise MeasureError(f"the first task had begun before it could be cancelled: {answer.text}")
    return Round({"other_started": task["result"] - began_s})


async def kill(made: World) -> Round:
    await made.pool(scaling={"minReplicas": 2, "maxReplicas": 2})
    await until(lambda: _ready(made), lambda ready: ready == 2, "2 Ready")
    task_id = await made.submit("nap", {"seconds": 1})
    worker = (await made.begun(task_id))["worker_id"].rpartition(":")[0]
    killed_s = time.time()
    made.kill_worker(worker)
    task = await made.ended(task_id)
    return Round({"again": _unix(task["log"][1]["started_at"]) - killed_s})


async def _ready(made: World) -> int:
    found = await made.get("deployments")
    return 0 if found is None else found["status"].get("readyReplicas", 0)


@asynccontextmanager
async def _watching(made: World) -> AsyncIterator[asyncio.Task[float]]:
    """A watch of the Deployment, which stands when the block begins; gives when it shows a number above 0."""
    command = made.kubectl.command("get", "deployments/emails", "--watch", "-o", 'jsonpath={.spec.replicas}{"\\n"}')
    watch = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert watch.stdout is not None
        assert await watch.stdout.readline() == b"0\n"
        yield asyncio.create_task(_above_zero(watch.stdout))
    finally:
        watch.terminate()
        await watch.wait()


async def _above_zero(lines: asyncio.StreamReader) -> float:
    while await lines.readline() == b"0\n":
        pass
    return time.time()


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
