"""WorkerPools whose replicas are pods of a real Kubernetes: the contract that processes fulfil too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster_kit import World
from pool_contract import PoolContract, Rig
from worker_harness import Desk


class PodRig(Rig):
    def __init__(self, world: World, desk: Desk) -> None:
        super().__init__(desk, "exit code 137")
        self._world = world

    async def apply(self, spec: dict[str, Any]) -> None:
        await self._world.pool(**spec)

    async def kill(self, replica: str) -> None:
        self._world.kill_worker(replica)

    async def asked_for(self) -> int | None:
        return await self._world.replicas()

    async def there(self) -> list[str]:
        path = f"/api/v1/namespaces/{self._world.namespace}/pods"
        return [pod["metadata"]["name"] for pod in (await self._world.requests.send("GET", path))["items"]]

    async def ready(self) -> int:
        found = await self._world.get("workerpools")
        return int(((found or {}).get("status") or {}).get("readyReplicas", 0))

    async def told(self) -> set[str]:
        return await self._world.reasons()

    async def ticks(self, number: int) -> None:
        await asyncio.sleep(number * 1.1)


@pytest.fixture
async def rig(world: World) -> AsyncIterator[PodRig]:
    if not world.cluster.here:
        pytest.skip("the cluster's processes are not those of this machine, so that no worker can be killed")
    desk = Desk(world.redis.url)
    with world.operating():
        yield PodRig(world, desk)
    await desk.close()


@pytest.mark.cluster
@pytest.mark.timeout(180, func_only=True)
class TestPods(PoolContract):
    """Pods as replicas."""
