"""Pools on a real Kubernetes: they grow and shrink with their queue, and no task that runs is ever ended."""

from __future__ import annotations

import pytest

from cluster_kit import World, until

# Without the fixtures: a cluster that is built from nothing takes ten minutes.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, func_only=True)]


async def test_a_task_at_zero_wakes_the_pool_and_the_idle_pool_goes_to_zero(world: World) -> None:
    with world.operating():
        assert await world.pool() == "workerpool.headrace.dev/emails created\n"
        await world.at(0)
        task = await world.ended(await world.submit("nap"))
        assert task["status"] == "completed" and task["result"].startswith("emails-"), "a pod ran it"
        await world.at(0)
        told = {"WokeFromZero", "ScaledToZero"}  # after the number is written
        await until(world.reasons, lambda seen: told <= seen, "both Events")


async def test_a_burst_gets_many_pods_and_is_completed_whole(world: World) -> None:
    with world.operating():
        await world.pool(scaling={"maxReplicas": 8, "targetQueueWaitSeconds": 10})
        await world.at(0)
        await world.submit_many("nap", {"seconds": 0.1}, 450)
        await world.at(8)
        stats = await world.all_completed(450)
        assert (stats["completed"], stats["failed"], stats["dead_letters"]) == (450, 0, 0)
        await world.at(0)


async def test_scaling_down_never_cuts_a_task(world: World) -> None:
    """The youngest pods hold the long tasks, and the pool shrinks as fast as it can as soon as the short ones end."""
    with world.operating():
        await world.pool(scaling={"maxReplicas": 10, "targetQueueWaitSeconds": 1})
        short = await world.submit_many("nap", {"seconds": 0.05}, 100)
        long = await world.submit_many("nap", {"seconds": 15}, 7)
        await world.at(10)
        await until(world.replicas, lambda seen: seen is not None and 1 <= seen <= 8, "it shrinks while tasks run")
        tasks = [await world.ended(each) for each in [*long, *short]]
        assert {each["status"] for each in tasks} == {"completed"}
        assert sum(each["interruptions"] + each["crashes"] for each in tasks) == 0
        await world.at(0)


async def test_a_cancelled_task_does_not_keep_the_pool_asleep(world: World) -> None:
    await world.pool()
    first, second = await world.submit("nap"), await world.submit("nap")
    assert (await world.api.ask("POST", f"/api/v1/tasks/{first}:cancel")).status == 200
    with world.operating():
        assert (await world.ended(second))["status"] == "completed"
        assert (await world.api.task(first))["status"] == "cancelled"


async def test_a_pool_in_external_is_scaled_by_kubectl(world: World) -> None:
    with world.operating():
        await world.pool(mode="External", replicas=0)
        await world.at(0)
        assert "scaled" in await world.kubectl("scale", "wp/emails", "--replicas=2")
        await world.at(2)
        await until(world.pods, lambda pods: len(pods) == 2, "two pods")
        await world.kubectl("scale", "wp/emails", "--replicas=0")
        await world.at(0)


async def test_replicas_that_somebody_else_writes_are_put_right_and_said(world: World) -> None:
    with world.operating():
        await world.pool()
        await until(lambda: world.condition("Ready"), lambda seen: seen.get("reason") == "Idle", "an idle pool")
        await world.scale_by_hand("deployments", 3)
        await until(world.reasons, lambda seen: "ReplicasConflict" in seen, "an Event ReplicasConflict")
        await world.at(0)
