"""A release of the chart on a real cluster: helm and kubectl in a namespace of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster import helm, host, kind
from cluster.choice import Cluster
from cluster.programs import CACHE

CHART: Final = Path(__file__).parent.parent / "charts" / "headrace"
REDIS: Final = "localhost/redis:test"
Json = dict[str, Any]


def redis_image(cluster: Cluster) -> tuple[str, ...]:
    """Values for the embedded Redis: in our own cluster an image of this machine's server, elsewhere the chart's."""
    if not cluster.here:
        return ()
    _ctr("import", str(_archive()))
    return (
        "redis.embedded.image.registry=localhost", "redis.embedded.image.repository=redis",
        "redis.embedded.image.tag=test", "redis.embedded.image.pullPolicy=Never",
    )  # fmt: skip


@contextmanager
def published(of: Release) -> Iterator[None]:
    """The images that the chart names by itself are there, as if they were published, and so is a volume for Redis.

    And the CRD that the test's cluster has already belongs to this release, as if an earlier one had left it.
    """
    chart = yaml.safe_load((CHART / "values.yaml").read_text())
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    ours = f"{chart['image']['registry']}/{chart['image']['repository']}:{version}"
    crd = "customresourcedefinition/workerpools.headrace.dev"
    owner = ("meta.helm.sh/release-name=headrace", f"meta.helm.sh/release-namespace={of.namespace}")
    of.kubectl("label", "--overwrite", crd, "app.kubernetes.io/managed-by=Helm")
    of.kubectl("annotate", "--overwrite", crd, *owner)
    if not of.cluster.here:
        subprocess.run(["docker", "tag", of.cluster.image, ours], check=True)
        subprocess.run(["kind", "load", "docker-image", ours, "--name", kind.NAME], check=True, capture_output=True)
        yield
        return
    image = chart["redis"]["embedded"]["image"]
    redis_image(of.cluster)
    _ctr("tag", "--force", of.cluster.image, ours)
    _ctr("tag", "--force", REDIS, f"{image['registry']}/{image['repository']}:{image['tag']}")
    with _volume(of):
        yield


@contextmanager
def _volume(of: Release) -> Iterator[None]:
    """For the claim of the embedded Redis: the cluster of plain processes has nothing that makes volumes."""
    folder = host.RUN / "volume-of-redis"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    spec = {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": str(folder)},
        "claimRef": {"namespace": of.namespace, "name": "data-headrace-redis-0"},
    }  # fmt: skip
    of.kubectl("apply", "-f", "-", given={
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "redis"}, "spec": spec})  # fmt: skip
    try:
        yield
    finally:
        of.kubectl("delete", "persistentvolume", "redis")
        shutil.rmtree(folder)


def _ctr(*arguments: str) -> None:
    command = ["ctr", "-a", str(host.RUN / "containerd.sock"), "-n", "k8s.io", "images", *arguments]
    subprocess.run(command, check=True, capture_output=True)


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

    def deploy(self, verb: str, *more: str, chart: Path = CHART, fails: bool = False) -> str:
        """`helm install` or `helm upgrade`, by default of the tree's chart."""
        values = [part for value in self.values for part in ("--set", value)]
        return self.helm(verb, "headrace", str(chart), "--timeout", "120s", *values, *more, fails=fails)

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
        token = self.secret("headrace-redis", "tokens").partition(":")[2]
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

    def answer(self, *arguments: str) -> str:
        """What kubectl prints, whether it succeeds or not."""
        return self._say(*arguments).strip()

    def _say(self, *arguments: str) -> str:
        return subprocess.run([*self._kubectl(), *arguments], capture_output=True, text=True, check=False).stdout


def _ask(url: str, method: str, token: str, body: Json | None) -> Json:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
        found: Json = json.loads(answer.read())
    return found


def earlier(folder: Path) -> Path:
    """The chart as a version before might have been: with a CRD that says something else about one field."""
    chart = Path(shutil.copytree(CHART, folder / "headrace"))
    for name, now, before in (
        ("Chart.yaml", "version: 0.1.0", "version: 0.0.1"),
        ("files/crds/workerpools.yaml", NOW, BEFORE),
    ):
        text = (chart / name).read_text()
        assert now in text
        (chart / name).write_text(text.replace(now, before, 1))
    return chart


NOW, BEFORE = "description: How replicas are taken away.", "description: How replicas go."


@contextmanager
def under_load(of: Release) -> Iterator[Json]:
    """A pod that submits ten tasks a second through the Service; afterwards what it says: ids `accepted`, and
    `failures`, after each of which it tried the same submission again."""
    context = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    token = {"name": "TOKENS", "valueFrom": {"secretKeyRef": {"name": "headrace-redis", "key": "tokens"}}}
    container = {
        "name": "load", "image": of.cluster.image, "imagePullPolicy": "Never", "command": ["python3", "-c", LOAD],
        "env": [token], "securityContext": context, "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    spec = {
        "restartPolicy": "Never", "containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load"}, "spec": spec}
    of.kubectl("apply", "-f", "-", given=pod)
    of.kubectl("wait", "pod/load", "--for=condition=Ready", "--timeout=60s")
    told: Json = {}
    yield told
    of.kubectl("exec", "load", "--", "touch", "/tmp/stop")
    of.kubectl("wait", "pod/load", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    told.update(json.loads(of.kubectl("logs", "load").splitlines()[-1]))


LOAD: Final = """
import json, os, time, urllib.request, uuid
from pathlib import Path

token, accepted, failures = os.environ["TOKENS"].partition(":")[2], [], []
body = json.dumps({"type": "nap", "payload": {"seconds": 0.02}}).encode()
while not Path("/tmp/stop").exists():
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    headers["Idempotency-Key"] = str(uuid.uuid4())
    while True:
        try:
            request = urllib.request.Request("http://headrace-api/api/v1/tasks", body, headers)
            with urllib.request.urlopen(request, timeout=5) as answer:
                accepted.append(json.load(answer)["task_id"])
            break
        except OSError as error:
            failures.append(str(error))
            time.sleep(0.05)
    time.sleep(0.1)
print(json.dumps({"accepted": accepted, "failures": failures}))
"""


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
    made.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield made
    finally:
        made.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
        made.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")
