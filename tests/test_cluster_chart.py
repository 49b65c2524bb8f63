"""The chart on a real cluster: install, use, upgrade, roll back, uninstall, install again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from chart_kit import Release, release, until
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


def test_from_an_empty_namespace_to_work_and_back(chart: Release) -> None:
    refused = chart.deploy("install", "--take-ownership", fails=True)
    lines = re.findall(r"^kubectl create secret generic .+$", refused, re.MULTILINE)
    assert len(lines) == 2, refused
    assert chart.helm("list", "--short") == ""
    for line in lines:
        chart.type_in(line)

    notes = chart.deploy("install", "--take-ownership")
    assert "helm test headrace" in notes and "NOT FOR PRODUCTION" in notes
    assert "Phase:" in chart.helm("test", "headrace")
    chart.kubectl("apply", "-f", "-", given=pool(chart))
    until(lambda: replicas(chart), lambda seen: seen == 0, "the pool rests")
    with chart.forwarded() as ask:
        first = ask("POST", "/api/v1/tasks", {"type": "nap", "payload": {"seconds": 0.1}})["task_id"]
        task = until(lambda: ask("GET", f"/api/v1/tasks/{first}"), ended, "the first task ends", 90)
        assert task["status"] == "completed"
        until(lambda: replicas(chart), lambda seen: seen == 0, "the pool rests again")
        running = ask("POST", "/api/v1/tasks", {"type": "nap", "payload": {"seconds": 12}})["task_id"]
        until(lambda: ask("GET", f"/api/v1/tasks/{running}"), lambda seen: seen["status"] == "processing", "it runs")

    chart.deploy("upgrade", "--set", "api.replicas=2", "--set", "operator.logLevel=debug")
    with chart.forwarded() as ask:
        task = until(lambda: ask("GET", f"/api/v1/tasks/{running}"), ended, "the running task ends")
        assert (task["status"], task["interruptions"], task["crashes"]) == ("completed", 0, 0)
    chart.helm("rollback", "headrace", "1", "--wait")
    api = chart.get("deployment", "headrace-api")
    assert api is not None and api["spec"]["replicas"] == 1

    crd = chart.get("crd", "workerpools.headrace.dev")
    assert crd is not None and crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    chart.helm("uninstall", "headrace", "--wait")
    assert chart.get("deployment", "headrace-operator") is None
    assert chart.get("crd", "workerpools.headrace.dev") is not None
    assert chart.get("workerpool", "emails") is not None
    assert replicas(chart) is not None

    chart.deploy("install")
    with chart.forwarded() as ask:
        last = ask("POST", "/api/v1/tasks", {"type": "nap", "payload": {"seconds": 0.1}})["task_id"]
        assert until(lambda: ask("GET", f"/api/v1/tasks/{last}"), ended, "the last task ends", 90)


def ended(task: dict[str, Any]) -> bool:
    return task["status"] in {"completed", "failed", "cancelled"}
