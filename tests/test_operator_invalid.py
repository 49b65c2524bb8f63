"""A spec that only the operator can refuse: the first pool that it sees after its start says so, and others work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from control_plane import ControlPlane
from operator_yard import Yard, operating, seconds_until, yard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]
TOLD_S: Final = 5.0
BAD: Final[dict[str, Any]] = {
    "schedules": [{"name": "day", "start": "0 25 * * *", "end": "0 19 * * *", "timeZone": "Etc/UTC", "minReplicas": 2}]
}


async def test_a_bad_cron_is_told_of_the_first_pool_after_the_start(
    plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    """By a condition and an Event, as of one that comes later; once it is mended the pool works."""
    async with yard(plane, plane_redis) as at, operating(plane.kubeconfig(), at, tmp_path / "log"):
        await at.pool(scaling=BAD)
        await seconds_until(lambda: _told(at, "emails"), "a condition and an Event of the first pool", 30)
        assert "0 25 * * *" in (await at.condition("Ready"))["message"]
        assert await at.replicas() == -1
        await at.pool("later", scaling=BAD)
        assert await seconds_until(lambda: _told(at, "later"), "a condition and an Event of another", 30) < TOLD_S
        await at.pool(scaling={"minReplicas": 1})
        await at.at(1)
        await seconds_until(lambda: _is_over(at), "a condition that is over")


async def _told(at: Yard, name: str) -> bool:
    ready, events = await at.condition("Ready", name), await at.all("events")
    told = {(each["reason"], each["involvedObject"]["name"]) for each in events}
    return ready.get("reason") == "InvalidSpec" and ("InvalidSpec", name) in told


async def _is_over(at: Yard) -> bool:
    return (await at.condition("Ready")).get("reason") != "InvalidSpec"
