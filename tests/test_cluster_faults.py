"""Faults on a real Kubernetes: workers die, Redis and the API server go away, operators are killed, pools vanish."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from cluster import host
from cluster_kit import World, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, func_only=True)]


async def test_what_a_killed_worker_ran_starts_again_at_once_with_the_cause(world: World) -> None:
    if not world.cluster.here:
        pytest.skip("processes of this cluster's pods cannot be killed from here")
    with world.operating():
        await world.pool(scaling={"minReplicas": 2})
        await until(world.pods, lambda pods: len(pods) == 2, "two pods")
        task_id = await world.submit("nap", {"seconds": 4})
        victim = (await world.begun(task_id))["worker_id"].rpartition(":")[0]
        world.kill_worker(victim)
        killed_s = time.time()
        task = await world.ended(task_id)
        assert task["status"] == "completed"
        assert (task["crashes"], task["attempts"]) == (1, 2)
        assert task["log"][0]["outcome"] == "crashed" and task["log"][0]["cause"] == "Error, exit code 137"
        assert _unix(task["log"][1]["started_at"]) - killed_s < 4
        await until(world.reasons, lambda seen: {"WorkerDied", "TasksHandedOn"} <= seen, "Events about the crash")


async def test_a_worker_without_memory_says_so_on_the_attempt(world: World) -> None:
    with world.operating():
        await world.pool(container={"resources": {"limits": {"memory": "96Mi"}}})
        task_id = await world.submit("greedy", {"mebibytes": 400, "seconds": 0}, max_retries=0)
        task = await until(lambda: world.api.task(task_id), lambda seen: seen["crashes"] > 0, "a crash")
        assert task["log"][0]["cause"] == "OOMKilled, exit code 137"


async def test_what_ran_out_of_memory_is_completed_by_a_pool_with_larger_pods(world: World) -> None:
    def limit(memory: str) -> dict[str, Any]:
        return {"resources": {"limits": {"memory": memory}}}

    with world.operating():
        await world.pool(queues=[{"name": "default", "suspects": "Leave"}], container=limit("96Mi"))
        await world.pool("large", queues=[{"name": "default", "suspects": "Only"}], container=limit("512Mi"))
        plain = await world.ended(await world.submit("nap"))
        task = await world.ended(await world.submit("greedy", {"mebibytes": 200, "seconds": 0}, max_retries=0))
        assert (task["status"], task["crashes"]) == ("completed", 1)
        first, second = task["log"]
        assert first["cause"] == "OOMKilled, exit code 137" and first["worker_id"].startswith("emails-")
        assert second["worker_id"].startswith("large-") and plain["log"][0]["worker_id"].startswith("emails-")
        await world.at(0, "large")


async def test_without_redis_nothing_is_scaled_and_it_is_said(world: World) -> None:
    with world.operating():
        await world.pool()
        task_id = await world.submit("nap", {"seconds": 8})
        await world.begun(task_id)
        before = await world.get("deployments")
        world.redis.kill()
        gone = await until(
            lambda: world.condition("QueueReachable"), lambda seen: seen.get("status") == "False", "a condition"
        )
        assert gone["reason"] == "QueueUnreachable" and "cannot be read" in gone["message"]
        assert (await world.condition("Ready"))["status"] == "False"
        world.redis.start()
        await until(lambda: world.condition("QueueReachable"), lambda seen: seen.get("status") == "True", "recovery")
        after = await world.get("deployments")
        assert before is not None and after is not None
        assert before["metadata"]["generation"] == after["metadata"]["generation"], "nobody wrote its spec"
        assert (await world.ended(task_id))["status"] == "completed"
        await world.at(0)


async def test_an_operator_killed_in_a_burst_changes_nothing_of_its_end(world: World) -> None:
    with world.operating() as first:
        await world.pool(scaling={"maxReplicas": 5, "targetQueueWaitSeconds": 1})
        await world.submit_many("nap", {"seconds": 0.5}, 100)
        await world.at(5)
        first.process.kill()
        first.end()
    with world.operating() as second:
        second.wait_for("(?i)operator")
        generation = ((await world.get("deployments")) or {})["metadata"]["generation"]
        while (await world.stats())["pending"] > 40:
            assert await world.replicas() == 5, "a restart shrinks nothing"
        assert ((await world.get("deployments")) or {})["metadata"]["generation"] == generation
        stats = await world.all_completed(100)
        assert (stats["completed"], stats["failed"]) == (100, 0)
        await world.at(0)


async def test_a_deleted_pool_leaves_nothing(world: World) -> None:
    with world.operating():
        await world.pool(scaling={"minReplicas": 1})
        await until(world.pods, lambda pods: len(pods) == 1, "a pod")
        await world.kubectl("delete", "wp", "emails", "--timeout=20s")
        for kind in ("deployments", "poddisruptionbudgets"):
            await until(lambda kind=kind: world.get(kind), lambda seen: seen is None, f"no {kind}")  # type: ignore[misc]
        await until(world.pods, lambda pods: not pods, "no pods")


async def test_a_deployment_that_somebody_deletes_comes_back_with_what_is_needed(world: World) -> None:
    """At zero with none, and not with the one that a Deployment has by default; under load with enough."""
    with world.operating():
        await world.pool()
        await world.at(0)
        before = (await world.get("deployments") or {})["metadata"]["uid"]
        await world.kubectl("delete", "deployment", "emails")
        await until(lambda: world.get("deployments"), lambda seen: is_another(seen, before), "another Deployment")
        assert await world.replicas() == 0
        assert await world.pods() == []
        task_id = await world.submit("nap", {"seconds": 2})
        await world.begun(task_id)
        await world.kubectl("delete", "deployment", "emails")
        assert (await world.ended(task_id, timeout_s=60))["status"] == "completed"
        await world.at(0)


def is_another(seen: dict[str, Any] | None, uid: str) -> bool:
    return seen is not None and seen["metadata"]["uid"] != uid


async def test_a_namespace_can_be_deleted_when_its_operator_is_gone(world: World) -> None:
    with world.operating() as operator:
        await world.pool(scaling={"minReplicas": 1})
        await until(world.pods, lambda pods: len(pods) == 1, "a pod")
        operator.process.kill()
        operator.end()
    await world.kubectl("delete", "namespace", world.namespace, "--timeout=60s")


async def test_a_template_that_is_no_pod_is_said(world: World) -> None:
    with world.operating():
        await world.pool(template={"spec": {"serviceAccountName": "boss", "containers": [{"image": "x"}]}})
        ready = await until(lambda: world.condition("Ready"), lambda seen: seen.get("status") == "False", "a condition")
        assert ready["reason"] == "InvalidTemplate" and "serviceAccountName 'boss' is refused" in ready["message"]
        await until(world.reasons, lambda seen: "InvalidTemplate" in seen, "an Event")
        assert await world.get("deployments") is None


async def test_a_template_that_the_api_server_refuses_is_said(world: World) -> None:
    """What only the server knows of pods reaches people as its own sentence, and other pools go on."""
    with world.operating():
        await world.pool("wrong", container={"imagePullPolicy": "Sometimes"})
        await world.pool()
        assert (await world.ended(await world.submit("nap")))["status"] == "completed"
        ready = await until(
            lambda: world.condition("Ready", "wrong"), lambda seen: seen.get("status") == "False", "a condition"
        )
        assert "imagePullPolicy" in ready["message"]


async def test_a_missing_secret_is_said(world: World) -> None:
    with world.operating():
        await world.pool(scaling={"minReplicas": 1}, redis={"secretName": "not-there"})
        # A kubelet whose cache is not there yet says that first, and only then what is wrong.
        ready = await until(
            lambda: world.condition("Ready"), lambda seen: seen.get("reason") == "SecretMissing", "a condition"
        )
        assert ready["status"] == "False" and 'secret "not-there" not found' in ready["message"]
        await until(world.reasons, lambda seen: "SecretMissing" in seen, "an Event")


async def test_an_api_server_that_stands_still_for_a_while_is_caught_up_with(world: World) -> None:
    if not world.cluster.here:
        pytest.skip("this cluster's API server is no process of this machine")
    [server] = [int(file.read_text()) for file in host.RUN.glob("kube-apiserver.pid")]
    with world.operating() as operator:
        await world.pool()
        await world.at(0)
        os.kill(server, signal.SIGSTOP)
        try:
            task_id = await world.submit("nap")
            operator.wait_for("does not answer|TimeoutError|[Tt]imeout")
        finally:
            os.kill(server, signal.SIGCONT)
        assert (await world.ended(task_id, timeout_s=20))["status"] == "completed"
        assert operator.process.poll() is None
        await world.at(0)


def _unix(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
