"""A Kubernetes control plane without a node: etcd, the API server and the controllers, for one test module.

Deployments get their pods, which nobody starts; a test says what became of them by writing their status. It can be
frozen, killed and started again without disturbing anybody, and its audit log tells every request that was made.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pytest

from cluster import certificates, programs
from headrace_cli.ports import free_port

ADMIN: Final = "admin-token"
CONTROLLERS: Final = "controllers-token"
CRDS: Final = Path(__file__).parent.parent / "crds"
_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}  # fmt: skip


def why_not() -> str:
    """Why none can be started here; '' if it can. Its programs come from `make cluster-up`."""
    done = (programs.folder() / "done").exists()
    return "" if done else "Kubernetes' programs are not built (make cluster-up builds them)"


@dataclass(frozen=True)
class Request:
    """One line of the audit log."""

    user: str
    verb: str
    group: str
    resource: str
    """With its subresource: `pods/exec`."""
    namespace: str
    code: int


class ControlPlane:
    """In `folder`, until `stop`."""

    def __init__(self, folder: Path, *admission: str) -> None:
        self.folder = folder
        self._admission = admission
        self._ports = {name: free_port() for name in ("api", "etcd", "peer")}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def port(self) -> int:
        """Of the API server, on loopback."""
        return self._ports["api"]

    def start(self) -> Self:
        """Ready when it returns, with the WorkerPool's definition."""
        (self.folder / "log").mkdir(parents=True)
        certificates.make(self.folder / "pki", ["127.0.0.1"])
        (self.folder / "audit.json").write_text(json.dumps(_POLICY))
        rows = (f"{ADMIN},admin,admin,system:masters", f"{CONTROLLERS},system:kube-controller-manager,controllers")
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")
        self.start_store()
        self.start_api()
        self.start_controllers()
        self.kubectl("apply", "-f", str(CRDS))
        self.kubectl("wait", "--for=condition=Established", "crd/workerpools.headrace.dev")
        return self

    def start_store(self) -> None:
        own, peer = f"http://127.0.0.1:{self._ports['etcd']}", f"http://127.0.0.1:{self._ports['peer']}"
        self._run(
            "etcd", f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", f"--listen-client-urls={own}",
            f"--advertise-client-urls={own}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", "--log-level=error",
        )  # fmt: skip

    def start_api(self) -> None:
        pki, extra = self.folder / "pki", [f"--enable-admission-plugins={','.join(self._admission)}"]
        self._run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            f"--secure-port={self._ports['api']}", f"--tls-cert-file={pki}/api.crt",
            f"--tls-private-key-file={pki}/api.key", f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.212.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={pki}/sa.key",
            f"--service-account-signing-key-file={pki}/sa.key", f"--audit-policy-file={self.folder}/audit.json",
            f"--audit-log-path={self.folder}/audit.log", *(extra if self._admission else ()),
        )  # fmt: skip
        self._wait(lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")
        if "kube-controller-manager" in self._running:
            # As in a cluster, where they lose their Lease: these would ask again at intervals of up to half a minute.
            self.kill("kube-controller-manager")
            self.start_controllers()

    def start_controllers(self) -> None:
        self._run(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig(CONTROLLERS, 'controllers')}",
            f"--service-account-private-key-file={self.folder}/pki/sa.key",
            f"--root-ca-file={self.folder}/pki/ca.crt", "--use-service-account-credentials=true",
            "--leader-elect=false", "--secure-port=0",
        )  # fmt: skip
        self._wait(lambda: bool(self.kubectl("get", "serviceaccount", "default", "-o", "name", check=False)))

    def kubeconfig(self, token: str = ADMIN, name: str = "admin") -> Path:
        """A file for who has this token."""
        server = {"server": f"https://127.0.0.1:{self._ports['api']}"}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": server | {
                "certificate-authority": str(self.folder / "pki/ca.crt")}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def kubectl(self, *arguments: str, given: Any = None, check: bool = True, config: Path | None = None) -> str:
        """What it prints. `given` goes to its standard input as JSON."""
        command = [str(programs.folder() / "kubectl"), f"--kubeconfig={config or self.kubeconfig()}", *arguments]
        text = None if given is None else json.dumps(given)
        done = subprocess.run(command, capture_output=True, text=True, check=False, input=text, timeout=60)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def get(self, *arguments: str) -> Any:
        """An object, or a list of them."""
        return json.loads(self.kubectl("get", "-o", "json", *arguments))

    def requests(self) -> Iterator[Request]:
        """What accounts of services asked so far."""
        for line in (self.folder / "audit.log").read_text().splitlines():
            entry = json.loads(line)
            what, code = entry.get("objectRef", {}), entry.get("responseStatus", {}).get("code", 0)
            resource = "/".join(part for part in (what.get("resource"), what.get("subresource")) if part)
            yield Request(
                entry["user"]["username"], entry["verb"], what.get("apiGroup", ""), resource,
                what.get("namespace", ""), code,
            )  # fmt: skip

    @contextmanager
    def frozen(self, name: str = "kube-apiserver") -> Iterator[None]:
        """The API server is there, and answers nothing; or the controllers do nothing."""
        process = self._running[name]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def compact(self) -> None:
        """etcd forgets all that was; a watch that wants to go on from there is answered 410."""
        revision = self._etcd("range", key="AA==")["header"]["revision"]
        self._etcd("compaction", revision=revision, physical=True)

    def _etcd(self, what: str, **body: Any) -> Any:
        url = f"http://127.0.0.1:{self._ports['etcd']}/v3/kv/{what}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=10) as answer:
            return json.load(answer)

    def kill(self, name: str = "kube-apiserver") -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            if name in self._running:
                self.kill(name)

    def _run(self, name: str, *arguments: str) -> None:
        with (self.folder / "log" / name).open("ab") as log:
            command = [str(programs.folder() / name), *arguments]
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def _wait(self, good: Callable[[], bool], patience_s: float = 180) -> None:
        end = time.monotonic() + patience_s
        while not good():
            assert time.monotonic() < end, f"the control plane does not start; its logs are in {self.folder}/log"
            time.sleep(0.1)


@contextmanager
def running(folder: Path, *admission: str) -> Iterator[ControlPlane]:
    """A control plane for the tests of a module; they are skipped where none can be started."""
    if reason := why_not():
        pytest.skip(reason)
    made = ControlPlane(folder, *admission)
    try:
        yield made.start()
    finally:
        made.stop()
