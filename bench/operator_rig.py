"""What the bench of the operator stands on: a cluster with pools, two Redis, and the operator, a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace_cli.child import Guard
from headrace_cli.ports import free_port
from headrace_cli.redis_binary import RedisBinary, find

from .errors import MeasureError
from .operator_figures import Reading, caught_up, reachable, total
from .server import Server

NAMESPACE: Final = "headrace-bench-pools"
OTHER: Final = "other"
"""The second connection, of every second pool."""
CLOCK: Final = os.sysconf("SC_CLK_TCK")
QUIET_S: Final = 10.0
"""Without a request the operator is at rest."""
PATIENCE_S: Final = 600.0
AT_ONCE: Final = {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": []}}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """Whose administrator we are."""

    kubeconfig: str
    program: str = "kubectl"
    own: bool = False
    """It ends with the bench, so nothing in it need be deleted."""

    def command(self, *arguments: str) -> list[str]:
        return [self.program, f"--kubeconfig={self.kubeconfig}", *arguments]

    def kubectl(self, *arguments: str, given: Any = None) -> str:
        text = None if given is None else json.dumps(given)
        done = subprocess.run(self.command(*arguments), input=text, text=True, capture_output=True, check=False)
        if done.returncode:
            raise MeasureError(f"kubectl {' '.join(arguments[:3])}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def items(self, kind: str) -> list[Any]:
        """All of a kind that the pools have."""
        found: list[Any] = json.loads(self.kubectl("-n", NAMESPACE, "get", kind, "-o", "json"))["items"]
        return found


@contextmanager
def cluster(kubeconfig: str | None) -> Iterator[Cluster]:
    """The given one, or a control plane of its own: etcd, API server and controllers, and no node."""
    if kubeconfig is not None:
        yield Cluster(kubeconfig)
        return
    try:
        import control_plane
        from cluster import programs
    except ImportError:
        raise MeasureError("Without --kubeconfig this wants PYTHONPATH=tests; `make bench-operator` sets it.") from None
    if reason := control_plane.why_not():
        raise MeasureError(f"{reason[0].upper()}{reason[1:]}; or name a cluster by --kubeconfig.")
    with tempfile.TemporaryDirectory(prefix="headrace-plane-") as folder:
        plane = control_plane.ControlPlane(Path(folder) / "plane")
        try:
            plane.start()
            yield Cluster(str(plane.kubeconfig()), str(programs.folder() / "kubectl"), own=True)
        finally:
            plane.stop()


@dataclass(frozen=True)
class Pools:
    """So many, each on a queue of its own name. Every second one is on the other Redis."""

    count: int

    @property
    def names(self) -> list[str]:
        return [f"pool-{number:04}" for number in range(self.count)]

    @property
    def ours(self) -> list[str]:
        """Those of the default connection."""
        return self.names[::2]

    @property
    def others(self) -> list[str]:
        return self.names[1::2]

    def resources(self) -> list[Any]:
        return [
            *(resource(name, "default") for name in self.ours),
            *(resource(name, OTHER) for name in self.others),
        ]


def resource(name: str, connection: str) -> Any:
    """A WorkerPool that stops its pods as soon as nothing is to do."""
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "queues": [{"name": name}],
            "redis": {"connection": connection},
            "scaling": {"maxReplicas": 20, "idleSeconds": 0, "behavior": AT_ONCE},
            "template": {"spec": {"containers": [{"name": "worker", "image": "shop:1.4"}]}},
        },
    }


@contextmanager
def made(cluster: Cluster, pools: Pools) -> Iterator[None]:
    """A namespace with these pools."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.kubectl("create", "-f", "-", given=space)
    try:
        cluster.kubectl("create", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": pools.resources()})
        yield
    finally:
        if not cluster.own:
            cluster.kubectl("delete", "namespace", NAMESPACE)


@dataclass(frozen=True)
class Rig:
    """All that is measured, at work."""

    cluster: Cluster
    pools: Pools
    redis: Server
    other: Server
    pid: int
    """Of the operator."""
    metrics: Callable[[], str]
    say: Say

    def read(self) -> Reading:
        """All counters now."""
        servers = (self.redis, self.other)
        return Reading(
            time.monotonic(), cpu_s(self.pid), sum(each.cpu_s() for each in servers), sum(map(commands, servers)),
            self.metrics(),
        )  # fmt: skip

    def rss_mib(self) -> float:
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1_024

    def settle(self, quiet_s: float = QUIET_S) -> None:
        """Wait until all pools are looked at, no request was made for a while, and the controllers are done."""
        asked, since_s, end_s = -1.0, time.monotonic(), time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            text = self.metrics()
            known, now = reachable(text), total(text, "headrace_operator_api_requests_total")
            if known < self.pools.count or now != asked:
                self.say(f"{self.pools.count} pools: {known} looked at, {now:.0f} requests made")
                asked, since_s = now, time.monotonic()
            elif time.monotonic() - since_s > quiet_s and caught_up(self.cluster.items("deployments"), known):
                return
            time.sleep(1)
        raise MeasureError(f"the operator did not come to rest with {self.pools.count} pools within {PATIENCE_S:.0f} s")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The operator does nothing meanwhile."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:13]) / CLOCK


def commands(redis: Server) -> float:
    """Commands that clients sent so far, of those that the operator and workers send."""
    calls = redis.redis.info("commandstats")
    return float(sum(row["calls"] for name, row in calls.items() if name in {"cmdstat_evalsha", "cmdstat_xread"}))


@contextmanager
def rig(kubeconfig: str | None, pools: Pools, say: Say) -> Iterator[Rig]:
    """Everything started, and nothing waited for yet."""
    binary = next((each for each in find() if isinstance(each, RedisBinary)), None)
    if binary is None:
        raise MeasureError("There is no redis-server here.")
    with ExitStack() as stack:
        redis, other = stack.enter_context(Server(binary)), stack.enter_context(Server(binary))
        say("a cluster starts")
        where = stack.enter_context(cluster(kubeconfig))
        say(f"{pools.count} pools are made")
        stack.enter_context(made(where, pools))
        pid, metrics = stack.enter_context(_operator(where, redis, other))
        yield Rig(where, pools, redis, other, pid, metrics, say)


@contextmanager
def _operator(cluster: Cluster, redis: Server, other: Server) -> Iterator[tuple[int, Callable[[], str]]]:
    """The process and its metrics."""
    port = free_port()
    environ = os.environ | {
        "HEADRACE_URL": f"redis://127.0.0.1:{redis.port}",
        f"HEADRACE_OPERATOR_CONNECTION_{OTHER.upper()}": f"redis://127.0.0.1:{other.port}",
        "HEADRACE_OPERATOR_NAMESPACES": NAMESPACE,
    }
    program = [sys.executable, "-m", "headrace_cli", "operator", "--kubeconfig", cluster.kubeconfig]
    with (redis.folder / "operator.log").open("wb") as log:
        process = subprocess.Popen([*program, "--metrics-port", str(port)], env=environ, stdout=log, stderr=log)
    with Guard(process.pid):
        try:
            yield process.pid, lambda: _ask(process, port, redis.folder / "operator.log")
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _ask(process: subprocess.Popen[bytes], port: int, log: Path) -> str:
    """Its metrics; it may be about to start."""
    end_s = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
                return str(answer.read().decode())
        except OSError:
            if process.poll() is not None or time.monotonic() > end_s:
                said = log.read_text(errors="replace")[-1_000:]
                raise MeasureError(f"the operator does not answer; it said: {said}") from None
            time.sleep(0.1)


def labelled_pods(items: Sequence[Any], label: str) -> dict[str, str]:
    """Value of the label → a pod that has it and is not on its way out."""
    staying = [each for each in items if "deletionTimestamp" not in each["metadata"]]
    return {each["metadata"]["labels"][label]: each["metadata"]["name"] for each in staying}
