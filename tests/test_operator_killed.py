"""The operator dies at any of its writes to a real API server: the end is that of an undisturbed run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from api_proxy import ApiProxy, Write
from chaos.rounds import FULL, dice, tell
from control_plane import ControlPlane
from operator_yard import Yard, operating, seconds_until, yard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + 1500 * FULL, func_only=True)]
SCALE: Final = "/scale"


class Killing:
    """Kills the operator at one of its writes, before or after the API server has done it."""

    def __init__(self, number: int = 0, when: str = "") -> None:
        self._at = (number, when)
        self.process: asyncio.subprocess.Process | None = None
        self.done = False

    async def __call__(self, write: Write, when: str) -> web.Response | None:
        if (write.number, when) != self._at or self.process is None:
            return None
        self.done = True
        self.process.kill()
        await self.process.wait()
        return web.Response(status=503)


async def life_of_a_pool(plane: ControlPlane, redis: str, folder: Path, killing: Killing) -> tuple[Any, int]:
    """Up to three, down to one, and what is there in the end. Whoever is killed is followed by another."""
    async with yard(plane, redis) as at, ApiProxy(plane) as proxy:
        proxy.around, config, log = killing, proxy.kubeconfig(folder), folder / "log"
        life = asyncio.create_task(_life(at, proxy))
        try:
            while not life.done():
                async with operating(config, at, log, ends=True) as process:
                    killing.process = process
                    dead = asyncio.create_task(process.wait())
                    await asyncio.wait([life, dead], return_when=asyncio.FIRST_COMPLETED)
                    assert life.done() or killing.done, "the operator ended by itself"
                    killing.process = None
            return await life, len(proxy.writes)
        finally:
            life.cancel()


async def _life(at: Yard, proxy: ApiProxy) -> Any:
    await at.pool(scaling={"minReplicas": 1})
    ids = await at.submit(150)
    await at.at(3, timeout_s=60)
    assert [number for number in _numbers(proxy) if number != 3] == [], "a restart shrinks nothing"
    await seconds_until(lambda: at.staffed(3), "three pods")
    await at.empty(ids)
    await at.at(1, timeout_s=60, works=True)
    await seconds_until(lambda: _says(at, 1), "a status", 60)
    return await _end(at)


def _numbers(proxy: ApiProxy) -> list[int]:
    return [each.body["spec"]["replicas"] for each in proxy.writes if each.path.endswith(SCALE)]


async def _says(at: Yard, replicas: int) -> bool:
    await at.work()
    pool = await at.get("workerpools") or {}
    return bool(pool.get("status", {}).get("desiredReplicas") == replicas)


async def _end(at: Yard) -> Any:
    """What must not depend on who died when."""
    deployment, pool = await at.get("deployments"), await at.get("workerpools")
    budget = await at.get("poddisruptionbudgets")
    assert deployment is not None and pool is not None and budget is not None
    return deployment["spec"], budget["spec"], {each["type"]: each["status"] for each in pool["status"]["conditions"]}


async def test_an_operator_that_is_killed_at_any_write_ends_where_an_undisturbed_one_does(
    plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    calm, writes = await life_of_a_pool(plane, plane_redis, tmp_path, Killing())
    assert writes > 8
    moments = [(number, when) for number in range(1, writes + 1) for when in ("before", "after")]
    killed = 0
    for moment in moments if FULL else dice("killed at a write").sample(moments[:16], 3):
        killing = Killing(*moment)
        end, _ = await life_of_a_pool(plane, plane_redis, tmp_path, killing)
        assert end == calm, f"killed {moment}"
        killed += killing.done
    tell(f"{writes} writes of an undisturbed run; killed {killed} times")
    assert killed >= 2
