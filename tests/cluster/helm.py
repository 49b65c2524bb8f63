"""Helm, built from its Go module at a pinned version and kept between runs; it needs no cluster."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from .programs import CACHE, MODULES

MODULE: Final = MODULES / "helm"
PACKAGE: Final = "helm.sh/helm/v4/cmd/helm"


def missing() -> list[str]:
    """What this machine lacks; nothing, if Helm is there or can be built."""
    return [] if _place().exists() or shutil.which("go") else ["the program go"]


def build() -> Path:
    """The program. Cold it takes some minutes on two cores, then nothing. Raises CalledProcessError."""
    place = _place()
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _go(place)
    return place


def _place() -> Path:
    """Another version has another folder."""
    return CACHE / "helm" / hashlib.sha256((MODULE / "go.mod").read_bytes()).hexdigest()[:16] / "helm"


def _go(place: Path) -> None:
    partial = place.with_suffix(".partial")
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), PACKAGE]
    environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"}
    subprocess.run(command, cwd=MODULE, env=environ, check=True)
    partial.rename(place)
