"""What a cluster of plain processes starts on this machine, and how all of it goes again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import programs

RUN: Final = programs.CACHE / "run"
BRIDGE: Final = "headrace0"
GATEWAY: Final = "10.213.0.1"
PODS: Final = "10.213.0.0/16"
SERVICES: Final = "10.212.0.0/16"


def traces() -> list[str]:
    """What a cluster leaves on a machine, as far as it is there: nothing, unless one runs."""
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [
        *(f"process {pid}" for pid in [*filter(alive, pids()), *left_over()]),
        *(f"mount {mount}" for mount in mounts()),
        *(f"bridge {BRIDGE}" for link in links if link.split()[0] == BRIDGE),
        *(f"rule {rule}" for rule in _rules() if _is_ours(rule)),
        *([f"folder {RUN}"] if RUN.exists() else []),
    ]


def start(name: str, program: Path, *arguments: str) -> None:
    (RUN / "log").mkdir(exist_ok=True)
    with (RUN / f"log/{name}").open("wb") as log:
        process = subprocess.Popen(
            [str(program), *arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=RUN,
        )
    process.returncode = 0  # it outlives this process on purpose; Python would warn of it
    (RUN / f"{name}.pid").write_text(str(process.pid))


def pids() -> list[int]:
    """Of the programs that were started. A number that the system has given to another program since is left out."""
    numbers = [int(file.read_text()) for file in RUN.glob("*.pid")]
    return [pid for pid in numbers if str(programs.CACHE) in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def left_over() -> list[int]:
    """Shims of our containerd, whose command lines name our folder, and all that runs in their containers."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        if b"containerd-shim" in command and str(RUN).encode() in command:
            found.add(int(folder.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def mounts() -> list[str]:
    """Mounts below our folder, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return sorted((line.split()[1] for line in lines if line.split()[1].startswith(str(RUN))), key=len, reverse=True)


def drop_rules() -> None:
    """Rules of kube-proxy and of the bridge plugin: all that name a chain or a network of ours."""
    saved = _rules()
    kept = [line for line in saved if not _is_ours(line)]
    if kept != saved:
        subprocess.run(["iptables-restore"], input="\n".join(kept) + "\n", text=True, check=False)


def _rules() -> list[str]:
    return subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout.splitlines()


def _is_ours(rule: str) -> bool:
    return any(mark in rule for mark in ("KUBE-", "CNI-", "10.213.", "10.212."))


def until(what: str, good: Callable[[], bool], patience_s: float = 60.0, *, strict: bool = True) -> None:
    end = time.monotonic() + patience_s
    while not good():
        if time.monotonic() > end:
            if strict:
                raise TimeoutError(f"{what}: not within {patience_s:g} s; the logs are in {RUN}/log")
            return
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
