"""The tasks that pods of the test cluster run."""

from __future__ import annotations

import asyncio
import os
import time

from headrace import App, Ctx

app = App("cluster")


@app.task()
async def nap(seconds: float = 0.0) -> str:
    """Ends after so long, with the name of the pod."""
    await asyncio.sleep(seconds)
    return os.environ.get("WORKER_ID", "")


@app.task()
async def begun(at: float = 0.0) -> float:
    """Seconds from `at` (Unix time) to its first line."""
    return time.time() - at


@app.task()
def greedy(mebibytes: int = 1_000, seconds: float = 30.0) -> int:
    """Takes so much memory."""
    taken = [b"x" * (1024 * 1024) for _ in range(mebibytes)]
    time.sleep(seconds)
    return len(taken)


@app.task()
async def crash_once(ctx: Ctx) -> str:
    """Ends its worker at the first attempt, without a word."""
    if ctx.attempt == 1:
        os._exit(3)  # the first process of a container cannot be killed from inside
    return os.environ.get("WORKER_ID", "")
