"""A namespace of a control plane, its pools and their queues, looked at by plain requests; and operators for it.

There is no kubelet: pods are made and deleted by the real controllers, and nothing runs in them. What their workers
would say is said by `work`, or by real ones (`operator_pods`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import roles
from control_plane import ControlPlane
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.broker.demand import WorkerBeat
from headrace.redis_settings import RedisSettings
from headrace_operator.requests import APPLY, MERGE, NotThere, Requests, connect, query
from operator_kit import AT_ONCE, FIFTY_EACH, submit_to

Json = dict[str, Any]
PATHS: Final = {
    "workerpools": "/apis/headrace.dev/v1alpha1", "deployments": "/apis/apps/v1", "pods": "/api/v1",
    "events": "/api/v1", "poddisruptionbudgets": "/apis/policy/v1",
}  # fmt: skip
TEMPLATE: Final[Json] = {"spec": {"containers": [{"name": "worker", "image": "shop:1.4"}]}}


class Yard:
    """One namespace."""

    def __init__(self, requests: Requests, redis: str, namespace: str) -> None:
        self.requests = requests
        self.redis = redis
        self.namespace = namespace
        self.client = AsyncClient(RedisSettings.parse(redis, "the test"))
        self.running: dict[str, int] = {}
        """Pod → tasks that it says it runs."""
        self._beats = 0

    # what people do

    async def pool(self, name: str = "emails", *, queue: str = "default", **spec: Any) -> Json:
        """Apply a WorkerPool that shrinks at once."""
        scaling = {"maxReplicas": 5, **FIFTY_EACH, **AT_ONCE, **spec.pop("scaling", {})}
        body = {
            "apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": name},
            "spec": {"queues": [{"name": queue}], "template": TEMPLATE, **spec, "scaling": scaling},
        }  # fmt: skip
        applied = query(self.path("workerpools", name), {"fieldManager": "people", "force": "true"})
        return await self.requests.send("PATCH", applied, body, kind=APPLY)

    async def delete(self, kind: str, name: str) -> None:
        await self.requests.send("DELETE", self.path(kind, name))

    async def patch(self, kind: str, name: str, body: Json) -> Json:
        """`name` may carry a subresource: `emails-1/status`."""
        return await self.requests.send("PATCH", self.path(kind, name), body, kind=MERGE)

    async def make_ready(self, pod: str) -> None:
        """As a kubelet says it."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
        await self.patch("pods", f"{pod}/status", {"status": {"phase": "Running", "conditions": [ready]}})

    async def submit(self, number: int, queue: str = "default", type: str = "t") -> list[str]:
        await self.client.call(Queue(queue).init())
        return await submit_to(self.client, Queue(queue), number, type)

    async def empty(self, ids: list[str], queue: str = "default") -> None:
        for each in ids:
            await self.client.call(Queue(queue).cancel(each, force=True))

    async def work(self, queue: str = "default") -> None:
        """Every pod beats; who was asked to drain says that it does."""
        asked = (await self.client.call(Queue(queue).demand(1))).asked
        self._beats += 1
        for pod in await self.pods():
            beat = WorkerBeat(self._beats, self.running.get(pod, 0), f"{pod}:1" in asked)
            await self.client.call(Queue(queue).beat(f"{pod}:1", beat.text()))

    async def staffed(self, number: int) -> bool:
        """Whether so many pods are there. They beat, and are ready: else the controllers may stop any of them first."""
        await self.work()
        names = await self.pods()
        if len(names) == number:
            for name in names:
                await self.make_ready(name)
        return len(names) == number

    # what people see

    def path(self, kind: str, name: str = "") -> str:
        return f"{PATHS[kind]}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    async def get(self, kind: str, name: str = "emails") -> Json | None:
        try:
            return await self.requests.send("GET", self.path(kind, name))
        except NotThere:
            return None

    async def all(self, kind: str) -> list[Json]:
        found: list[Json] = (await self.requests.send("GET", self.path(kind)))["items"]
        return found

    async def replicas(self, name: str = "emails") -> int:
        """What the Deployment is asked for; -1 if there is none."""
        found = await self.get("deployments", name)
        return -1 if found is None else int(found["spec"]["replicas"])

    async def pods(self) -> list[str]:
        """Names of those that are not on their way out."""
        return [each["metadata"]["name"] for each in await self.all("pods")
                if "deletionTimestamp" not in each["metadata"]]  # fmt: skip

    async def condition(self, type: str, name: str = "emails") -> Json:
        found = await self.get("workerpools", name)
        conditions = ((found or {}).get("status") or {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == type), {})

    async def at(self, replicas: int, timeout_s: float = 90.0, *, works: bool = False) -> float:
        """Until the Deployment is asked for so many. Returns the seconds that it took."""

        async def good() -> bool:
            if works:
                await self.work()
            return await self.replicas() == replicas

        return await seconds_until(good, f"{replicas} replicas", timeout_s)


async def seconds_until(good: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 90.0) -> float:
    """How long it took until that was so."""
    began_s = time.monotonic()
    while not await good():
        assert time.monotonic() - began_s < timeout_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


@asynccontextmanager
async def yard(plane: ControlPlane, redis: str) -> AsyncIterator[Yard]:
    """A fresh namespace; its pools are gone afterwards, and all that is in Redis."""
    requests = await connect(str(plane.kubeconfig()))
    made = Yard(requests, redis, f"yard-{uuid.uuid4().hex[:8]}")
    try:
        await requests.send("POST", "/api/v1/namespaces", {"metadata": {"name": made.namespace}})
        account = f"/api/v1/namespaces/{made.namespace}/serviceaccounts/default"
        await seconds_until(lambda: _is_there(requests, account), "the namespace's account")
        yield made
        await requests.send("DELETE", f"/api/v1/namespaces/{made.namespace}")
    finally:
        await made.client.command("FLUSHALL")
        await made.client.aclose()
        await requests.aclose()


async def _is_there(requests: Requests, path: str) -> bool:
    try:
        await requests.send("GET", path)
    except NotThere:
        return False
    return True


@asynccontextmanager
async def operating(
    kubeconfig: Path, at: Yard, log: Path, *, ends: bool = False, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`headrace operator` for this namespace, as a process. Unless it `ends`, it must not end by itself."""
    given = {"namespaces": at.namespace, "metrics_host": "127.0.0.1", "metrics_port": "0", **settings}
    named = {f"HEADRACE_OPERATOR_{name.upper()}": value for name, value in given.items()}
    program = [sys.executable, "-m", "headrace_cli", "operator", "--kubeconfig", str(kubeconfig)]
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *program,
            "--log-format",
            "json",
            env=os.environ | {"HEADRACE_URL": roles.url_of("operator", at.redis)} | named,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
        assert ends or process.returncode is None, "the operator ended by itself"
    except BaseException as error:
        error.add_note(f"the operator said:\n{_said(log)}")
        raise
    finally:
        if process.returncode is None:
            await _end(process)


def _said(log: Path) -> str:
    return log.read_text()[-6_000:]


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
