"""The chart on a real cluster: install, use, upgrade under load, roll back, uninstall, install again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from awaited import until
from chart_kit import BEFORE, NOW, Release, earlier, release, under_load
from cluster import helm
from cluster.choice import Cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(helm.missing()), reason=f"Helm cannot be built: {', '.join(helm.missing())} is missing"),
    pytest.mark.timeout(900, func_only=True),  # the first run builds Helm
]


@pytest.fixture
def chart(cluster: Cluster) -> Iterator[Release]:
    """A namespace in which nothing is installed yet."""
    with release(cluster) as made:
        yield made


def pool(of: Release) -> dict[str, Any]:
    worker = {
        "name": "worker", "image": of.cluster.image, "imagePullPolicy": "Never",
        "args": ["worker", "--app", "clusterapp"],
    }  # fmt: skip
    down = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]}
    spec = {
        "queues": [{"name": "default"}], "worker": {"concurrency": 1}, "template": {"spec": {"containers": [worker]}},
        "scaling": {"maxReplicas": 2, "idleSeconds": 1, "behavior": {"scaleDown": down}},
    }  # fmt: skip
    return {"apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "emails"}, "spec": spec}


def replicas(of: Release) -> int | None:
    found = of.get("deployment", "emails")
    return None if found is None else int(found["spec"]["replicas"])


def test_a_release_from_its_first_to_its_last_day(chart: Release, tmp_path: Path) -> None:
    make_secret(chart)
    # The test's cluster has the CRD already, by kubectl.
    notes = chart.deploy("install", "--wait", "--take-ownership", "--force-conflicts", chart=earlier(tmp_path))
    assert "helm test headrace" in notes and "NOT FOR PRODUCTION" in notes
    assert BEFORE in crd(chart)
    assert "Phase:" in chart.helm("test", "headrace")
    chart.kubectl("apply", "-f", "-", given=pool(chart))
    until(lambda: replicas(chart), lambda seen: seen == 0, "the pool rests")
    with chart.forwarded() as ask:
        assert ended(ask, submit(ask, 0.1))["status"] == "completed"
        until(lambda: replicas(chart), lambda seen: seen == 0, "the pool rests again")
        running = submit(ask, 25)
        until(lambda: ask("GET", f"/api/v1/tasks/{running}"), lambda seen: seen["status"] == "processing", "it runs")

    with under_load(chart) as told:
        several = ("operator.replicas=2", "operator.leaderElection.enabled=true", "api.replicas=2")
        chart.deploy("upgrade", "--wait", *(part for value in several for part in ("--set", value)))
        assert NOW in crd(chart)
        assert chart.get("lease", "headrace-operator") is not None
        chart.helm("rollback", "headrace", "1", "--wait")
    assert BEFORE in crd(chart)
    api = chart.get("deployment", "headrace-api")
    assert api is not None and api["spec"]["replicas"] == 1
    with chart.forwarded() as ask:
        task = ended(ask, running)
        assert (task["status"], task["interruptions"], task["crashes"]) == ("completed", 0, 0)
        assert len(told["accepted"]) > 50, told
        for each in told["accepted"]:
            task = ended(ask, each)
            assert (task["status"], task["attempts"]) == ("completed", 1), task
        stats = ask("GET", "/api/v1/stats")
        assert stats["completed"] == len(told["accepted"]) + 2, "more was done than was accepted"

    other_namespace(chart)
    last_day(chart)


def other_namespace(first: Release) -> None:
    """A second release beside it, by somebody who owns one namespace and may do nothing in the cluster."""
    with release(first.cluster) as second:
        make_secret(second)
        owner = f"system:serviceaccount:{second.namespace}:owner"
        everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "owner"}}
        second.kubectl("apply", "-f", "-", given=role | {"rules": [everything]})
        second.kubectl("create", "rolebinding", "owner", "--role=owner", f"--serviceaccount={second.namespace}:owner")
        second.deploy("install", "--wait", "--set", "crds.enabled=false", f"--kube-as-user={owner}")
        second.kubectl("apply", "-f", "-", given=pool(second))
        with second.forwarded() as ask:
            assert ended(ask, submit(ask, 0.1))["status"] == "completed"
        until(lambda: replicas(second), lambda seen: seen == 0, "the pool of the second rests again")
        until(lambda: replicas(first), lambda seen: seen == 0, "the pool of the first rests")
        account = f"--as=system:serviceaccount:{second.namespace}:headrace-operator"
        for verb, resource in (("list", "workerpools"), ("watch", "pods"), ("patch", "deployments")):
            assert may(second, verb, resource, account)
            assert not may(first, verb, resource, account)


def last_day(chart: Release) -> None:
    """Uninstalled, its CRD, pools and workers stay; installed again, it has them."""
    before = chart.get("deployment", "emails")
    assert before is not None
    chart.helm("uninstall", "headrace", "--wait")
    assert chart.get("deployment", "headrace-operator") is None
    assert BEFORE in crd(chart)
    assert chart.get("workerpool", "emails") is not None
    chart.deploy("install", "--wait")
    assert NOW in crd(chart)
    with chart.forwarded() as ask:
        assert ended(ask, submit(ask, 0.1))["status"] == "completed"
    after = chart.get("deployment", "emails")
    assert after is not None and after["metadata"]["uid"] == before["metadata"]["uid"]


def test_a_missing_secret_is_said_by_the_pods_until_it_is_there(chart: Release) -> None:
    """No process starts, so none crashes; when somebody makes the Secret they start by themselves."""
    refused = chart.deploy("install", "--take-ownership", "--force-conflicts", fails=True)
    [line] = re.findall(r"^kubectl create secret generic .+$", refused, re.MULTILINE)
    assert chart.helm("list", "--short") == ""
    chart.deploy("install", "--take-ownership", "--force-conflicts", "--set", "checkSecrets=false")
    for component in ("operator", "redis"):
        said = until(partial(waiting, chart, component), bool, f"{component} says what it waits for")
        assert said == 'CreateContainerConfigError: secret "headrace-redis" not found'
    events = chart.kubectl("get", "events", "--field-selector=type=Warning", "-o", "jsonpath={.items[*].message}")
    assert 'secret "headrace-redis" not found' in events
    chart.type_in(line)
    for name in ("deployment/headrace-operator", "deployment/headrace-api", "statefulset/headrace-redis"):
        chart.kubectl("rollout", "status", name, "--timeout=120s")
    pods = chart.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
    assert set(pods.split()) == {"0"}


def make_secret(of: Release) -> None:
    """By the line that helm's refusal tells."""
    refused = of.deploy("install", "--take-ownership", "--dry-run=server", fails=True)
    [line] = re.findall(r"^kubectl create secret generic .+$", refused, re.MULTILINE)
    of.type_in(line)


def crd(of: Release) -> str:
    """What the cluster says about the field that versions of the chart describe in different words."""
    found = of.get("crd", "workerpools.headrace.dev")
    assert found is not None
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    [version] = found["spec"]["versions"]
    return "description: " + str(
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["drain"]["description"]
    )


def submit(ask: Callable[..., Any], seconds: float) -> str:
    return str(ask("POST", "/api/v1/tasks", {"type": "nap", "payload": {"seconds": seconds}})["task_id"])


def ended(ask: Callable[..., Any], task_id: str) -> dict[str, Any]:
    """The task, once it has ended."""
    final = ("completed", "failed", "cancelled")
    return until(lambda: ask("GET", f"/api/v1/tasks/{task_id}"), lambda seen: seen["status"] in final, "its end", 90)


def may(of: Release, *question: str) -> bool:
    """Whether `kubectl auth can-i` says so, in the namespace of this release."""
    return of.answer("auth", "can-i", *question) == "yes"


def waiting(of: Release, component: str) -> str:
    """Why a container of this component does not start; empty if none waits for something."""
    wait = ".items[*].status.containerStatuses[*].state.waiting"
    said = f"{{{wait}.reason}}: {{{wait}.message}}"
    seen = of.kubectl("get", "pods", f"--selector=app.kubernetes.io/component={component}", "-o", f"jsonpath={said}")
    return "" if seen.endswith(": ") else seen
