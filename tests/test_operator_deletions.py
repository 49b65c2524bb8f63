"""What people delete under the operator, of a real API server: nothing hangs, and it goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from chaos.rounds import tell
from control_plane import CRDS, ControlPlane
from headrace.broker.broker import Queue
from headrace_operator.requests import NotThere, connect
from operator_yard import Yard, operating, seconds_until, yard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]
CONVERGED_S: Final = 15.0
CRD: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workerpools.headrace.dev"


@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "one namespace"])
async def test_a_definition_that_is_deleted_and_made_again(
    at: Yard, plane: ControlPlane, tmp_path: Path, everywhere: bool
) -> None:
    """With it go all pools. What they owned may stay for a while: the cluster collects it when it knows the kind."""
    namespaces = "" if everywhere else at.namespace
    async with operating(plane.kubeconfig(), at, tmp_path / "log", namespaces=namespaces):
        await at.pool(scaling={"minReplicas": 1})
        await at.at(1)
        await at.requests.send("DELETE", CRD)
        await seconds_until(lambda: _gone(at, CRD), "no definition", 60)
        await asyncio.to_thread(plane.kubectl, "apply", "-f", str(CRDS))
        await asyncio.to_thread(plane.kubectl, "wait", "--for=condition=Established", "crd/workerpools.headrace.dev")
        await seconds_until(lambda: _takes(at), "a pool that is taken")
        took_s = await seconds_until(lambda: _is_of_its_pool(at, 2), "the new pool's Deployment", 60)
        tell(f"led on {took_s:.1f} s after the definition was back")
        assert took_s < CONVERGED_S


async def _gone(at: Yard, path: str) -> bool:
    try:
        await at.requests.send("GET", path)
    except NotThere:
        return True
    return False


async def _takes(at: Yard) -> bool:
    try:
        await at.pool(scaling={"minReplicas": 2})
    except NotThere:
        return False
    return True


async def _is_of_its_pool(at: Yard, replicas: int) -> bool:
    pool, deployment = await at.get("workerpools"), await at.get("deployments")
    if pool is None or deployment is None:
        return False
    owners = {each["uid"] for each in deployment["metadata"]["ownerReferences"]}
    return owners == {pool["metadata"]["uid"]} and deployment["spec"]["replicas"] == replicas


async def test_a_pool_that_is_deleted_while_it_drains_is_gone_and_may_come_again(
    at: Yard, plane: ControlPlane, tmp_path: Path
) -> None:
    async with operating(plane.kubeconfig(), at, tmp_path / "log"):
        await at.pool()
        ids = await at.submit(150)
        await at.at(3)
        await seconds_until(lambda: at.staffed(3), "three pods")
        await at.empty(ids)
        await seconds_until(lambda: _drains(at), "workers that are asked to drain")
        await at.delete("workerpools", "emails")
        for kind in ("workerpools", "deployments", "poddisruptionbudgets"):
            await seconds_until(lambda kind=kind: _none(at, kind), f"no {kind}", 60)  # type: ignore[misc]
        await seconds_until(lambda: _no_pods(at), "no pods", 60)
        await at.pool(scaling={"minReplicas": 2})
        assert await at.at(2) < CONVERGED_S


async def _drains(at: Yard) -> bool:
    """They do not answer, so it goes on."""
    return bool((await at.client.call(Queue("default").demand(1))).asked)


async def _none(at: Yard, kind: str) -> bool:
    return await at.get(kind) is None


async def _no_pods(at: Yard) -> bool:
    return await at.pods() == []


async def test_a_namespace_is_deleted_with_the_operator_gone(
    at: Yard, plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    """No finalizer waits for anybody."""
    async with yard(plane, plane_redis) as other:
        async with operating(plane.kubeconfig(), other, tmp_path / "log", ends=True) as process:
            await other.pool(scaling={"minReplicas": 1})
            await other.at(1)
            process.kill()
            await process.wait()
        path = f"/api/v1/namespaces/{other.namespace}"
        await at.requests.send("DELETE", path)
        took_s = await seconds_until(lambda: _gone(at, path), "no namespace", 60)
        tell(f"gone after {took_s:.1f} s")
        await at.requests.send("POST", "/api/v1/namespaces", {"metadata": {"name": other.namespace}})


async def test_a_namespace_is_deleted_under_the_operator_which_makes_nothing_in_it_again(
    at: Yard, plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    async with yard(plane, plane_redis) as other, operating(plane.kubeconfig(), other, tmp_path / "log"):
        await other.pool(scaling={"minReplicas": 1})
        await other.at(1)
        path = f"/api/v1/namespaces/{other.namespace}"
        await at.requests.send("DELETE", path)
        await seconds_until(lambda: _gone(at, path), "no namespace", 60)
        requests = await connect(str(plane.kubeconfig()))
        try:
            await requests.send("POST", "/api/v1/namespaces", {"metadata": {"name": other.namespace}})
        finally:
            await requests.aclose()
        await other.pool(scaling={"minReplicas": 2})
        assert await other.at(2) < CONVERGED_S
