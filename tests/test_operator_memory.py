"""What an idle pool costs in memory, and that what is free goes back."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

from headrace_operator.tidy import tidy
from operator_kit import Opener, resource

POOLS = 200
MOST_KIB = 20.0


async def test_an_idle_pool_takes_little(scene: Opener) -> None:
    """With the dict that stands for the cluster; it was 11 KiB when this was written."""
    pool = scene()
    await pool.ticks(3)
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(POOLS):
            raw = resource(queues=[{"name": f"queue-{number}"}])
            raw["metadata"] |= {"name": f"pool-{number}", "uid": f"uid-{number}"}
            assert pool.loop.saw_pool(raw) is None
        await pool.ticks(8)
        assert all(each._rest is not None for each in pool.loop.pools.values())
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / POOLS < MOST_KIB * 1_024


class Loop:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_that_refers_to_itself_goes_at_once() -> None:
    gc.disable()
    try:
        seen = weakref.ref(Loop())
        assert seen() is not None
        tidy()
        assert seen() is None
    finally:
        gc.enable()
