"""The image of the Dockerfile: built by buildah without a registry, started by runc.

The base is a Debian of this machine's own mirror, and packages come from a folder, so no index is named in the image.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cluster import images
from cluster.programs import CACHE

ROOT: Final = Path(__file__).parent.parent
NAME: Final = "localhost/headrace:dockerfile"
LOCKS: Final = ("requirements-build.lock", "requirements-image.lock")
WHEELS: Final = Path("/wheels")
SHELLS: Final = ("/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/dash")
Json = dict[str, Any]


def missing() -> list[str]:
    """What this machine lacks, in words."""
    lacks = [f"the program {name}" for name in ("buildah", "runc", "debootstrap") if shutil.which(name) is None]
    return lacks if os.geteuid() == 0 else [*lacks, "root's rights"]


def buildah(*arguments: str | Path) -> str:
    """Its standard output. Raises RuntimeError with what it said."""
    command = ["buildah", *map(str, arguments)]
    run = subprocess.run(command, env=os.environ | images.BUILDAH, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: {run.stdout}{run.stderr}")
    return run.stdout.strip()


def build(**arguments: str) -> str:
    """Build the Dockerfile, with build arguments; returns the image's name."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "pip.conf"
        settings.write_text(f"[global]\nno-index = true\nfind-links = {WHEELS}\n")
        mounts = [f"--volume={_wheels()}:{WHEELS}:ro", f"--volume={settings}:/etc/pip.conf:ro"]
        given = [f"--build-arg={name}={value}" for name, value in {"BASE": images.base(), **arguments}.items()]
        buildah("bud", "--quiet", "--layers=false", "--tag", NAME, *mounts, *given, ROOT)
    return NAME


def _wheels() -> Path:
    """What the locks name, downloaded by the settings of this machine; kept until a lock changes."""
    digest = images.digest([ROOT / lock for lock in LOCKS])
    folder = CACHE / "images" / f"wheels-{digest}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        options = ["--python-version", "3.11", "--only-binary=:all:", "-d", str(partial)]
        with tempfile.TemporaryDirectory() as place:
            for lock in LOCKS:
                # Without conditions, which pip would judge for this Python, and the base has another 3.11.
                every = Path(place) / lock
                every.write_text(re.sub(r" ; .+ \\$", r" \\", (ROOT / lock).read_text(), flags=re.MULTILINE))
                subprocess.run([*pip, *options, "-r", str(every)], check=True)
        partial.rename(folder)
    return folder


class Container(subprocess.Popen[str]):
    """Runs what it is told in the words of OCI's runtimes."""

    def __init__(self, told: Json) -> None:
        bundle = Path(tempfile.mkdtemp(dir=CACHE / "images"))
        (bundle / "config.json").write_text(json.dumps(told))
        self._runc = ["runc", "--root", str(bundle / "state")]
        self._id = f"headrace-{uuid.uuid4().hex}"
        super().__init__(
            [*self._runc, "run", "--bundle", str(bundle), self._id],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def send_signal(self, sig: int) -> None:
        """runc hands on all but these two, which would stop runc itself."""
        if sig in {signal.SIGSTOP, signal.SIGCONT}:
            subprocess.run([*self._runc, "kill", self._id, str(int(sig))], check=True, capture_output=True)
        else:
            super().send_signal(sig)


@dataclass(frozen=True, slots=False)
class Image:
    """An image whose files can be looked at."""

    root: Path

    @cached_property
    def config(self) -> Json:
        """Its OCI configuration: Entrypoint, User, Labels, Env …"""
        found: Json = json.loads(buildah("inspect", "--type", "image", NAME))["OCIv1"]["config"]
        return found

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: int = 65532,
        folders: Mapping[str, Path] | None = None,
    ) -> Container:
        """A container of its own entrypoint: read-only root, no capability, no shell, this machine's network.

        `folders` of this machine are there too, by the place where it sees them.
        """
        told = self._runtime([*self.config["Entrypoint"], *command], env or {}, user)
        for place, folder in (folders or {}).items():
            told["mounts"].append({"destination": place, "source": str(folder), "options": ["rbind", "ro"]})
        return Container(told)

    def python(self, code: str) -> Container:
        """The same, of its interpreter."""
        return Container(self._runtime(["python", "-c", code], {}, 65532))

    def _runtime(self, arguments: Sequence[str], env: Mapping[str, str], user: int) -> Json:
        """As Kubernetes makes it of a pod of Pod Security `restricted`, but for the network."""
        tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": 0 if user != 65532 else 65532},
                "args": [*arguments],
                "env": [*self.config["Env"], *(f"{name}={value}" for name, value in env.items())],
                "cwd": self.config["WorkingDir"],
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/tmp", **tmpfs},
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "maskedPaths": list(SHELLS),
            },
        }


@contextmanager
def opened() -> Iterator[Image]:
    """The image that was built last, with its files in a folder."""
    container = buildah("from", "--pull-never", NAME)
    try:
        yield Image(Path(buildah("mount", container)))
    finally:
        buildah("rm", container)


def megabytes(*folders: Path) -> float:
    """What files occupy, each counted once."""
    seen: dict[int, int] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            about = path.lstat()
            seen[about.st_ino] = about.st_size
    return sum(seen.values()) / 1e6


def forget(folder: Path) -> None:
    """Let the kernel drop these files from its cache, as on a node that has just pulled the image."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
