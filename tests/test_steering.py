"""The control loop: a pool through its days, on a real Redis and a cluster in memory."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_operator.cluster import ClusterError, Refused
from operator_kit import AT_ONCE, KEY, Opener, resource


async def test_from_zero_to_zero(scene: Opener) -> None:
    """A burst, then nothing: up in one write, down by drained replicas only, to zero."""
    pool = scene()
    await pool.tick()
    assert pool.cluster.writes == [("apply", KEY)], "a pool with nothing to do starts nothing"
    ids = await pool.submit(1_200)
    await pool.tick()
    assert pool.cluster.scalings == [20]
    assert pool.told == ["WokeFromZero", "ScalingLimited"]
    await pool.empty(ids)
    for _ in range(160):
        await pool.work()
        await pool.tick()
    assert pool.replicas == 0
    assert pool.told[-1] == "ScaledToZero"
    assert pool.cluster.scalings == [20, 10, 5, 2, 1, 0]


async def test_a_busy_replica_stays_until_it_is_done(scene: Opener) -> None:
    pool = scene(scaling=AT_ONCE)
    ids = await pool.submit(100)
    await pool.tick()
    assert pool.replicas == 2
    await pool.work()
    await pool.claim("emails-1")
    await pool.empty(ids)
    for _ in range(3):
        await pool.work(emails_1=1)
        await pool.tick()
    assert [pod.name for pod in pool.cluster.fleet(KEY).pods] == ["emails-1"], "the newer one, but it runs a task"
    await pool.ticks(50)
    assert pool.replicas == 1
    await pool.client.call(pool.queue.hand_back("emails-1:1"))
    await pool.empty(ids)
    for _ in range(3):
        await pool.work()
        await pool.tick()
    assert pool.replicas == 0


async def test_what_is_asked_and_needed_again_is_released(scene: Opener) -> None:
    pool = scene(scaling=AT_ONCE)
    ids = await pool.submit(100)
    await pool.tick()
    await pool.work()
    await pool.empty(ids)
    await pool.ticks(31)
    assert len((await pool.client.call(pool.queue.demand(1))).asked) == 2
    await pool.submit(100)
    await pool.tick()
    assert (await pool.client.call(pool.queue.demand(1))).asked == {}
    assert pool.cluster.scalings == [2]


@pytest.mark.parametrize("replicas", [0, 1, 7])
async def test_without_redis_nothing_is_scaled(scene: Opener, redis_server: Any, replicas: int) -> None:
    pool = scene()
    await pool.submit(replicas * 50)
    await pool.tick()
    await pool.client.command("CONFIG", "SET", "requirepass", "changed")
    try:
        await pool.looker.aclose()
        before = list(pool.cluster.writes)
        await pool.ticks(20)
        assert pool.cluster.writes == before
        assert pool.condition("QueueReachable")["status"] == "False"
        assert pool.condition("Ready")["reason"] == "QueueUnreachable"
        assert pool.told.count("QueueUnreachable") == 1
    finally:
        await pool.client.command("CONFIG", "SET", "requirepass", "")
    await pool.ticks(2)
    assert pool.condition("QueueReachable")["status"] == "True"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"mode": "External", "replicas": 1}, 1),
        ({"mode": "Paused"}, 0),
        ({"mode": "DryRun", "scaling": {"maxReplicas": 9, "fallback": {"policy": "Static", "replicas": 9}}}, 1),
        ({"scaling": {"maxReplicas": 1}}, 1),
        ({"scaling": {"maxReplicas": 9, "minReplicas": 5}}, 1),
    ],
    ids=["External", "Paused", "DryRun", "a cap", "a floor"],
)
async def test_that_redis_is_away_is_told_whatever_else_decides_the_number(
    scene: Opener, spec: dict[str, Any], told: int
) -> None:
    """A bound or a mode has the last word on the number; what an operator sees of Redis it has not."""
    pool = scene()
    await pool.submit(100)
    await pool.tick()
    await pool.client.command("CONFIG", "SET", "requirepass", "changed")
    try:
        await pool.looker.aclose()
        pool.loop.saw_pool(resource(generation=2, **spec))
        await pool.ticks(20)
        assert pool.condition("QueueReachable")["status"] == "False"
        assert "the queues cannot be read" in pool.condition("QueueReachable")["message"]
        assert pool.condition("Ready")["status"] == "False"
        assert pool.told.count("QueueUnreachable") == told
    finally:
        await pool.client.command("CONFIG", "SET", "requirepass", "")
    await pool.ticks(2)
    assert pool.condition("QueueReachable")["status"] == "True"


async def test_a_cluster_that_does_not_answer_is_a_condition(scene: Opener) -> None:
    pool = scene()
    await pool.submit(5)
    pool.cluster.broken = ClusterError("the API server does not answer")
    await pool.ticks(3)
    assert pool.replicas == 0
    pool.cluster.broken = None
    await pool.tick()
    assert pool.replicas == 1
    assert pool.condition("AbleToScale")["status"] == "True"


async def test_a_refusal_is_told_in_its_own_words(scene: Opener) -> None:
    pool = scene()
    await pool.tick()
    await pool.submit(5)

    async def refuse(*_: Any) -> None:
        raise Refused("exceeded quota: pods")

    pool.cluster.scale = refuse  # type: ignore[method-assign, assignment]
    await pool.ticks(2)
    assert pool.condition("AbleToScale") | {"lastTransitionTime": ""} == {
        "type": "AbleToScale", "status": "False", "reason": "Refused", "message": "exceeded quota: pods",
        "lastTransitionTime": "", "observedGeneration": 1,
    }  # fmt: skip


async def test_a_bad_template_is_a_condition_and_an_event(scene: Opener) -> None:
    pool = scene(template={"spec": {"containers": []}})
    await pool.ticks(2)
    assert pool.condition("Ready")["reason"] == "InvalidTemplate"
    assert "needs at least one container" in pool.condition("Ready")["message"]
    assert pool.told == ["InvalidTemplate"]


async def test_a_template_that_the_cluster_refuses_is_a_condition_and_an_event_too(scene: Opener) -> None:
    pool = scene()

    async def refuse(*_: Any) -> None:
        raise Refused("containerPort: must be between 1 and 65535")

    pool.cluster.apply = refuse  # type: ignore[method-assign, assignment]
    await pool.ticks(3)
    assert pool.condition("Ready")["reason"] == "Refused"
    assert pool.told == ["InvalidTemplate"]
    assert pool.cluster.news[0].message == "containerPort: must be between 1 and 65535"


async def test_the_status_says_why(scene: Opener) -> None:
    pool = scene()
    await pool.submit(42)
    await pool.ticks(8)
    status = pool.cluster.statuses["emails"]
    assert status["pending"] == 42
    assert status["desiredReplicas"] == 1
    assert status["decision"]["message"] == "42 pending × 1 s / 5 s = 8.4 slots, 10 a replica"
    assert status["selector"] == "headrace.dev/pool=emails"


async def test_a_quiet_pool_is_not_written_again(scene: Opener) -> None:
    pool = scene()
    await pool.ticks(3)
    shown = pool.cluster.statuses["emails"]
    await pool.ticks(30)
    assert pool.cluster.statuses["emails"] is shown
    assert pool.cluster.writes == [("apply", KEY)]


async def test_external_follows_spec_replicas_and_still_drains(scene: Opener) -> None:
    pool = scene(mode="External", replicas=3)
    await pool.tick()
    assert pool.replicas == 3
    await pool.work(emails_0=1, emails_1=1)
    pool.change(mode="External", replicas=1)
    await pool.tick()
    await pool.work(emails_0=1, emails_1=1)
    await pool.ticks(3)
    assert pool.replicas == 2, "the idle one went, the busy ones stay"
    assert [pod.name for pod in pool.cluster.fleet(KEY).pods] == ["emails-0", "emails-1"]


async def test_dry_run_and_paused_write_nothing(scene: Opener) -> None:
    pool = scene(mode="DryRun")
    await pool.submit(100)
    await pool.ticks(2)
    assert pool.cluster.scalings == []
    assert pool.cluster.statuses["emails"]["recommendedReplicas"] == 2
    pool.change(mode="Paused")
    await pool.ticks(2)
    assert pool.cluster.scalings == []
    pool.change(mode="Auto")
    await pool.tick()
    assert pool.cluster.scalings == [2]
    assert "Resumed" in pool.told


async def test_a_number_that_does_not_count_is_answered(scene: Opener) -> None:
    """`kubectl scale wp/emails --replicas 3` says `scaled`, whatever the mode."""
    pool = scene(replicas=3)
    await pool.ticks(2)
    said = pool.condition("ReplicasIgnored")
    assert (said["status"], said["reason"]) == ("True", "ModeAuto")
    assert said["message"] == "spec.replicas is 3, but counts in mode External only; in mode Auto headrace decides"
    assert pool.condition("Ready")["status"] == "True"
    pool.change(mode="External", replicas=3)
    await pool.ticks(2)
    assert pool.condition("ReplicasIgnored") == {}
    assert pool.replicas == 3


async def test_measured_durations_count(scene: Opener) -> None:
    """100 tasks of 10 s are another matter than 100 of 1 s."""
    pool = scene()
    await pool.submit(100)
    await pool.tick()
    assert pool.replicas == 2
    await pool.beat("emails-0", running=1, mean_s=10.0)
    await pool.ticks(2)
    assert pool.replicas == 10, "no more slots than tasks"


async def test_an_invalid_spec_leaves_what_runs(scene: Opener) -> None:
    pool = scene()
    await pool.submit(5)
    await pool.tick()
    assert pool.loop.saw_pool({**resource(2), "spec": {"queues": []}}) is not None
    await pool.tick()
    assert pool.replicas == 1
    assert pool.condition("Ready")["reason"] == "InvalidSpec"
    assert "InvalidSpec" in pool.told
