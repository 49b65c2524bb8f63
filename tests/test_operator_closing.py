"""A control loop that is closed in the moment in which a step would begin."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from headrace.redis_settings import RedisSettings
from headrace_operator.caps import Caps
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from operator_kit import MemoryCluster, resource


@pytest.mark.parametrize("steps", ["the first", "another"])
async def test_a_step_that_was_about_to_begin_leaves_nothing_behind(redis_url: str, steps: str) -> None:
    looker = Looker({"default": RedisSettings.parse(redis_url, "the test")})
    loop = ControlLoop(MemoryCluster(), looker, tick_s=1, caps=Caps())
    loop.saw_pool(resource(1))
    if steps == "another":
        await loop.tick()
        await loop.settled()
        loop.saw_pool(resource(2, maxReplicas=3))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ticking = asyncio.create_task(loop.tick())
        while not (loop._busy or ticking.done()):  # noqa: ASYNC110 - to the very turn of the event loop
            await asyncio.sleep(0)
        [step] = loop._busy.values()
        await loop.aclose()
        await ticking
        gc.collect()
    await looker.aclose()
    assert step.cancelled() and [str(each.message) for each in said] == []
