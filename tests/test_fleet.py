"""Objects of a cluster, read: which pods stay, which ended and why, and who is dead by that."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headrace.broker.broker import WorkerSeen
from headrace_operator.fleet import COST, Ended, Key, pool_of, read_deployment, read_pod
from headrace_operator.hand_on import is_dead
from headrace_operator.kube import KubeCluster, Watched
from headrace_operator.manifests import CONTAINER

Json = dict[str, Any]


def pod(state: Json | None = None, last: Json | None = None, **more: Any) -> Json:
    status = {"containerStatuses": [{"name": "worker", "state": state or {}, "lastState": last or {}}]}
    metadata = {
        "name": "emails-1", "namespace": "shop", "creationTimestamp": "2026-11-25T12:00:00Z",
        "labels": {"headrace.dev/pool": "emails"},
    }  # fmt: skip
    return {"metadata": metadata | more.pop("metadata", {}), "status": status | more}


def ended(reason: str = "Error", code: int = 137) -> Json:
    return {"terminated": {"reason": reason, "exitCode": code, "finishedAt": "2026-11-25T12:05:00Z"}}


NOON = 1795608000.0


def test_a_running_pod() -> None:
    raw = pod({"running": {"startedAt": "2026-11-25T12:00:01Z"}}, conditions=[{"type": "Ready", "status": "True"}])
    seen = read_pod(raw)
    assert (seen.name, seen.ready, seen.leaving, seen.ended) == ("emails-1", True, False, None)
    assert seen.born_s == NOON
    assert pool_of(raw) == Key("shop", "emails")


def test_a_container_out_of_memory_is_to_blame() -> None:
    seen = read_pod(pod(ended("OOMKilled")))
    assert seen.ended == Ended(NOON + 300, "OOMKilled, exit code 137", harmless=False)


def test_an_evicted_pod_is_not() -> None:
    seen = read_pod(pod(ended(), reason="Evicted", phase="Failed"))
    assert seen.ended is not None
    assert seen.ended.harmless
    assert seen.leaving


@pytest.mark.parametrize("told", [True, False], ids=["annotated", "of before"])
def test_the_end_of_a_container_beside_the_worker_is_none_of_the_workers(told: bool) -> None:
    """A kubelet sorts the statuses by name, so the first of them need not be the first container."""
    running = {"name": "mail", "state": {"running": {"startedAt": "2026-11-25T12:00:01Z"}}, "lastState": {}}
    beside = {"name": "envoy", "state": {}, "lastState": ended("OOMKilled")}
    raw = pod(metadata={"annotations": {CONTAINER: "mail"} if told else {}}, containerStatuses=[beside, running])
    first = "istio-proxy" if told else "mail"
    raw["spec"] = {"containers": [{"name": first}, {"name": "mail"}, {"name": "envoy"}]}
    assert read_pod(raw).ended is None
    raw["status"]["containerStatuses"] = [beside]
    assert read_pod(raw).ended is None, "the worker's own is not shown yet"
    raw["status"]["containerStatuses"] = [running | {"lastState": ended("Error")}, beside | {"lastState": {}}]
    assert read_pod(raw).ended == Ended(NOON + 300, "Error, exit code 137", False, NOON + 1)


def test_one_that_left_by_itself_is_not() -> None:
    found = read_pod(pod(ended("Completed", 0))).ended
    assert found is not None
    assert found.harmless


def test_a_restarted_container_tells_when_it_began_again() -> None:
    found = read_pod(pod({"running": {"startedAt": "2026-11-25T12:05:02Z"}}, ended())).ended
    assert found is not None
    assert found.again_s == NOON + 302


def test_why_a_container_does_not_start() -> None:
    why = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "headrace-redis" not found'}}
    assert read_pod(pod(why)).waiting == 'CreateContainerConfigError: secret "headrace-redis" not found'
    assert read_pod(pod({"waiting": {"reason": "ContainerCreating"}})).waiting == ""


def test_marked_and_leaving() -> None:
    seen = read_pod(pod(metadata={"annotations": {COST: "-1"}, "deletionTimestamp": "2026-11-25T12:05:00Z"}))
    assert (seen.cheap, seen.leaving) == (True, True)


@pytest.mark.parametrize(
    ("worker", "started_s", "dead"),
    [
        ("emails-1:aa", 200, True),
        ("emails-1:bb", 300.9, True),
        ("emails-1:cc", 301.5, False),
        ("emails-2:dd", 200, False),
        ("emails-11:ee", 200, False),
    ],
)
def test_boots_from_before_the_end_are_dead(worker: str, started_s: float, dead: bool) -> None:
    """Kubernetes cuts the end off to whole seconds, 300 here; the container is not running again yet."""
    info = b'{"started_ms":%d}' % int((NOON + started_s) * 1000)
    assert is_dead(WorkerSeen(worker, "1", info, 1), "emails-1", Ended(NOON + 300, "Error", False)) is dead


def test_a_rollout_is_seen() -> None:
    def rollout(**status: int) -> bool:
        raw = {"metadata": {"generation": 2, "resourceVersion": "9"}, "spec": {"replicas": 3}, "status": status}
        return read_deployment(raw).rollout

    assert rollout(observedGeneration=1, replicas=3, updatedReplicas=3)
    assert rollout(observedGeneration=2, replicas=4, updatedReplicas=1)
    assert not rollout(observedGeneration=2, replicas=3, updatedReplicas=3)


@pytest.mark.parametrize(("reason", "told"), [("FailedCreate", "exceeded quota"), ("FailedDelete", "")])
def test_a_deployment_says_why_it_gets_no_pods(reason: str, told: str) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": "exceeded quota"}
    raw: Json = {"metadata": {"generation": 1}, "spec": {"replicas": 3}, "status": {"conditions": [failure]}}
    assert read_deployment(raw).refused == told
    raw["status"]["conditions"] = [failure | {"status": "False"}]
    assert read_deployment(raw).refused == ""


KEY = Key("shop", "emails")


def at(version: str, **annotations: str) -> Json:
    return pod(metadata={"resourceVersion": version, "annotations": annotations})


def test_a_view_from_before_a_mark_does_not_undo_it() -> None:
    watched = Watched()
    watched.saw_pod(at("7"), deleted=False)
    watched.marked_pod(at("9", **{COST: "-1"}))
    assert watched.saw_pod(at("8"), deleted=False) is None
    assert [each.cheap for each in watched.fleet(KEY).pods] == [True]
    assert watched.saw_pod(at("9", **{COST: "-1"}), deleted=False) is not None
    assert watched.saw_pod(at("10"), deleted=True) is not None
    assert watched.fleet(KEY).pods == ()


async def test_the_answer_to_a_mark_brings_no_pod_back_that_is_gone() -> None:
    watched = Watched()

    class Late:
        async def send(self, *_: Any, **__: Any) -> Json:
            watched.saw_pod(at("8"), deleted=True)
            return at("7", **{COST: "-1"})

    watched.saw_pod(at("6"), deleted=False)
    await KubeCluster(cast(Any, Late()), watched).mark(KEY, ["emails-1"], cheap=True)
    assert watched.fleet(KEY).pods == ()


def test_a_full_list_drops_ghosts() -> None:
    watched = Watched()
    watched.saw_pod(pod(), deleted=False)
    key = Key("shop", "emails")
    assert watched.fleet(key).pods
    watched.forget_others(set(), {})
    assert watched.fleet(key).pods == ()
