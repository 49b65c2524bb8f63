"""A single-node Kubernetes made of plain processes: no container engine is needed, only containerd and runc."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from . import certificates, host, images, programs
from .host import BRIDGE, GATEWAY, PODS, RUN, SERVICES

API_SERVICE: Final = "10.212.0.1"
DNS: Final = "10.212.0.10"
NODE: Final = "node0"
TOKENS: Final = {
    "admin": ("admin-token", "admin", "system:masters"),
    "controllers": ("controllers-token", "system:kube-controller-manager", ""),
    "scheduler": ("scheduler-token", "system:kube-scheduler", ""),
    "node": ("node-token", f"system:node:{NODE}", "system:nodes"),
    "proxy": ("proxy-token", "system:kube-proxy", ""),
    "dns": ("dns-token", "dns", "system:masters"),
}
KUBECONFIG: Final = RUN / "admin.kubeconfig"


def up() -> Path:
    """Start it if it does not run yet. Returns the administrator's kubeconfig."""
    if _ready():
        return KUBECONFIG
    place = programs.build()
    archives = images.build()
    down()
    RUN.mkdir(parents=True, exist_ok=True)
    _network()
    ports = {name: host.free_port() for name in ("api", "etcd", "peer", "kubelet", "health", "proxy", "metrics")}
    (RUN / "ports.json").write_text(json.dumps(ports))
    certificates.make(RUN / "pki", ["127.0.0.1", API_SERVICE, GATEWAY])
    _kubeconfigs(ports["api"])
    _control_plane(place, ports)
    _containers(archives)
    _node(place, ports)
    _dns(place)
    host.until("the node is ready", lambda: "True" in _kubectl("get", "node", NODE, "-o", _NODE_READY))
    return KUBECONFIG


_NODE_READY: Final = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"


def refresh() -> None:
    """The workers' image as the sources are now."""
    for archive in images.build():
        _import(archive)


def down() -> None:
    """Stop it: no process, mount, bridge or rule is left."""
    if _ready():
        for kind in ("workerpools", "deployments", "pods"):
            _kubectl("delete", kind, "--all", "--all-namespaces", "--grace-period=1", "--timeout=20s")
    ours = [*host.pids(), *host.left_over()]
    for pid in host.pids():
        host.send(pid, signal.SIGTERM)
    host.until(
        "the processes end", lambda: not any(host.alive(pid) for pid in host.pids()), patience_s=10, strict=False
    )
    for pid in ours:
        host.send(pid, signal.SIGKILL)
    host.until("no process is left", lambda: not any(host.alive(pid) for pid in ours), patience_s=10, strict=False)
    for mount in host.mounts():
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)
    host.drop_rules()
    shutil.rmtree(RUN, ignore_errors=True)
    if left := host.traces():
        raise RuntimeError(f"the cluster was stopped, but it left {', '.join(left)}")


def status() -> str:
    """One sentence."""
    return f"runs; export KUBECONFIG={KUBECONFIG}" if _ready() else "does not run"


# the parts


def _network() -> None:
    for command in (
        f"ip link add {BRIDGE} type bridge",
        f"ip addr add {GATEWAY}/16 dev {BRIDGE}",
        f"ip link set {BRIDGE} up",
        "sysctl -q -w net.ipv4.ip_forward=1",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)


def _kubeconfigs(port: int) -> None:
    rows = [f"{token},{user},{name}{f',{group}' if group else ''}" for name, (token, user, group) in TOKENS.items()]
    (RUN / "tokens.csv").write_text("\n".join(rows) + "\n")
    for name, (token, _, _) in TOKENS.items():
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": f"https://127.0.0.1:{port}", "certificate-authority": str(RUN / "pki/ca.crt")}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        (RUN / f"{name}.kubeconfig").write_text(json.dumps(config))


def _control_plane(place: Path, ports: dict[str, int]) -> None:
    etcd = f"http://127.0.0.1:{ports['etcd']}"
    peer = f"http://127.0.0.1:{ports['peer']}"
    pki = RUN / "pki"
    host.start(
        "etcd", place / "etcd", f"--data-dir={RUN}/etcd", "--unsafe-no-fsync", f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}", "--log-level=error",
    )  # fmt: skip
    host.start(
        "kube-apiserver", place / "kube-apiserver", f"--etcd-servers={etcd}", f"--secure-port={ports['api']}",
        f"--tls-cert-file={pki}/api.crt", f"--tls-private-key-file={pki}/api.key",
        f"--token-auth-file={RUN}/tokens.csv", "--authorization-mode=Node,RBAC",
        f"--service-cluster-ip-range={SERVICES}", "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/sa.key", f"--service-account-signing-key-file={pki}/sa.key",
        f"--advertise-address={GATEWAY}", "--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true",
        *_aggregation(pki),
    )  # fmt: skip
    host.until("the API server is ready", lambda: _kubectl("get", "--raw", "/readyz").startswith("ok"))
    host.start(
        "controllers", place / "kube-controller-manager", f"--kubeconfig={RUN}/controllers.kubeconfig",
        f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
        "--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0",
        "--horizontal-pod-autoscaler-sync-period=2s",
    )  # fmt: skip
    host.start(
        "scheduler", place / "kube-scheduler", f"--kubeconfig={RUN}/scheduler.kubeconfig", "--leader-elect=false",
        "--secure-port=0",
    )  # fmt: skip


def _aggregation(pki: Path) -> tuple[str, ...]:
    """Other API servers can be registered, as metrics APIs are."""
    return (
        f"--requestheader-client-ca-file={pki}/ca.crt", f"--requestheader-allowed-names={certificates.PROXY}",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-", f"--proxy-client-cert-file={pki}/proxy.crt",
        f"--proxy-client-key-file={pki}/proxy.key", "--enable-aggregator-routing=true",
    )  # fmt: skip


def _containers(archives: list[Path]) -> None:
    network = {
        "cniVersion": "0.4.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True,
             "ipam": {"type": "host-local", "dataDir": f"{RUN}/ipam", "ranges": [[{"subnet": PODS}]],
                      "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }  # fmt: skip
    (RUN / "cni").mkdir(exist_ok=True)
    (RUN / "cni/10-pods.conflist").write_text(json.dumps(network))
    (RUN / "containerd.toml").write_text(_CONTAINERD.format(run=RUN, pause=images.PAUSE))
    host.start("containerd", Path(shutil.which("containerd") or "containerd"), "-c", str(RUN / "containerd.toml"))
    host.until("containerd answers", lambda: _ctr("version").returncode == 0)
    for archive in archives:
        _import(archive)


def _import(archive: Path) -> None:
    mark = RUN / f"{archive.name}.imported"
    if mark.exists():
        return
    done = _ctr("-n", "k8s.io", "images", "import", str(archive))
    if done.returncode != 0:
        raise RuntimeError(f"the image {archive} cannot be imported: {done.stderr.decode()}")
    if archive.name.startswith("worker"):
        _ctr("-n", "k8s.io", "images", "tag", "--force", images.WORKER, images.SHOP)
    for old in RUN.glob(f"{archive.name.partition('-')[0]}-*.imported"):
        old.unlink()
    mark.touch()


def _node(place: Path, ports: dict[str, int]) -> None:
    settings = _KUBELET | {
        "containerRuntimeEndpoint": f"unix://{RUN}/containerd.sock", "clusterDNS": [DNS], "port": ports["kubelet"],
        "healthzPort": ports["health"], "cgroupRoot": "/",
    }  # fmt: skip
    (RUN / "kubelet.json").write_text(json.dumps(settings))
    host.start(
        "kubelet", place / "kubelet", f"--config={RUN}/kubelet.json", f"--kubeconfig={RUN}/node.kubeconfig",
        f"--hostname-override={NODE}", f"--node-ip={GATEWAY}", f"--root-dir={RUN}/kubelet",
    )  # fmt: skip
    _kubectl("create", "clusterrolebinding", "proxy", "--clusterrole=system:node-proxier", "--user=system:kube-proxy")
    host.start(
        "kube-proxy", place / "kube-proxy", f"--kubeconfig={RUN}/proxy.kubeconfig", "--proxy-mode=iptables",
        f"--hostname-override={NODE}", f"--cluster-cidr={PODS}", f"--healthz-bind-address=127.0.0.1:{ports['proxy']}",
        f"--metrics-bind-address=127.0.0.1:{ports['metrics']}",
    )  # fmt: skip


def _dns(place: Path) -> None:
    """CoreDNS beside the node, behind the address that pods ask."""
    corefile = (
        f".:10053 {{\n  bind {GATEWAY}\n  kubernetes cluster.local in-addr.arpa {{\n"
        f"    kubeconfig {RUN}/dns.kubeconfig test\n  }}\n  errors\n}}\n"
    )
    (RUN / "Corefile").write_text(corefile)
    host.start("coredns", place / "coredns", "-conf", str(RUN / "Corefile"))
    _apply(
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": DNS, "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 10053},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 10053}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
                "kubernetes.io/service-name": "kube-dns"}},
            "endpoints": [{"addresses": [GATEWAY], "conditions": {"ready": True}}],
            "ports": [{"name": "dns", "port": 10053, "protocol": "UDP"},
                      {"name": "dns-tcp", "port": 10053, "protocol": "TCP"}],
        },
    )  # fmt: skip


_KUBELET: Final[dict[str, Any]] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False,
    "failSwapOn": False, "cgroupDriver": "cgroupfs", "authentication": {"anonymous": {"enabled": True},
    "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"}, "clusterDomain": "cluster.local",
    "evictionHard": {"memory.available": "100Mi"}, "maxPods": 110, "serializeImagePulls": False, "registryPullQPS": 0,
    "kubeAPIQPS": 100, "kubeAPIBurst": 200, "imageGCHighThresholdPercent": 100,
}  # fmt: skip
_CONTAINERD: Final = """version = 2
root = "{run}/containerd/root"
state = "{run}/containerd/state"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{run}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


# its programs, asked


def _ctr(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ctr", "-a", str(RUN / "containerd.sock"), *arguments], capture_output=True, check=False)


def _kubectl(*arguments: str, given: str | None = None) -> str:
    command = [str(programs.folder() / "kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=given).stdout


def _apply(*objects: dict[str, Any]) -> None:
    _kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def _ready() -> bool:
    return KUBECONFIG.exists() and _kubectl("get", "--raw", "/readyz").startswith("ok")
