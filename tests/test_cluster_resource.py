"""The WorkerPool as a resource of a real Kubernetes: what the server takes, refuses, fills in, shows and explains."""

from __future__ import annotations

from typing import Any

import pytest

from cluster_kit import World, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, func_only=True)]

TEMPLATE = {"spec": {"containers": [{"name": "worker", "image": "shop:1.4"}]}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas must not be above maxReplicas"),
    ({"scaling": {}}, "spec.scaling.maxReplicas: Required value"),
    ({"queues": []}, "spec.queues in body should have at least 1 items"),
    ({"queues": [{"name": "a"}, {"name": "a"}]}, 'Duplicate value: {"name":"a"}'),
    ({"mode": "Manual"}, 'supported values: "Auto", "External", "DryRun", "Paused"'),
    (
        {"drain": {"policy": "Graceful"}, "worker": {"taskTimeoutSeconds": 60, "terminationGracePeriodSeconds": 30}},
        "terminationGracePeriodSeconds must be at least worker.taskTimeoutSeconds when drain.policy is Graceful",
    ),
    (
        {"scaling": {"maxReplicas": 2, "schedules": [{"name": "day", "start": "0 8 * * *", "end": "0 19 * * *"}]}},
        "a schedule needs minReplicas or maxReplicas",
    ),
]


def pool(world: World, name: str = "emails", **changes: Any) -> dict[str, Any]:
    """The shortest one, as a user writes it."""
    spec = {"queues": [{"name": "default"}], "scaling": {"maxReplicas": 20}, "template": TEMPLATE} | changes
    metadata = {"name": name, "namespace": world.namespace}
    return {"apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "metadata": metadata, "spec": spec}


async def test_the_server_refuses_what_cannot_work_in_our_words(world: World) -> None:
    for changes, sentence in REFUSED:
        said = await world.kubectl("apply", "-f", "-", given=pool(world, **changes), fails=True)
        assert sentence in said
    said = await world.kubectl("apply", "-f", "-", given=pool(world, "x" * 53), fails=True)
    assert "metadata.name may have 52 characters at most" in said


async def test_the_connection_of_a_pool_cannot_change(world: World) -> None:
    await world.kubectl("apply", "-f", "-", given=pool(world))
    said = await world.kubectl("apply", "-f", "-", given=pool(world, redis={"connection": "other"}), fails=True)
    assert "redis.connection cannot change" in said


async def test_defaults_are_filled_in(world: World) -> None:
    await world.kubectl("apply", "-f", "-", given=pool(world))
    spec = ((await world.get("workerpools")) or {})["spec"]
    assert (spec["mode"], spec["queues"][0]["weight"], spec["worker"]["concurrency"]) == ("Auto", 1, 10)
    assert (spec["scaling"]["minReplicas"], spec["scaling"]["idleSeconds"]) == (0, 60)
    assert spec["scaling"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 30
    assert spec["redis"] == {"connection": "default", "secretName": "headrace-redis"}
    assert spec["template"] == TEMPLATE, "the template is kept as it was given"


async def test_get_describe_and_explain_teach(world: World) -> None:
    with world.operating():
        await world.pool()
        await until(lambda: world.condition("Ready"), lambda seen: seen.get("reason") == "Idle", "an idle pool")
        header, row = (await world.kubectl("get", "wp")).splitlines()
        columns = ["NAME", "MODE", "MIN", "MAX", "DESIRED", "READY", "BUSY", "PENDING", "OLDEST", "STATUS", "AGE"]
        assert header.split() == columns
        assert row.split()[:-1] == ["emails", "Auto", "0", "20", "0", "0", "0", "0", "0", "Idle"]
        assert "nothing waits and nothing runs" in await world.kubectl("get", "wp", "-o", "wide")
        assert "emails" in await world.kubectl("get", "headrace"), "by category"
        described = await world.kubectl("describe", "wp", "emails")
        assert "nothing waits and nothing runs" in described and "QueueReachable" in described
    explained = await world.kubectl("explain", "wp.spec.scaling.maxReplicas")
    assert "There is no default, because an unlimited one would be a bill." in " ".join(explained.split())


async def test_an_hpa_finds_the_pods_of_a_pool(world: World) -> None:
    """It reads the scale and the selector; there are no metrics of its pods, so it then has nothing to decide with."""
    with world.operating():
        await world.pool(mode="External", replicas=1)
        await until(world.pods, lambda pods: len(pods) == 1, "a pod")
        await world.kubectl("autoscale", "wp/emails", "--min=1", "--max=5", "--cpu=50%")

        async def conditions() -> dict[str, str]:
            found = await world.get("horizontalpodautoscalers") or {}
            return {each["type"]: each["reason"] for each in found.get("status", {}).get("conditions", ())}

        # InvalidSelector, until the selector stands in the status: its first look may come before.
        knows = "FailedGetResourceMetric"
        seen = await until(conditions, lambda seen: seen.get("ScalingActive") == knows, "the HPA knows the pods")
        assert seen["AbleToScale"] == "SucceededGetScale"
        scale = await world.kubectl(
            "get", "--raw", f"/apis/headrace.dev/v1alpha1/namespaces/{world.namespace}/workerpools/emails/scale"
        )
        assert '"selector":"headrace.dev/pool=emails"' in scale
