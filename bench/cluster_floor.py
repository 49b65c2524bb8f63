"""What a pool is measured beside: a Deployment of the very same pods, which a person scales by hand."""

from __future__ import annotations

from typing import Final

from cluster_kit import World, until

POOL: Final = "emails"
QUEUE: Final = "default"
FLOOR: Final = "floor"
"""Its queue has the same name."""


async def quiet(made: World) -> None:
    """Pool and floor at zero, and no pod left that would take the machine's time."""
    await made.pool()
    await until(lambda: made.condition("Ready"), lambda seen: seen.get("reason") == "Idle", "an idle pool")
    await _floor(made)
    await until(lambda: _pods(made), lambda count: count == 0, "no pods", 120)


async def _floor(made: World) -> None:
    """A Deployment of the pool's own pods, for a queue of its own, that no operator knows."""
    if await made.get("deployments", FLOOR) is not None:
        await made.scale_by_hand("deployments", 0, FLOOR)
        return
    template = ((await made.get("deployments")) or {})["spec"]["template"]
    template["metadata"]["labels"] = {"app": FLOOR}
    [worker] = template["spec"]["containers"]
    worker["env"] = [each for each in worker["env"] if each["name"] != "HEADRACE_QUEUES"]
    worker["env"].append({"name": "HEADRACE_QUEUES", "value": FLOOR})
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": FLOOR}}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": FLOOR}, "spec": spec}
    await made.requests.send("POST", f"/apis/apps/v1/namespaces/{made.namespace}/deployments", body)


async def _pods(made: World) -> int:
    found = await made.requests.send("GET", f"/api/v1/namespaces/{made.namespace}/pods")
    return len(found["items"])
