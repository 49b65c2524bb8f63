"""Two operators at once: one works, by a Lease, and the other takes over."""

from __future__ import annotations

import time

import pytest

from cluster_kit import World, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, func_only=True)]
WORKS = "holds the Lease and works"


def settings(world: World, name: str) -> dict[str, str]:
    return {
        "HEADRACE_OPERATOR_LEASE": "true", "HEADRACE_OPERATOR_LEASE_NAMESPACE": world.namespace,
        "HEADRACE_OPERATOR_IDENTITY": name,
    }  # fmt: skip


async def holder(world: World) -> str:
    found = await world.get("leases", "headrace-operator") or {"spec": {}}
    return str(found["spec"].get("holderIdentity", ""))


async def test_one_works_and_the_other_takes_over_when_it_is_killed(world: World) -> None:
    with world.operating(**settings(world, "first")) as first:
        first.wait_for(WORKS)
        with world.operating(**settings(world, "second")) as second:
            second.wait_for("waits: first holds the Lease")
            await world.pool()
            await world.at(0)
            assert await holder(world) == "first"
            assert WORKS not in second.output
            first.process.kill()
            first.end()
            killed_s = time.monotonic()
            task_id = await world.submit("nap")
            await until(lambda: holder(world), lambda seen: seen == "second", "the second one holds it", 25)
            assert time.monotonic() - killed_s < 20
            assert (await world.ended(task_id))["status"] == "completed"


async def test_one_that_is_told_to_end_hands_over_at_once(world: World) -> None:
    with world.operating(**settings(world, "first")) as first:
        first.wait_for(WORKS)
        with world.operating(**settings(world, "second")) as second:
            second.wait_for("waits: first holds the Lease")
            await world.pool()
            await world.at(0)
            first.process.terminate()
            ended_s = time.monotonic()
            assert first.end() == 0
            second.wait_for(WORKS)
            assert time.monotonic() - ended_s < 5


async def test_one_that_waits_ends_when_it_is_told_to(world: World) -> None:
    with world.operating(**settings(world, "first")) as first:
        first.wait_for(WORKS)
        with world.operating(**settings(world, "second")) as second:
            second.wait_for("waits: first holds the Lease")
            second.process.terminate()
            assert second.end() == 0
        assert await holder(world) == "first"
