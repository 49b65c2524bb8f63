"""`headrace operator` as a process of its own against a control plane, and pods whose workers only beat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import roles
from control_plane import ControlPlane
from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.demand import WorkerBeat
from headrace.redis_settings import RedisSettings
from headrace.task import Envelope, encode_envelope, new_id
from headrace_operator.rbac import RIGHTS
from worker_harness import eventually

DEPLOY: Final = Path(__file__).parent.parent / "deploy"
USER: Final = "system:serviceaccount:headrace:headrace-operator"
AT_ONCE = {
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": []}}, "idleSeconds": 0,
    "targetQueueWaitSeconds": 10,
}  # fmt: skip


@contextmanager
def operator_process(
    kubeconfig: Path, redis: str, log: Path, port: int = 0, **settings: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Until the block ends; it must not have ended by itself."""
    named = {f"HEADRACE_OPERATOR_{name.upper()}": str(value) for name, value in settings.items()}
    environ = os.environ | {"HEADRACE_URL": roles.url_of("operator", redis)} | named
    program = [sys.executable, "-m", "headrace_cli", "operator", "--kubeconfig", str(kubeconfig)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*program, "--metrics-port", str(port), "--log-format", "json"], env=environ, stdout=out, stderr=out
        )
    try:
        yield process
        assert process.poll() is None, f"the operator ended by itself: {log.read_text()[-2_000:]}"
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


class Shop:
    """One pool in one namespace, its queue, and its pods."""

    def __init__(self, plane: ControlPlane, redis: str, namespace: str = "shop") -> None:
        self.plane = plane
        self.namespace = namespace
        self.queue = Queue("default")
        self.client = AsyncClient(RedisSettings.parse(redis, "the test"))
        self.running: dict[str, int] = {}
        """Pod → tasks that it runs."""
        self._counter = 0

    def kubectl(self, *arguments: str, given: Any = None, check: bool = True) -> str:
        return self.plane.kubectl("-n", self.namespace, *arguments, given=given, check=check)

    def get(self, *arguments: str) -> Any:
        return self.plane.get("-n", self.namespace, *arguments)

    def apply(self, name: str = "emails", **scaling: Any) -> None:
        template = {"spec": {"containers": [{"name": "worker", "image": "shop:1.4"}]}}
        spec = {"queues": [{"name": "default"}], "scaling": {"maxReplicas": 5, **AT_ONCE, **scaling}}
        pool = {"apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": name}}
        self.kubectl("apply", "-f", "-", given=pool | {"spec": spec | {"template": template}})

    async def submit(self, number: int) -> list[str]:
        ids = [new_id() for _ in range(number)]
        news = [NewTask(each, encode_envelope(Envelope(1, 1, each, type="t")), 1) for each in ids]
        await self.client.call(self.queue.init())
        await self.client.call(self.queue.submit(news))
        return ids

    async def empty(self, ids: list[str]) -> None:
        for each in ids:
            await self.client.call(self.queue.cancel(each, force=True))

    @property
    def pods(self) -> list[Any]:
        items = self.get("pods")["items"]
        return [each for each in items if "deletionTimestamp" not in each["metadata"]]

    def asked_for(self, name: str = "emails") -> int:
        found = self.kubectl("get", "deployment", name, "-o", "jsonpath={.spec.replicas}", check=False)
        return int(found or -1)

    def make_ready(self, pod: str) -> None:
        """As a kubelet says it, if it is still there. While one works that is not ready, nobody would be stopped."""
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.kubectl("patch", "pod", pod, "--subresource=status", "-p", json.dumps({"status": status}), check=False)

    async def work(self) -> None:
        """Every pod is ready and beats; who was asked to drain says that it does."""
        asked = (await self.client.call(self.queue.demand(1))).asked
        self._counter += 1
        for pod in self.pods:
            name = pod["metadata"]["name"]
            if pod["status"]["phase"] == "Pending":
                self.make_ready(name)
            beat = WorkerBeat(self._counter, self.running.get(name, 0), f"{name}:1" in asked)
            await self.client.call(self.queue.beat(f"{name}:1", beat.text()))

    async def until(self, good: Any, timeout_s: float = 30) -> None:
        """Pods beat all the while."""

        async def look() -> bool:
            await self.work()
            return bool(good())

        await eventually(look, timeout_s)


def account(plane: ControlPlane, file: str) -> str:
    """The token of an account that has exactly the rights of this file of deploy/."""
    plane.kubectl("delete", "clusterrole,clusterrolebinding", "headrace-operator", "--ignore-not-found")
    plane.kubectl("apply", "-f", str(DEPLOY / file))
    return plane.kubectl("-n", "headrace", "create", "token", "headrace-operator")


async def use_every_right(shop: Shop, operator: Any, before: int) -> None:
    """Up, a busy pod, a death, down, and a write that somebody else's write comes before."""
    shop.apply()
    ids = await shop.submit(100)
    await shop.until(lambda: shop.asked_for() == 2 and len(shop.pods) == 2)
    busy, other = (pod["metadata"]["name"] for pod in shop.pods)
    shop.running[busy] = 1
    await shop.until(lambda: "karpenter.sh/do-not-disrupt" in shop.get("pod", busy)["metadata"].get("annotations", {}))
    await shop.work()
    await shop.client.call(shop.queue.cycle(f"{other}:1", 1))
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2035-01-01T00:00:00Z"}}
    status = {"containerStatuses": [{
        "name": "worker", "image": "", "imageID": "", "ready": False, "restartCount": 1, "state": {"waiting": {}},
        "lastState": ended}]}  # fmt: skip
    shop.kubectl("patch", "pod", other, "--subresource=status", "-p", json.dumps({"status": status}))
    await shop.until(lambda: "TasksHandedOn" in shop.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}"))
    shop.running.clear()
    await shop.empty(ids)
    await shop.until(lambda: shop.asked_for() == 0 and not shop.pods, 60)
    for attempt in range(20):
        if any(
            each.verb == "get" and each.resource == "deployments/scale" for each in list(shop.plane.requests())[before:]
        ):
            break
        operator.send_signal(signal.SIGSTOP)
        shop.kubectl("annotate", "deployment", "emails", f"touched={attempt}", "--overwrite")
        ids = await shop.submit(1 + 10 * attempt)
        operator.send_signal(signal.SIGCONT)
        await shop.until(lambda: shop.asked_for() > 0)
        await shop.empty(ids)
        await shop.until(lambda: shop.asked_for() == 0, 60)


def check_rights(plane: ControlPlane, before: int, *, everywhere: bool) -> None:
    """By the API server's audit log after so many lines: the account was refused nothing, and used all that it may."""
    made = [each for each in list(plane.requests())[before:] if each.user == USER and each.resource]
    assert [each for each in made if each.code in {401, 403}] == []
    scopes = {"namespace", "own", "cluster"} if everywhere else {"namespace", "own"}
    granted = {
        (right.group, right.resource, verb)
        for right in RIGHTS
        if right.asked_by == "operator" and right.scope in scopes
        for verb in right.verbs
    }
    used = {(each.group, each.resource, each.verb) for each in made}
    assert used == granted, f"unused or not granted: {used ^ granted}"
