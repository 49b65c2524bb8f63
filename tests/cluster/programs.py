"""Kubernetes' own programs, built from their Go modules at pinned versions and kept between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
MODULES: Final = HERE / "programs"
CACHE: Final = Path(os.environ.get("HEADRACE_CLUSTER_CACHE", Path.home() / ".cache" / "headrace-cluster"))
KUBERNETES: Final = "1.37.2"
_VERSION: Final = "k8s.io/component-base/version"
_FLAGS: Final = f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=37"
BUILDS: Final = {
    "kubernetes": tuple(
        f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "kube-proxy")
    ),
    "etcd": ("go.etcd.io/etcd/server/v3",),
    "coredns": ("github.com/coredns/coredns",),
}
"""Module → what is built of it."""
NEEDED: Final = ("go", "containerd", "runc", "buildah", "iptables", "ip", "debootstrap", "openssl", "redis-server")


def missing() -> list[str]:
    """What this machine lacks, in words; nothing, if a cluster can be made here."""
    lacks = [f"the program {name}" for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0:
        lacks.append("root's rights")
    if not Path("/usr/lib/cni/bridge").exists():
        lacks.append("the package containernetworking-plugins")
    return lacks


def folder() -> Path:
    """Where the programs of these versions are; other versions have another folder."""
    text = b"".join((MODULES / module / "go.mod").read_bytes() for module in sorted(BUILDS))
    return CACHE / "programs" / hashlib.sha256(text).hexdigest()[:16]


def build() -> Path:
    """All programs; returns their folder. Cold it takes about seven minutes on two cores, then nothing."""
    place = folder()
    if (place / "done").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    for module, packages in BUILDS.items():
        print(f"building {module} from source …", flush=True)
        _go(module, packages, place)
    (place / "done").touch()
    return place


def _go(module: str, packages: tuple[str, ...], place: Path) -> None:
    target = f"{place}/" if len(packages) > 1 else str(place / module)
    command = ["go", "build", "-trimpath", "-ldflags", _FLAGS, "-o", target, *packages]
    environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"}
    subprocess.run(command, cwd=MODULES / module, env=environ, check=True)
