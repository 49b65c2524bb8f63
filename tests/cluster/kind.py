"""The same by kind, where a Docker engine answers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from . import programs
from .images import ROOT, SHOP, WORKER

NAME: Final = "headrace-test"
KUBECONFIG: Final = programs.CACHE / "kind.kubeconfig"
_HERE: Final = Path(__file__).parent


def missing() -> list[str]:
    """What this machine lacks, in words."""
    lacks = [f"the program {name}" for name in ("docker", "kind", "kubectl") if shutil.which(name) is None]
    if not lacks and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        lacks.append("a Docker engine that answers")
    return lacks


def up() -> Path:
    """Start it if it does not run yet. Returns the administrator's kubeconfig."""
    programs.CACHE.mkdir(parents=True, exist_ok=True)
    if not _runs():
        config = _HERE / "kind.yaml"
        _run("kind", "create", "cluster", "--name", NAME, "--config", str(config), "--kubeconfig", str(KUBECONFIG))
    return KUBECONFIG


def refresh() -> None:
    """The workers' image as the sources are now."""
    _run("docker", "build", "--quiet", "--tag", "localhost/headrace:plain", str(ROOT))
    _run("docker", "build", "--quiet", "--tag", WORKER, "--file", str(_HERE / "kind.Dockerfile"), str(_HERE))
    _run("docker", "tag", WORKER, SHOP)
    _run("kind", "load", "docker-image", WORKER, SHOP, "--name", NAME)


def down() -> None:
    """Stop it; its container and volumes go too."""
    _run("kind", "delete", "cluster", "--name", NAME)


def status() -> str:
    """One sentence."""
    return f"runs; export KUBECONFIG={KUBECONFIG}" if _runs() else "does not run"


def gateway() -> str:
    """The address of this machine that pods reach."""
    form = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    found = _run("docker", "network", "inspect", "kind", "--format", form).split()
    return next(address for address in found if ":" not in address)


def _runs() -> bool:
    return KUBECONFIG.exists() and NAME in _run("kind", "get", "clusters").split()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
