"""What the operator shows of itself: the same as every other process, and each Redis of its pools."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from headrace.redis_settings import RedisSettings
from headrace_operator.caps import Caps
from headrace_operator.fleet import Key
from headrace_operator.kube import KubeCluster, Watched
from headrace_operator.looker import Looker, Place
from headrace_operator.loop import ControlLoop
from headrace_operator.metrics import registry_of
from headrace_operator.requests import Requests
from operator_kit import KEY, MemoryCluster, resource


async def test_the_operator_says_what_runs_and_which_redis_it_reaches(redis_url: str) -> None:
    looker = Looker({
        "default": RedisSettings.parse(redis_url, "the test"),
        "away": RedisSettings.parse("redis://127.0.0.1:1", "the test"),
        "unused": RedisSettings.parse("redis://127.0.0.1:1", "the test"),
    })  # fmt: skip
    loop = ControlLoop(MemoryCluster(), looker, tick_s=1, caps=Caps())
    registry = registry_of(loop, KubeCluster(Requests(cast(Any, None)), Watched()))
    for number, name in enumerate(("default", "away")):
        pool = resource(redis={"connection": name})
        pool["metadata"] |= {"name": name, "uid": f"uid-{number}"}
        loop.saw_pool(pool)
    try:
        running = asyncio.create_task(loop.run())
        while not loop.numbers.ticks:  # noqa: ASYNC110 - the loop makes it so
            await asyncio.sleep(0.01)
        running.cancel()
        await loop.settled()
        samples = {(each.name, each.labels.get("connection")): each for f in registry.collect() for each in f.samples}
        assert samples["headrace_build_info", None].labels["component"] == "operator"
        assert samples["headrace_redis_up", "default"].value == 1
        assert samples["headrace_redis_up", "away"].value == 0
        assert ("headrace_redis_up", "unused") not in samples, "nobody asked it"
        ticks = samples["headrace_operator_reconcile_total", None].value
        assert samples["headrace_operator_reconcile_duration_seconds_count", None].value == ticks >= 1
        assert samples["headrace_operator_reconcile_duration_seconds_sum", None].value > 0
        gone = Place("away", "default", "default")
        queue = looker.queue(gone)
        loop.lost_pool(Key(KEY.namespace, "away"))
        await loop.tick()
        await loop.settled()
        assert loop.redis_up == {"default": True}, "an alert about a Redis that nobody names would never end"
        assert looker.queue(gone) is not queue, "nothing of it is kept"
    finally:
        await loop.aclose()
        await looker.aclose()
