"""Programs built from their Go modules at pinned versions and kept between runs; they need no cluster."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .programs import CACHE, MODULES


@dataclass(frozen=True, slots=True)
class GoProgram:
    """One of them. Its version is in `programs/<name>/go.mod`; another version has another place."""

    name: str
    package: str

    def missing(self) -> list[str]:
        """What this machine lacks; nothing, if the program is there or can be built."""
        return [] if self.place.exists() or shutil.which("go") else ["the program go"]

    def build(self) -> Path:
        """The program. Cold it takes up to some minutes on two cores, then nothing. Raises CalledProcessError."""
        place = self.place
        place.parent.mkdir(parents=True, exist_ok=True)
        with (place.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                self._go(place)
        return place

    @property
    def place(self) -> Path:
        digest = hashlib.sha256((self._module / "go.mod").read_bytes()).hexdigest()[:16]
        return CACHE / self.name / digest / self.name

    @property
    def _module(self) -> Path:
        return MODULES / self.name

    def _go(self, place: Path) -> None:
        partial = place.with_suffix(".partial")
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), self.package]
        environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"}
        subprocess.run(command, cwd=self._module, env=environ, check=True)
        partial.rename(place)


ACTIONLINT = GoProgram("actionlint", "github.com/rhysd/actionlint/cmd/actionlint")
KUBE_SCORE = GoProgram("kube-score", "github.com/zegl/kube-score/cmd/kube-score")
