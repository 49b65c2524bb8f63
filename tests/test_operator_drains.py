"""A hundred times down, by the real controllers and with real workers in the pods: no task that runs is ever cut."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

import msgspec
import pytest

from api_proxy import ApiProxy
from chaos.rounds import dice, rounds, tell
from control_plane import ControlPlane
from headrace.broker.broker import NewTask, Queue
from headrace.task import Envelope, encode_envelope, new_id
from operator_pods import Pods
from operator_yard import Yard, operating, seconds_until, yard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(840, func_only=True)]
POOLS: Final = 4
DOWN: Final = rounds(12, 100)
"""Times that a number is lowered, of all pools together."""


async def test_no_running_task_is_cut_however_often_it_goes_down(
    plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    """Bursts of short tasks with a few long ones among them: the pools shrink around those that are busy.

    The controllers stall now and then, so that a number which is raised again is carried out after all.
    """
    luck = dice("drains")
    async with (
        yard(plane, plane_redis) as at,
        ApiProxy(plane) as proxy,
        operating(proxy.kubeconfig(tmp_path), at, tmp_path / "log"),
    ):
        pods = Pods(at)
        kubelet = asyncio.create_task(pods.run())
        names = [f"pool-{number}" for number in range(POOLS)]
        for name in names:
            await at.pool(name, queue=name, worker={"concurrency": 1}, scaling={"targetQueueWaitSeconds": 1})
        bursts = [asyncio.create_task(_bursts(at, name, random.Random(luck.random()))) for name in names]
        stalls = asyncio.create_task(_stall(plane, random.Random(luck.random())))
        try:
            await seconds_until(lambda: _went_down(proxy, DOWN), f"{DOWN} times down", 800)
        finally:
            for each in (*bursts, stalls, kubelet):
                each.cancel()
            await asyncio.gather(*bursts, stalls, kubelet, return_exceptions=True)
        tell(f"{downs(proxy)} times down, {pods.ended} pods ended, {len(pods.ran)} tasks begun, {len(pods.cut)} cut")
        assert pods.cut == []
        assert [label for label, times in pods.ran.items() if times > 1] == [], "no task ran twice"
        assert pods.ended >= DOWN


async def _bursts(at: Yard, name: str, luck: random.Random) -> None:
    while True:
        await naps(at, name, [luck.uniform(0.05, 0.3) for _ in range(30)] + [luck.uniform(2, 4) for _ in range(2)])
        await asyncio.sleep(luck.uniform(4, 8))


async def _stall(plane: ControlPlane, luck: random.Random) -> None:
    while True:
        await asyncio.sleep(luck.uniform(1, 3))
        with plane.frozen("kube-controller-manager"):
            await asyncio.sleep(luck.uniform(0.3, 1.5))


async def naps(at: Yard, name: str, seconds: list[float]) -> None:
    made = []
    for each in seconds:
        id = new_id(name)
        payload = msgspec.Raw(msgspec.json.encode({"seconds": each, "label": id}))
        made.append(NewTask(id, encode_envelope(Envelope(1, 1, id, type="nap", created_ms=1, payload=payload)), 1))
    await at.client.call(Queue(name).init())
    await at.client.call(Queue(name).submit(made))


def downs(proxy: ApiProxy) -> int:
    """How often a number was lowered."""
    last: dict[str, int] = {}
    count = 0
    for write in proxy.writes:
        if write.path.endswith("/scale") and proxy.statuses.get(write.number) == 200:
            count += write.body["spec"]["replicas"] < last.get(write.path, 0)
            last[write.path] = write.body["spec"]["replicas"]
    return count


async def _went_down(proxy: ApiProxy, times: int) -> bool:
    return downs(proxy) >= times
