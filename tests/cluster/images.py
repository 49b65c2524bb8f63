"""The images that pods run, built without a container engine and kept as archives."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .programs import CACHE, HERE

ROOT: Final = HERE.parent.parent
WORKER: Final = "localhost/headrace:test"
SHOP: Final = "docker.io/library/shop:1"
"""The same image, by the name that it has in the tutorial."""
PAUSE: Final = "localhost/pause:1"
BASE: Final = "localhost/python:base"
BUILDAH: Final = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
_SOURCES: Final = ("worker/headrace", "api/headrace_api", "operator/headrace_operator", "cli/headrace_cli")
_PAUSE_C: Final = """
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int sig) { exit(0); }
static void reap(int sig) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
  signal(SIGINT, end); signal(SIGTERM, end); signal(SIGCHLD, reap);
  for (;;) pause();
}
"""


def build() -> list[Path]:
    """Archives of the pause image and the workers' image, for containerd."""
    return [_pause(), _worker()]


def _pause() -> Path:
    archive = CACHE / "images" / "pause.tar"
    if not archive.exists():
        context = _fresh("pause")
        (context / "pause.c").write_text(_PAUSE_C)
        _run(["gcc", "-static", "-O1", "-o", str(context / "pause"), str(context / "pause.c")])
        (context / "Dockerfile").write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
        _image(context, PAUSE, archive)
    return archive


def base() -> str:
    """Debian with its Python, as an image; made once."""
    done = CACHE / "images" / "base.done"
    if not done.exists():
        tree = CACHE / "images" / "debian"
        shutil.rmtree(tree, ignore_errors=True)
        wanted = "python3,python3-venv,ca-certificates"
        _run(["debootstrap", "--variant=minbase", f"--include={wanted}", _release(), str(tree), _mirror()])
        context = _fresh("base")
        _run(["tar", "-C", str(tree), "-cf", str(context / "root.tar"), "."])
        (context / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
        _bud(context, BASE)
        shutil.rmtree(tree, ignore_errors=True)
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
    return BASE


def _worker() -> Path:
    """headrace and the test's app. What it depends on is a layer of its own, made only when that changes."""
    own = [HERE / "app.py", HERE / "tasks.py", ROOT / "requirements-image.lock"]
    archive = CACHE / "images" / f"worker-{digest([*(ROOT / source for source in _SOURCES), *own])}.tar"
    if archive.exists():
        return archive
    layer = _dependencies()
    context = _fresh("worker")
    for source in _SOURCES:
        shutil.copytree(
            ROOT / source, context / "code" / Path(source).name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(HERE / "app.py", context / "code" / "clusterapp.py")
    shutil.copy(HERE / "tasks.py", context / "code")
    start = "#!/opt/venv/bin/python\nfrom headrace_cli.__main__ import main\nmain()\n"
    (context / "headrace").write_text(start)
    (context / "headrace").chmod(0o755)
    (context / "Dockerfile").write_text(
        f"FROM {layer}\nCOPY headrace /usr/local/bin/headrace\nCOPY code /opt/code\n"
        "ENV PYTHONPATH=/opt/code PYTHONUNBUFFERED=1\nUSER 65532:65532\n"
        "RUN /opt/venv/bin/python -m compileall -q /opt/code || true\n"
        'ENTRYPOINT ["headrace"]\n'
    )
    for old in archive.parent.glob("worker-*.tar"):
        old.unlink()
    _image(context, WORKER, archive)
    return archive


def _dependencies() -> str:
    lock = ROOT / "requirements-image.lock"
    name = f"localhost/headrace-dependencies:{digest([lock])}"
    found = subprocess.run(
        ["buildah", "images", "--quiet", name], env=os.environ | BUILDAH, capture_output=True, check=False
    )
    if found.returncode == 0 and found.stdout.strip():
        return name
    context = _fresh("dependencies")
    # Downloaded outside of the build, by the settings of this machine, so that no index is written down in an image.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    _run([*pip, "--python-version", "3.11", "--only-binary=:all:", "-d", str(context / "wheels"), "-r", str(lock)])
    (context / "Dockerfile").write_text(
        f"FROM {base()}\nCOPY wheels /tmp/wheels\n"
        "RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-index --no-deps /tmp/wheels/*.whl "
        "&& rm -rf /tmp/wheels\n"
    )
    _bud(context, name)
    return name


def _image(context: Path, name: str, archive: Path) -> None:
    _bud(context, name)
    partial = archive.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    _run(["buildah", "push", "--quiet", name, f"docker-archive:{partial}:{name}"])
    partial.rename(archive)


def _bud(context: Path, name: str) -> None:
    _run(["buildah", "bud", "--quiet", "--layers=false", "--tag", name, str(context)])


def _fresh(name: str) -> Path:
    context = CACHE / "images" / f"{name}.context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    return context


def _run(command: list[str]) -> None:
    subprocess.run(command, env=os.environ | BUILDAH, check=True, stdout=subprocess.DEVNULL)


def digest(paths: Iterable[Path]) -> str:
    """Of the names and bytes of these files, and of those in these folders."""
    found = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")
        for file in files:
            found.update(str(file).encode() + file.read_bytes())
    return found.hexdigest()[:16]


def _release() -> str:
    [name] = re.findall(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    return str(name)


def _mirror() -> str:
    """Where this machine's own packages come from."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=True
    )
    sites = [line.strip() for line in listed.stdout.splitlines() if "security" not in line]
    return sites[0]
