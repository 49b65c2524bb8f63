"""A release of the chart on a real cluster: helm and kubectl in a namespace of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cluster import helm, host
from cluster.choice import Cluster
from cluster.programs import CACHE

CHART: Final = Path(__file__).parent.parent / "charts" / "headrace"
REDIS: Final = "localhost/redis:test"
T = TypeVar("T")
Json = dict[str, Any]


def redis_image(cluster: Cluster) -> tuple[str, ...]:
    """Values for the embedded Redis: in our own cluster an image of this machine's server, elsewhere the chart's."""
    if not cluster.here:
        return ()
    archive = _archive()
    command = ["ctr", "-a", str(host.RUN / "containerd.sock"), "-n", "k8s.io", "images", "import", str(archive)]
    subprocess.run(command, check=True, capture_output=True)
    return (
        "redis.embedded.image.registry=localhost", "redis.embedded.image.repository=redis",
        "redis.embedded.image.tag=test", "redis.embedded.image.pullPolicy=Never",
    )  # fmt: skip


def _archive() -> Path:
    """Redis' two programs and the libraries they need, and nothing else: no shell, no user."""
    archive = CACHE / "images" / "redis.tar"
    if archive.exists():
        return archive
    context = CACHE / "images" / "redis.context"
    shutil.rmtree(context, ignore_errors=True)
    for program in ("redis-server", "redis-cli"):
        found = shutil.which(program)
        assert found is not None, f"{program} is missing"
        _copy(Path(found).resolve(), context / "root/usr/bin" / program)
        listed = subprocess.run(["ldd", found], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            _copy(Path(library).resolve(), context / "root" / library.lstrip("/"))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")
    environ = os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    subprocess.run(["buildah", "bud", "--quiet", "--tag", REDIS, str(context)], env=environ, check=True)
    partial = archive.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    subprocess.run(["buildah", "push", "--quiet", REDIS, f"docker-archive:{partial}:{REDIS}"], env=environ, check=True)
    return partial.rename(archive)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@dataclass(frozen=True, slots=True)
class Release:
    """`headrace` in one namespace, watching that namespace only: others use the cluster too."""

    cluster: Cluster
    namespace: str
    values: tuple[str, ...]

    def helm(self, *arguments: str, fails: bool = False) -> str:
        """What it prints; with `fails`, what it says when it refuses."""
        where = ["--kubeconfig", str(self.cluster.kubeconfig), "--namespace", self.namespace]
        done = subprocess.run([str(helm.build()), *arguments, *where], capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}{self._why()}"
        return done.stderr if fails else done.stdout

    def deploy(self, verb: str, *more: str, fails: bool = False) -> str:
        """`helm install` or `helm upgrade` of the tree's chart."""
        values = [part for value in self.values for part in ("--set", value)]
        return self.helm(verb, "headrace", str(CHART), "--wait", "--timeout", "120s", *values, *more, fails=fails)

    def kubectl(self, *arguments: str, given: Json | None = None) -> str:
        done = subprocess.run(
            [*self._kubectl(), *arguments], input=None if given is None else json.dumps(given),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def get(self, kind: str, name: str) -> Json | None:
        found = self.kubectl("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(found) if found else None

    def type_in(self, line: str) -> None:
        """A command that a message told, as it stands."""
        folder = Path(self.cluster.kubectl).parent
        environ = os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig), "PATH": f"{folder}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", line], env=environ, check=True, capture_output=True)

    def secret(self, name: str, key: str) -> str:
        shown = f"go-template={{{{index .data {json.dumps(key)} | base64decode}}}}"
        return self.kubectl("get", "secret", name, "-o", shown)

    @contextmanager
    def forwarded(self) -> Iterator[Callable[..., Json]]:
        """The API through its Service, as the README says: (method, path, body) → answer."""
        port = host.free_port()
        command = [*self._kubectl(), "port-forward", "service/headrace-api", f"{port}:80"]
        token = self.secret("headrace-tokens", "tokens").partition(":")[2]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None and "Forwarding" in forward.stdout.readline()
                yield lambda method, path, body=None: _ask(f"http://127.0.0.1:{port}{path}", method, token, body)
            finally:
                forward.terminate()

    def _kubectl(self) -> list[str]:
        return [self.cluster.kubectl, f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={self.namespace}"]

    def _why(self) -> str:
        """What pods said, for a failed test."""
        said = [self._say("get", "pods"), self._say("get", "events")]
        components = ("operator", "api", "redis", "smoke")
        said += [
            self._say("logs", "--tail=20", f"--selector=app.kubernetes.io/component={each}") for each in components
        ]
        return "\n".join(said)

    def _say(self, *arguments: str) -> str:
        return subprocess.run([*self._kubectl(), *arguments], capture_output=True, text=True, check=False).stdout


def _ask(url: str, method: str, token: str, body: Json | None) -> Json:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
        found: Json = json.loads(answer.read())
    return found


@contextmanager
def release(cluster: Cluster) -> Iterator[Release]:
    """A namespace for it; nothing is installed yet. Afterwards all of it is removed but the CRD."""
    namespace = f"chart-{uuid.uuid4().hex[:8]}"
    registry, _, rest = cluster.image.partition("/")
    repository, _, tag = rest.partition(":")
    values = (
        f"image.registry={registry}", f"image.repository={repository}", f"image.tag={tag}", "image.pullPolicy=Never",
        f"watchNamespaces={{{namespace}}}", "redis.embedded.enabled=true", "redis.embedded.persistence.enabled=false",
        "api.replicas=1", *redis_image(cluster),
    )  # fmt: skip
    made = Release(cluster, namespace, values)
    made.kubectl("create", "namespace", namespace)
    try:
        yield made
    finally:
        made.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
        made.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")


def until(look: Callable[[], T], good: Callable[[T], bool], what: str, timeout_s: float = 60) -> T:
    """What `look` gives, once that is good; the failure tells the last look."""
    deadline, seen = time.monotonic() + timeout_s, look()
    while not good(seen):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last seen: {seen}"
        time.sleep(0.2)
        seen = look()
    return seen
