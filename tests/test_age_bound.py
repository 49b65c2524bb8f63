"""What was handed back comes first, but not for ever: one claim in ten goes to whoever waits too long."""

from __future__ import annotations

import asyncio

from headrace import App, Ctx
from worker_harness import Desk, working

BACK = 300


async def _handed_back(desk: Desk) -> None:
    """So many tasks are in the stream that every worker reads first."""
    await desk.client.call(desk.queue.init())
    for _ in range(BACK):
        await desk.submit("run")
    await desk.client.call(desk.queue.cycle("stopped", BACK))
    while (await desk.client.call(desk.queue.hand_back("stopped", leave=True)))[1]:
        pass


async def test_what_comes_back_holds_nobody_up_for_ever(desk: Desk, redis_url: str) -> None:
    app, ran = App("t"), list[str]()

    @app.task()
    async def run(ctx: Ctx) -> None:
        ran.append(ctx.id)
        await asyncio.sleep(0.01)

    await _handed_back(desk)
    old = await desk.submit("run", priority=0)
    async with working(app, redis_url, concurrency=1, beat_s=0.05, age_bound_s=0.05):
        await desk.ended(old)
    assert ran.index(old) < BACK
