"""What a shrinking pool does to the tasks that run: short ones and long ones, mixed, on one slot a pod."""

from __future__ import annotations

from random import Random
from typing import Final

from cluster_kit import World

from .cluster_floor import POOL, QUEUE, quiet
from .cluster_samples import Round, recording, shrinks_at_work
from .cluster_tasks import interrupted, sending, stuck

SHORT: Final = (100, 0.1)
LONG: Final = (20, 4.0)
"""(how many, seconds each)"""
PATIENCE_S: Final = 90.0


def mixed(seed: int) -> list[float]:
    """Seconds of all tasks, in the order in which they are submitted."""
    seconds = [each for number, each in (SHORT, LONG) for _ in range(number)]
    Random(seed).shuffle(seconds)
    return seconds


async def harm(made: World) -> Round:
    """Up to 20 pods, which go as soon as they may: nothing is held back by a window. Each round has another order."""
    await quiet(made)
    await made.pool(scaling={"targetQueueWaitSeconds": 1})
    before: int = (await made.stats())["completed"]  # in no two rounds the same
    async with sending(made.redis.url) as sender, recording(made, POOL, QUEUE) as recorder:
        ids = await sender.at_once(mixed(before))
        views = await sender.ends(ids, PATIENCE_S)
        if not stuck(views):
            await recorder.until(lambda seen: seen.completed > 0 and seen.at_rest, "the pool at zero")
    drained_s = next((each.at_s for each in recorder.line if each.completed == len(ids)), PATIENCE_S)
    return Round(
        {
            "harm_interrupted": interrupted(views), "harm_stuck": stuck(views), "harm_drained": drained_s,
            "harm_shrinks": shrinks_at_work(recorder.line),
        },
        {POOL: recorder.line},
    )  # fmt: skip
