"""A real API server that is away for a while: the operator goes on, and carries out no decision of before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from chaos.rounds import FULL, tell
from control_plane import ControlPlane
from operator_yard import Yard, operating

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + 660 * FULL, func_only=True)]
CONVERGED_S: Final = 15.0
AWAY_S: Final = (1, 30, *([600] if FULL else []))


@pytest.mark.parametrize("seconds", AWAY_S)
async def test_an_api_server_that_is_away_is_caught_up_with_and_no_old_decision_is_carried_out(
    at: Yard, plane: ControlPlane, tmp_path: Path, seconds: int
) -> None:
    """While it is away 550 tasks want five replicas; when it is back 150 want three, and that is the one write."""
    async with operating(plane.kubeconfig(), at, tmp_path / "log") as process:
        await at.pool(scaling={"minReplicas": 1})
        await at.submit(40)
        await at.at(1)
        before = await _generation(at)
        plane.kill("kube-apiserver")
        ids = await at.submit(400)
        await asyncio.sleep(seconds / 2)
        await at.empty(ids)
        await at.submit(110)
        await asyncio.sleep(seconds / 2)
        assert process.returncode is None
        await asyncio.to_thread(plane.start_api)
        took_s = await at.at(3)
        tell(f"away for {seconds} s: at its number after {took_s:.1f} s")
        assert took_s < CONVERGED_S
        assert await _generation(at) == before + 1, "one write"
        assert len(said(tmp_path / "log")) < 200_000, "its log is no flood"


def said(log: Path) -> str:
    return log.read_text()


async def _generation(at: Yard) -> int:
    found = await at.get("deployments")
    assert found is not None
    return int(found["metadata"]["generation"])
