"""A burst into an empty queue: a pool beside a person who sees it come and writes the number by hand that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from cluster_kit import World

from .cluster_floor import FLOOR, POOL, QUEUE, quiet
from .cluster_samples import Recorder, Round, Sample, recording

PODS: Final = 20
TASKS: Final = 400


async def burst(made: World) -> Round:
    """400 tasks of a second each, for 20 pods of one slot."""
    await quiet(made)
    async with recording(made, FLOOR, FLOOR) as by_hand:
        act = made.scale_by_hand("deployments", PODS, FLOOR)
        floor_ready_s, floor_drained_s = await _ready_and_drained(made, FLOOR, by_hand, act)
    await quiet(made)
    async with recording(made, POOL, QUEUE) as ours:
        ready_s, drained_s = await _ready_and_drained(made, QUEUE, ours)
        await ours.until(lambda seen: _drained(seen) and seen.at_rest, "the pool at zero")
    return Round(
        {"floor_ready": floor_ready_s, "floor_drained": floor_drained_s, "ready": ready_s, "drained": drained_s},
        {FLOOR: by_hand.line, POOL: ours.line},
    )


async def _ready_and_drained(
    made: World, queue: str, recorder: Recorder, act: Awaitable[None] | None = None
) -> tuple[float, float]:
    """Seconds from the submission until all pods are Ready, and until all tasks are completed."""
    submitted = made.submit_many("nap", {"seconds": 1}, TASKS, queue)
    await asyncio.gather(*(each for each in (act, submitted) if each is not None))
    ready = await recorder.until(lambda seen: seen.ready == PODS, f"{PODS} Ready")
    drained = await recorder.until(_drained, f"{TASKS} completed tasks")
    return ready.at_s, drained.at_s


def _drained(seen: Sample) -> bool:
    return seen.completed >= TASKS and not (seen.waiting or seen.running)
