"""Busy pods are not moved to save nodes, and the marks that say so cost few requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace_operator.cluster import ClusterError
from headrace_operator.disruption import PAUSE_S, Guards, left_to_us
from headrace_operator.fleet import GUARDS, Pod, read_pod
from operator_kit import KEY, Scene


def pods(*guarded: bool) -> list[Pod]:
    return [Pod(f"p{number}", 0.0, guarded=each) for number, each in enumerate(guarded)]


def test_a_busy_pod_is_protected_at_once_and_once() -> None:
    guards = Guards()
    assert guards.due(pods(False, False), {"p0"}, 100.0) == (["p0"], [])
    assert guards.due(pods(True, False), {"p0"}, 101.0) == ([], [])


def test_it_is_released_when_it_was_idle_for_a_while() -> None:
    guards = Guards()
    guards.due(pods(False), {"p0"}, 100.0)
    guards.due(pods(True), {"p0"}, 150.0)
    assert guards.due(pods(True), set(), 151.0) == ([], []), "it may be busy again in a second"
    assert guards.due(pods(True), set(), 150.0 + PAUSE_S) == ([], ["p0"])


def test_one_that_is_busy_on_and_off_is_written_once() -> None:
    guards, guarded, writes = Guards(), False, 0
    for second in range(600):
        protect, release = guards.due(pods(guarded), {"p0"} if second % 7 < 3 else set(), float(second))
        guarded = bool(protect) or (guarded and not release)
        writes += len(protect) + len(release)
    assert writes == 1


def test_no_pod_is_written_twice_within_the_pause() -> None:
    """Also if a write does not come about: the next try is then."""
    guards = Guards()
    tries = [second for second in range(100) if guards.due(pods(False), {"p0"}, float(second))[0]]
    assert tries == [0, 30, 60, 90]


def test_after_a_restart_a_guarded_pod_is_looked_at_for_a_while_before_it_is_released() -> None:
    guards = Guards()
    assert guards.due(pods(True), set(), 5.0) == ([], [])
    assert guards.due(pods(True), set(), 5.0 + PAUSE_S) == ([], ["p0"])


def test_what_is_gone_is_forgotten() -> None:
    guards = Guards()
    guards.due(pods(False), {"p0"}, 100.0)
    guards.due([], set(), 101.0)
    assert guards.due(pods(False), {"p0"}, 102.0) == (["p0"], []), "another pod of that name"


@pytest.mark.parametrize("name", GUARDS)
def test_what_the_template_says_counts(name: str) -> None:
    assert not left_to_us({"metadata": {"annotations": {name: "true"}}})
    assert left_to_us({"metadata": {"annotations": {"team": "mail"}}})
    assert left_to_us({})
    assert read_pod({"metadata": {"name": "p", "annotations": {name: "x"}}}).guarded


# in the control loop


@pytest.fixture
async def scene(redis_url: str) -> AsyncIterator[Scene]:
    made = Scene(redis_url)
    yield made
    await made.aclose()


def marks(pool: Scene) -> list[tuple[str, Any]]:
    return [(what, names) for what, names in pool.cluster.writes if "guard" in what]


async def test_a_pod_is_marked_while_it_runs_a_task(scene: Scene) -> None:
    scene.change(scaling={"minReplicas": 2})
    await scene.tick()
    for _ in range(5):
        await scene.work(emails_0=1)
        await scene.tick()
    assert marks(scene) == [("guard", ("emails-0",))]
    for _ in range(40):
        await scene.work()
        await scene.tick()
    assert marks(scene) == [("guard", ("emails-0",)), ("unguard", ("emails-0",))]


async def test_a_template_that_says_so_itself_is_left_alone(scene: Scene) -> None:
    metadata = {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}
    container = {"name": "worker", "image": "shop:1.4"}
    scene.change(
        scaling={"minReplicas": 1}, template={"metadata": metadata, "spec": {"containers": [container]}}
    )  # fmt: skip
    await scene.tick()
    await scene.work(emails_0=1)
    await scene.tick()
    assert marks(scene) == []


async def test_a_cluster_that_refuses_the_marks_holds_nothing_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise ClusterError("no")

    scene.change(scaling={"minReplicas": 1})
    monkeypatch.setattr(scene.cluster, "guard", refuse)
    await scene.tick()
    await scene.work(emails_0=1)
    await scene.submit(200)
    await scene.tick()
    assert scene.cluster.fleet(KEY).asked_for == 4
    assert scene.condition("AbleToScale")["status"] == "True"
