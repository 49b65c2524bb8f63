"""A spec that only the operator can refuse: the first pool that it sees after its start says so, and others work."""

from __future__ import annotations

import json
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


async def test_one_that_is_deeper_than_python_reads_hides_no_other(
    plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    """An API server takes ten thousand levels. The operator ended at such a pool, and at each start after that."""
    async with yard(plane, plane_redis) as at:
        _make_deep(plane, at, "listed", tmp_path / "pool.json")
        async with operating(plane.kubeconfig(), at, tmp_path / "log"):
            await seconds_until(lambda: _told(at, "listed"), "a condition and an Event of one that a list shows", 30)
            _make_deep(plane, at, "watched", tmp_path / "pool.json")
            await seconds_until(lambda: _told(at, "watched"), "a condition and an Event of one that a watch shows", 30)
            await at.pool(scaling={"minReplicas": 1})
            await at.at(1)


def _make_deep(plane: ControlPlane, at: Yard, name: str, file: Path) -> None:
    """As text, for Python writes no such thing either."""
    spec = {"queues": [{"name": "default"}], "scaling": {"maxReplicas": 5}, "template": {"spec": "DEEP"}}
    pool = {"apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": name}, "spec": spec}
    file.write_text(json.dumps(pool).replace('"DEEP"', '{"a":' * 3_000 + "1" + "}" * 3_000))
    plane.kubectl("-n", at.namespace, "create", "-f", str(file))


async def _told(at: Yard, name: str) -> bool:
    ready, events = await at.condition("Ready", name), await at.all("events")
    told = {(each["reason"], each["involvedObject"]["name"]) for each in events}
    return ready.get("reason") == "InvalidSpec" and ("InvalidSpec", name) in told


async def _is_over(at: Yard) -> bool:
    return (await at.condition("Ready")).get("reason") != "InvalidSpec"
