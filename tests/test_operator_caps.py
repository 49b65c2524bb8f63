"""Caps of cluster and namespace hold for all pools together, whoever names the number of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from headrace.broker.broker import Queue
from headrace.broker.demand import Demand
from headrace_operator.caps import Caps, share
from headrace_operator.fleet import Key
from headrace_operator.looker import Place
from operator_kit import KEY, Opener, Scene, resource, submit_to

OTHER = Key(KEY.namespace, "other")
ELSEWHERE = Key("elsewhere", "emails")


@pytest.mark.parametrize(
    ("caps", "held", "granted"),
    [
        (Caps(), 8, {}),
        (Caps(cluster=10), 8, {OTHER: 1, ELSEWHERE: 1}),
        (Caps(cluster=10), 12, {OTHER: 0, ELSEWHERE: 0}),
        (Caps(namespace=10), 8, {OTHER: 2, ELSEWHERE: 9}),
        (Caps(cluster=12, namespace=10), 8, {OTHER: 2, ELSEWHERE: 2}),
    ],
)
def test_what_pools_have_that_are_left_alone_is_theirs(caps: Caps, held: int, granted: dict[Key, int]) -> None:
    assert share(caps, {OTHER: 9, ELSEWHERE: 9}, {KEY: held}) == granted


def other(**spec: Any) -> dict[str, Any]:
    raw = resource(queues=[{"name": "other"}], **spec)
    raw["metadata"] |= {"name": OTHER.name, "uid": "uid-2"}
    return raw


async def with_another(pool: Scene, waiting: int) -> None:
    pool.loop.saw_pool(other())
    await submit_to(pool.client, Queue("other"), waiting)


async def test_a_number_that_somebody_names_is_cut_and_that_is_told(scene: Opener) -> None:
    pool = scene(mode="External", replicas=50)
    pool.restart(Caps(cluster=10))
    await pool.tick()
    assert pool.cluster.scalings == [10]
    limited = pool.condition("ScalingLimited")
    assert (limited["status"], limited["reason"]) == ("True", "Capped")
    assert limited["message"] == "mode External: spec.replicas is 50, the caps of namespace and cluster leave 10"
    assert "ScalingLimited" in pool.told
    pool.restart(Caps(cluster=60))
    await pool.tick()
    assert pool.cluster.scalings == [10, 50], "maxReplicas does not count in this mode"


async def test_a_pool_in_dry_run_takes_nothing_from_others_for_what_it_would_have(scene: Opener) -> None:
    pool = scene(mode="DryRun")
    pool.restart(Caps(cluster=10))
    await pool.submit(2_000)
    await with_another(pool, waiting=2_000)
    await pool.tick()
    assert (pool.replicas, pool.cluster.fleet(OTHER).asked_for) == (0, 10)


@pytest.mark.parametrize("mode", ["DryRun", "Paused"])
async def test_what_a_pool_has_that_is_left_alone_is_not_given_away(scene: Opener, mode: str) -> None:
    pool = scene(mode="External", replicas=8)
    await pool.tick()
    pool.change(mode=mode)
    pool.restart(Caps(cluster=10))
    await with_another(pool, waiting=2_000)
    await pool.ticks(2)
    assert (pool.replicas, pool.cluster.fleet(OTHER).asked_for) == (8, 2)


async def test_what_a_pool_in_dry_run_would_have_without_redis_is_taken_from_nobody(
    scene: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(places: Iterable[Place]) -> dict[Place, Demand | Exception]:
        found = await whole(places)
        return {place: OSError("away") if place.queue == "default" else seen for place, seen in found.items()}

    pool = scene(mode="DryRun", scaling={"fallback": {"policy": "Static", "replicas": 8, "failureThreshold": 1}})
    pool.restart(Caps(cluster=10))
    await with_another(pool, waiting=2_000)
    whole = pool.looker.look
    monkeypatch.setattr(pool.looker, "look", look)
    await pool.ticks(2)
    assert (pool.replicas, pool.cluster.fleet(OTHER).asked_for) == (0, 10)
