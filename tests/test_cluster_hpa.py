"""A real HorizontalPodAutoscaler on a WorkerPool in mode External: it has the number, the operator the drain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import metrics_api
from cluster_kit import World, until
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240, func_only=True)]

PATIENCE_S = 90.0
"""A cluster that is not of our making looks at its HPAs every 15 s."""
AT_ONCE = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]}
HPA: dict[str, Any] = {
    "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "emails"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "name": "emails"},
        "minReplicas": 1, "maxReplicas": 4, "behavior": {"scaleUp": AT_ONCE, "scaleDown": AT_ONCE},
        "metrics": [{"type": "External", "external": {
            "metric": {"name": "depth"}, "target": {"type": "AverageValue", "averageValue": "2"}}}],
    },
}  # fmt: skip


@pytest.fixture
async def hpa(world: World) -> AsyncIterator[None]:
    """It looks at the depth of the queue `default`, for each replica two tasks."""
    client, queue = AsyncClient(RedisSettings.parse(world.redis.url, "the test")), Queue("default")
    address, registered = world.cluster.address, f"apiservice/v1beta1.{metrics_api.GROUP}"

    async def depth() -> int:
        seen = await client.call(queue.demand(0))
        return seen.waiting + seen.processing

    try:
        async with metrics_api.serving(address, "depth", depth) as port:
            await world.kubectl("apply", "-f", "-", given=metrics_api.registration(world.namespace, address, port))
            try:
                await world.kubectl("wait", "--for=condition=Available", registered)
                await world.kubectl("apply", "-f", "-", given=HPA)
                yield
            finally:  # as long as one that does not answer is registered, no namespace can be deleted
                await world.kubectl("delete", "hpa/emails", "--ignore-not-found")
                await world.kubectl("delete", registered)
    finally:
        await client.aclose()


async def asked_for(world: World) -> int:
    """What the HPA wrote into the pool."""
    return int(((await world.get("workerpools")) or {})["spec"]["replicas"])


async def test_an_hpa_scales_a_pool_and_busy_workers_stay(world: World, hpa: None) -> None:
    with world.operating():
        await world.pool(mode="External", replicas=1)
        await world.at(1)
        long = await world.submit_many("nap", {"seconds": 600}, 2)
        short = await world.submit_many("nap", {"seconds": 1}, 12)
        await world.at(4, timeout_s=PATIENCE_S)
        assert await asked_for(world) == 4, "the HPA's doing"
        for each in short:
            task = await world.ended(each, PATIENCE_S)
            assert (task["status"], task["attempts"]) == ("completed", 1)
        # Two tasks are left, which is one replica's worth to the HPA; but they run in two pods.
        await until(lambda: asked_for(world), lambda seen: seen == 1, "the HPA asks for one", PATIENCE_S)
        await world.at(2, timeout_s=PATIENCE_S)
        for each in long:
            await world.begun(each)
            assert (await world.api.ask("POST", f"/api/v1/tasks/{each}:cancel")).status == 202
        await world.at(1)
        tasks = [await world.ended(each) for each in long]
        assert [(each["status"], each["interruptions"], each["crashes"]) for each in tasks] == [("cancelled", 0, 0)] * 2
        await until(world.pods, lambda pods: len(pods) == 1, "one pod")
        assert "ReplicasConflict" not in await world.reasons()
