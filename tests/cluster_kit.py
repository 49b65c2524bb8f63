"""What the tests on a real Kubernetes share: a namespace with a Redis and an API, operators, and questions to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from api_kit import Answer, Api, running
from cluster.choice import Cluster
from command_line import Command
from headrace_cli.redis_binary import RedisBinary, find
from headrace_operator.requests import MERGE, NotThere, Requests, connect
from redis_server import RedisServer
from worker_harness import eventually

PASSWORD: Final = "s3cret: @/"  # characters that a URL must quote
CRDS: Final = Path(__file__).parent.parent / "crds"
LONG_S: Final = 60.0
Json = dict[str, Any]
T = TypeVar("T")
DOWN_AT_ONCE: Final[Json] = {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [
    {"type": "Percent", "value": 100, "periodSeconds": 1}]}}  # fmt: skip
"""Behavior of a pool that shrinks as soon as it can, so that no test waits for a window."""


class NearRedis(RedisServer):
    """A server that pods reach too."""

    def __init__(self, address: str) -> None:
        binary = next(each for each in find() if isinstance(each, RedisBinary))
        listen = ["--bind", "127.0.0.1", address]
        super().__init__(binary, password=PASSWORD, appendfsync="everysec", args=listen)
        self.near = self.url.replace("@127.0.0.1:", f"@{address}:")


class NearKubectl:
    """`kubectl` in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._command = [cluster.kubectl, f"--kubeconfig={cluster.kubeconfig}", f"--namespace={namespace}"]

    async def __call__(self, *arguments: str, given: Json | None = None, fails: bool = False) -> str:
        """What it prints; with `fails`, what it says when it refuses. It must do what is expected of it."""
        done = await asyncio.to_thread(self._run, arguments, given)
        assert (done.returncode != 0) is fails, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    def command(self, *arguments: str) -> list[str]:
        """The words to start it with."""
        return [*self._command, *arguments]

    def _run(self, arguments: tuple[str, ...], given: Json | None) -> subprocess.CompletedProcess[str]:
        text = None if given is None else json.dumps(given)
        command = self.command(*arguments)
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=90)


@dataclass(repr=False)
class World:
    """A namespace of the cluster, and what belongs to it."""

    cluster: Cluster
    namespace: str
    redis: NearRedis
    api: Api
    requests: Requests
    kubectl: NearKubectl

    # what people do

    async def pool(self, name: str = "emails", *, fails: bool = False, **changes: Any) -> str:
        """Apply a WorkerPool. Returns what kubectl says."""
        return await self.kubectl("apply", "-f", "-", given=self.manifest(name, **changes), fails=fails)

    def manifest(self, name: str = "emails", **changes: Any) -> Json:
        """The five lines of a WorkerPool, with a scaling that tests need not wait for. `container` is merged in."""
        container = changes.pop("container", {})
        worker = {
            "name": "worker", "image": self.cluster.image, "imagePullPolicy": "Never",
            "args": ["worker", "--app", "clusterapp"], **container,
        }  # fmt: skip
        scaling = {"maxReplicas": 20, "idleSeconds": 1, "behavior": DOWN_AT_ONCE} | changes.pop("scaling", {})
        spec = {
            "queues": [{"name": "default"}], "scaling": scaling, "worker": {"concurrency": 1},
            "template": {"spec": {"containers": [worker]}}, **changes,
        }  # fmt: skip
        return {
            "apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "spec": spec,
            "metadata": {"name": name, "namespace": self.namespace},
        }  # fmt: skip

    @contextmanager
    def operating(self, **environ: str) -> Iterator[Command]:
        """An operator outside of the cluster, for this namespace."""
        told = {
            "HEADRACE_URL": self.redis.url, "KUBECONFIG": str(self.cluster.kubeconfig),
            "HEADRACE_OPERATOR_NAMESPACES": self.namespace, "HEADRACE_OPERATOR_METRICS_PORT": "0",
            "HEADRACE_OPERATOR_METRICS_HOST": "127.0.0.1",
        }  # fmt: skip
        with Command("operator", cwd=self.redis.folder, terminal=False, **(told | environ)) as operator:
            try:
                yield operator
            except BaseException as error:
                error.add_note(f"the operator said:\n{operator.output[-10_000:]}")
                raise
            if operator.process.poll() is None:
                operator.send(signal.SIGTERM)
                assert operator.end() == 0, operator.output

    async def submit(self, type: str, payload: Json | None = None, **more: Any) -> str:
        """One task over HTTP. Returns its id."""
        body = {"type": type, "payload": payload or {}, **more}
        return await self.api.submitted(body)

    async def submit_many(self, type: str, payload: Json, count: int, queue: str = "default") -> list[str]:
        """A batch over HTTP."""
        tasks = [{"type": type, "payload": payload, "queue": queue} for _ in range(count)]
        answer: Answer = await self.api.ask("POST", "/api/v1/tasks:batch", json={"tasks": tasks})
        assert answer.status == 201, answer.text
        return [each["task_id"] for each in answer.json["tasks"]]

    # what people see

    async def get(self, kind: str, name: str = "emails") -> Json | None:
        """An object of this namespace; None if there is none."""
        path = f"{PATHS[kind]}/namespaces/{self.namespace}/{kind}/{name}"
        try:
            return await self.requests.send("GET", path)
        except NotThere:
            return None

    async def replicas(self, name: str = "emails") -> int | None:
        """What the Deployment is asked for; None if there is none."""
        found = await self.get("deployments", name)
        return None if found is None else int(found["spec"]["replicas"])

    async def pods(self) -> list[Json]:
        """All that are not on their way out, the newest last."""
        found = await self.requests.send("GET", f"/api/v1/namespaces/{self.namespace}/pods")
        there = [each for each in found["items"] if "deletionTimestamp" not in each["metadata"]]
        return sorted(there, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def condition(self, type: str, name: str = "emails") -> Json:
        """One condition of a pool; empty if it has none of that type."""
        found = await self.get("workerpools", name)
        conditions = ((found or {}).get("status") or {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == type), {})

    async def reasons(self) -> set[str]:
        """Of all Events about pools here."""
        found = await self.requests.send("GET", f"/api/v1/namespaces/{self.namespace}/events")
        return {each["reason"] for each in found["items"] if each["involvedObject"]["kind"] == "WorkerPool"}

    async def scale_by_hand(self, kind: str, replicas: int, name: str = "emails") -> None:
        """As anybody would who writes the scale subresource."""
        path = f"{PATHS[kind]}/namespaces/{self.namespace}/{kind}/{name}/scale"
        await self.requests.send("PATCH", path, {"spec": {"replicas": replicas}}, kind=MERGE)

    # what tests wait for

    async def at(self, replicas: int, name: str = "emails", timeout_s: float = LONG_S) -> None:
        """Until the Deployment is asked for so many."""
        await until(lambda: self.replicas(name), lambda seen: seen == replicas, f"{replicas} replicas", timeout_s)

    async def ended(self, task_id: str, timeout_s: float = LONG_S) -> Any:
        """The task, once it has ended."""
        good = ("completed", "failed", "cancelled")
        return await until(
            lambda: self.api.task(task_id), lambda seen: seen["status"] in good, f"the end of {task_id}", timeout_s
        )

    async def begun(self, task_id: str, timeout_s: float = LONG_S) -> Any:
        """The task, once it runs."""
        return await until(
            lambda: self.api.task(task_id), lambda seen: seen["status"] == "processing", f"{task_id} runs", timeout_s
        )

    async def all_completed(self, count: int, timeout_s: float = LONG_S) -> Json:
        """The stats, once so many tasks were completed and nothing is left."""

        def good(seen: Json) -> bool:
            return bool(seen["completed"] >= count and seen["pending"] == seen["processing"] == 0)

        return await until(self.stats, good, f"{count} completed tasks", timeout_s)

    async def stats(self) -> Json:
        """Counts of all queues."""
        answer = await self.api.get("/api/v1/stats")
        found: Json = answer.json
        return found

    def kill_worker(self, pod: str) -> None:
        """kill -9 of the first process of a pod's container, from outside."""
        mark = f"WORKER_ID={pod}\0".encode()
        found = [int(file.parent.name) for file in Path("/proc").glob("[0-9]*/environ") if mark in _bytes(file)]
        assert found, f"{pod} has no process on this machine"
        os.kill(min(found), signal.SIGKILL)


PATHS: Final = {
    "workerpools": "/apis/headrace.dev/v1alpha1", "deployments": "/apis/apps/v1", "pods": "/api/v1",
    "poddisruptionbudgets": "/apis/policy/v1", "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "leases": "/apis/coordination.k8s.io/v1",
}  # fmt: skip


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


async def until(
    look: Callable[[], Awaitable[T]],
    good: Callable[[T], bool],
    what: str,
    timeout_s: float = LONG_S,
) -> T:
    """What `look` gives, once that is good; the failure tells the last look."""
    deadline, seen = time.monotonic() + timeout_s, await look()
    while not good(seen):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last seen: {seen}"
        await asyncio.sleep(0.03)
        seen = await look()
    return seen


@asynccontextmanager
async def world(cluster: Cluster, **settings: Any) -> AsyncIterator[World]:
    """A fresh namespace with its Secret, its Redis and an API; afterwards all of it is removed."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    kubectl = NearKubectl(cluster, namespace)
    requests = await connect(str(cluster.kubeconfig))
    try:
        with NearRedis(cluster.address) as redis:
            await kubectl("apply", "-f", "-", given=_objects(namespace, redis.near))
            async with running(redis.url, **settings) as api:
                made = World(cluster, namespace, redis, api, requests, kubectl)
                await eventually(lambda: _has_account(requests, namespace))
                try:
                    yield made
                finally:
                    await _remove(kubectl, namespace)
    finally:
        await requests.aclose()


def _objects(namespace: str, url: str) -> Json:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "headrace-redis", "namespace": namespace}}
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        secret | {"stringData": {"url": url}},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


async def _has_account(requests: Requests, namespace: str) -> bool:
    """Pods are refused before the controllers have made the namespace's account."""
    try:
        await requests.send("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
    except NotThere:
        return False
    return True


async def _remove(kubectl: NearKubectl, namespace: str) -> None:
    """Without waiting for the end of pods: what still runs is of no use, but it would take until its grace ends."""
    await kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
    await kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")


def install(cluster: Cluster) -> None:
    """The CRDs of this tree."""
    command = [cluster.kubectl, f"--kubeconfig={cluster.kubeconfig}"]
    subprocess.run(
        [*command, "apply", "--server-side", "--force-conflicts", "-f", str(CRDS)], check=True, capture_output=True
    )
    wait = ["wait", "--for=condition=Established", "--timeout=30s", "crd/workerpools.headrace.dev"]
    subprocess.run([*command, *wait], check=True, capture_output=True)
