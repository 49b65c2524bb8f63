"""What the operator's model test found, each by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from headrace.broker.broker import WorkerSeen
from headrace_operator.caps import Caps
from headrace_operator.cluster import ClusterError, Refused
from headrace_operator.drain import Replica, Shrink, shrink
from headrace_operator.fleet import Ended, Fleet, Key
from headrace_operator.hand_on import dead_boots
from headrace_operator.kube import Watched
from headrace_operator.manifests import POOL
from headrace_operator.news import Event, News, Teller
from operator_kit import AT_ONCE, KEY, Opener, resource

NOON = 1_764_072_000.0


def boot(name: str, started_s: float) -> WorkerSeen:
    return WorkerSeen(name, "1", b'{"started_ms":%d}' % int((NOON + started_s) * 1000), 1)


def test_a_boot_that_began_in_the_second_of_the_end_lives_if_another_is_there() -> None:
    """The end at 300.1 is told as 300; the watch has not shown yet that the container runs again."""
    ended = Ended(NOON + 300, "Error", False)
    old, fresh = boot("emails-1:old", 250), boot("emails-1:new", 300.8)
    assert dead_boots([fresh, old], "emails-1", ended) == ["emails-1:old"]
    assert dead_boots([fresh], "emails-1", ended) == ["emails-1:new"], "it died as soon as it began"


def test_what_comes_and_goes_is_no_flood_of_events() -> None:
    teller, news = Teller(), News(Event.QUEUE_UNREACHABLE, "away")
    told = []
    for second in range(60):
        told += [teller.tell(news, float(second))]
        teller.over(Event.QUEUE_UNREACHABLE)
    posted = [each for each in told if each is not None]
    assert [each.message for each in posted] == ["away", "away (and 29 times before)"]


def take(replicas: list[Replica], wanted: int, asked_for: int, unseen: int = 0) -> Shrink:
    return shrink(
        replicas, wanted=wanted, asked_for=asked_for, policy="IdleOnly", now_s=0.0, timeout_s=60.0, unseen=unseen
    )


DRAINED = Replica("drained", 1.0, 0, asked_s=0.0, answered=True)
BUSY = Replica("busy", 0.0, 2)


def test_what_was_written_off_stays_asked_until_it_is_gone() -> None:
    """The number is lowered, and the cluster has not stopped the pod yet: released, it would claim and be stopped."""
    assert take([BUSY, DRAINED], wanted=1, asked_for=1).release == ()
    assert take([BUSY, DRAINED], wanted=2, asked_for=1).release == (), "only when the higher number is written"
    assert take([BUSY, DRAINED], wanted=2, asked_for=2).release == ("drained",)


def test_what_was_written_off_is_not_counted_twice() -> None:
    """The watch still shows a pod that the last write took away."""
    found = take([BUSY, Replica("other", 0.5, 1), DRAINED], wanted=1, asked_for=2)
    assert found.fewer == 0


def test_a_busy_pod_that_is_not_ready_would_be_stopped_in_place_of_a_drained_one() -> None:
    unready = replace(BUSY, ready=False)
    assert take([unready, DRAINED], wanted=1, asked_for=2).fewer == 0
    assert take([unready, replace(DRAINED, ready=False)], wanted=1, asked_for=2).fewer == 0, "it may get ready first"
    assert take([BUSY, DRAINED], wanted=1, asked_for=2).fewer == 1


def test_a_ready_pod_of_which_nothing_was_heard_may_work() -> None:
    """As after a Redis that lost its data: the beats come back within seconds, and the tasks run on."""
    assert take([Replica("quiet", 0.0, unheard=True)], wanted=0, asked_for=1).fewer == 0
    assert take([Replica("starts", 0.0, ready=False)], wanted=0, asked_for=1).fewer == 1


def test_pods_that_work_and_are_not_shown_yet_are_not_missing() -> None:
    assert take([BUSY], wanted=1, asked_for=3).missing == 2
    assert take([BUSY], wanted=1, asked_for=3, unseen=2).missing == 0


async def test_an_answer_from_before_the_request_is_none(scene: Opener) -> None:
    """Asked, released, asked again: its last beat still says that it drains, and it may have claimed since."""
    pool = scene()
    await pool.tick()
    await pool.beat("emails-1")
    client, queue = pool.client, pool.queue
    await client.call(queue.ask_to_drain(["emails-1:1"]))
    await pool.beat("emails-1")
    assert (await client.call(queue.demand(1))).answered("emails-1:1")
    await client.call(queue.release_from_drain(["emails-1:1"]))
    await client.call(queue.ask_to_drain(["emails-1:1"]))
    assert not (await client.call(queue.demand(1))).answered("emails-1:1")
    await pool.beat("emails-1")
    assert (await client.call(queue.demand(1))).answered("emails-1:1")


async def test_caps_hold_back_neither_a_restarted_operator_nor_a_floor(scene: Opener) -> None:
    pool = scene(scaling={"minReplicas": 2, "maxReplicas": 8, **AT_ONCE})
    pool.restart(Caps(cluster=5))
    await pool.tick()
    assert pool.cluster.scalings == [2], "the floor counts as a wish"
    await pool.submit(1_000)
    await pool.tick()
    assert pool.cluster.scalings == [2, 5], "and so does what is needed now"
    pool.restart(Caps(cluster=5))
    await pool.tick()
    assert pool.cluster.scalings == [2, 5]
    assert not (await pool.client.call(pool.queue.demand(1))).asked


async def test_growing_does_not_wait_for_marks(scene: Opener) -> None:
    pool = scene(scaling=AT_ONCE)
    await pool.submit(10)
    await pool.tick()
    fleet = pool.cluster.fleets[KEY]
    pool.cluster.fleets[KEY] = replace(fleet, pods=tuple(replace(pod, cheap=True) for pod in fleet.pods))
    pool.cluster.mark = refuse  # type: ignore[method-assign]
    await pool.submit(100)
    await pool.tick()
    assert pool.replicas == 3


async def refuse(*_: Any, **__: Any) -> None:
    raise Refused("admission says no")


async def test_a_refused_template_is_applied_at_growing_intervals(
    scene: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota or an admission that says no will say it again; what changes is asked for at once."""
    pool, asked = scene(scaling={"minReplicas": 1}), list[float]()
    await pool.tick()
    applies = pool.cluster.apply

    async def no(_: Any) -> None:
        asked.append(pool.now.s)
        raise Refused("admission says no")

    monkeypatch.setattr(pool.cluster, "apply", no)
    other = {"spec": {"containers": [{"name": "worker", "image": "shop:1.5"}]}}
    pool.change(scaling={"minReplicas": 1}, template=other)
    await pool.ticks(150)
    assert [late - early for early, late in pairwise(asked)] == [1, 2, 4, 8, 16, 32, 60]
    assert pool.condition("Ready")["reason"] == "Refused" and pool.replicas == 1
    pool.change(scaling={"minReplicas": 1}, worker={"concurrency": 3}, template=other)
    await pool.tick()
    assert asked[-1] == pool.now.s, "it is another wish"
    monkeypatch.setattr(pool.cluster, "apply", applies)
    await pool.tick()
    assert pool.condition("Ready")["reason"] != "Refused"


async def test_a_pool_whose_deployment_is_refused_says_so_all_the_while(
    scene: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, asked = scene(), list[float]()

    async def no(_: Any) -> None:
        asked.append(pool.now.s)
        raise Refused("exceeded quota")

    monkeypatch.setattr(pool.cluster, "apply", no)
    for _ in range(10):
        await pool.tick()
        assert "exceeded quota" in pool.condition("Ready")["message"]
    assert len(asked) == 4


async def test_a_bad_template_does_not_leave_workers_asked_to_drain(scene: Opener) -> None:
    pool = scene(scaling=AT_ONCE)
    ids = await pool.submit(10)
    await pool.tick()
    await pool.work()
    await pool.empty(ids)
    await pool.tick()
    assert (await pool.client.call(pool.queue.demand(1))).asked
    pool.change(scaling={"maxReplicas": 20, **AT_ONCE}, template={"spec": {"containers": []}})
    await pool.submit(100)
    await pool.tick()
    assert not (await pool.client.call(pool.queue.demand(1))).asked
    assert pool.replicas == 2, "what was applied before goes on"
    assert pool.condition("Ready")["reason"] == "InvalidTemplate"


async def test_a_pause_releases_whom_it_finds_asked(scene: Opener) -> None:
    pool = scene(scaling=AT_ONCE)
    ids = await pool.submit(10)
    await pool.tick()
    await pool.work()
    await pool.empty(ids)
    await pool.tick()
    pool.change(scaling=AT_ONCE, mode="Paused")
    await pool.tick()
    assert not (await pool.client.call(pool.queue.demand(1))).asked


async def test_a_write_without_an_answer_is_looked_up_before_anything_else(scene: Opener) -> None:
    pool = scene()
    await pool.submit(10)
    looked, scale = [], pool.cluster.scale

    async def lose_the_answer(key: Key, replicas: int, fleet: Fleet) -> None:
        await scale(key, replicas, fleet)
        raise ClusterError("no answer")

    async def look_again(key: Key) -> None:
        looked.append(key)

    pool.cluster.scale, pool.cluster.look_again = lose_the_answer, look_again  # type: ignore[method-assign]
    await pool.tick()
    assert looked == []
    await pool.tick()
    assert looked == [KEY]
    assert pool.cluster.scalings == [1]
    assert pool.told == ["WokeFromZero"], "it was ours, and nobody else's"
    assert pool.condition("ReplicasOwned") == {}
    assert "lastScaleTime" in pool.cluster.statuses["emails"]


async def test_a_write_that_was_lost_on_its_way_hides_no_other_writer(scene: Opener) -> None:
    pool = scene()
    await pool.submit(10)

    async def lose(*_: Any) -> None:
        raise ClusterError("no answer")

    pool.cluster.scale = lose  # type: ignore[assignment,method-assign]
    await pool.tick()
    pool.cluster.fleets[KEY] = replace(pool.cluster.fleets[KEY], asked_for=7)
    await pool.tick()
    assert "ReplicasConflict" in pool.told
    assert "0 to 7" in pool.condition("ReplicasOwned")["message"]
    # Two releases that look at all namespaces have two Leases: nothing else tells that both work.
    assert "another release's operator" in pool.condition("ReplicasOwned")["message"]


async def test_who_refuses_its_pods_is_told(scene: Opener) -> None:
    """A quota, a LimitRange, Pod Security or a webhook lets the Deployment be, and no pod of it."""
    pool = scene(scaling={**AT_ONCE, "minReplicas": 1})
    await pool.tick()
    refused = 'pods "emails-7d" is forbidden: exceeded quota: few, requested: pods=1, used: pods=3, limited: pods=3'
    pool.cluster.fleets[KEY] = replace(pool.cluster.fleets[KEY], pods=(), refused=refused)
    await pool.ticks(2)
    assert (pool.condition("Ready")["status"], pool.condition("Ready")["reason"]) == ("False", "FailedCreate")
    assert "exceeded quota" in pool.condition("PodsStart")["message"]
    pool.cluster.fleets[KEY] = replace(pool.cluster.fleets[KEY], refused="")
    await pool.ticks(2)
    assert pool.condition("Ready")["status"] == "True"


async def test_a_deployment_that_was_deleted_is_no_other_writer(scene: Opener) -> None:
    """The one that is made again begins with none, which nobody asked for."""
    pool = scene(scaling={**AT_ONCE, "minReplicas": 2})
    await pool.tick()
    assert pool.replicas == 2
    del pool.cluster.fleets[KEY]
    await pool.tick()
    assert pool.replicas == 2
    assert "ReplicasConflict" not in pool.told
    assert pool.condition("Ready")["status"] == "True"


@pytest.mark.parametrize("lost", ["the answer", "the marks"])
async def test_a_step_counts_for_the_limits_also_if_the_rest_of_it_failed(scene: Opener, lost: str) -> None:
    one_a_minute = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    behavior = {**AT_ONCE["behavior"], "scaleUp": one_a_minute}  # type: ignore[dict-item]
    pool = scene(scaling={**AT_ONCE, "minReplicas": 1, "behavior": behavior})
    await pool.tick()
    await pool.tick(61)
    scale, fleet = pool.cluster.scale, pool.cluster.fleets[KEY]

    async def lose_the_answer(key: Key, replicas: int, fleet: Fleet) -> None:
        await scale(key, replicas, fleet)
        raise ClusterError("no answer")

    if lost == "the answer":
        pool.cluster.scale = lose_the_answer  # type: ignore[method-assign]
    else:
        pool.cluster.fleets[KEY] = replace(fleet, pods=tuple(replace(pod, cheap=True) for pod in fleet.pods))
        pool.cluster.mark = refuse  # type: ignore[method-assign]
    await pool.submit(1_000)
    await pool.ticks(4)
    assert pool.cluster.scalings == [1, 2]


async def test_an_older_resource_does_not_come_back(scene: Opener) -> None:
    """A watch that goes on at an API server that is behind."""
    pool = scene(scaling={"minReplicas": 1})
    older = resource(1, scaling={"minReplicas": 1})
    pool.change(scaling={"minReplicas": 3})
    pool.loop.saw_pool(older)
    await pool.tick()
    assert pool.replicas == 3


def test_the_end_of_an_older_deployment_is_not_that_of_the_one_made_since() -> None:
    def deployment(version: str) -> dict[str, Any]:
        metadata = {"name": "emails", "namespace": "shop", "labels": {POOL: "emails"}, "resourceVersion": version}
        return {"metadata": metadata, "spec": {"replicas": 3}}

    watched = Watched()
    watched.saw_deployment(deployment("9"), deleted=False)
    watched.saw_deployment(deployment("8"), deleted=True)
    assert watched.fleet(KEY).asked_for == 3
    watched.saw_deployment(deployment("10"), deleted=True)
    assert not watched.fleet(KEY).exists
