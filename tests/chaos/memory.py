"""A bound of memory beyond which the kernel kills: a control group that a handler moves its own process into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

VARIABLE: Final = "CHAOS_CGROUP"
"""Tells handlers where it is."""
LIMIT: Final = 64 << 20
_ROOT: Final = Path("/sys/fs/cgroup")


@contextmanager
def bounded() -> Iterator[Path | None]:
    """The group's folder; None where this user may make none."""
    first, second = _ROOT / "memory", _ROOT
    parent, limit = (first, "memory.limit_in_bytes") if first.is_dir() else (second, "memory.max")
    group = parent / f"headrace-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        with suppress(OSError):
            group.rmdir()


def exhaust() -> None:
    """Take memory until the kernel ends this process. Raises where there is no bound, rather than take all there is."""
    group = Path(os.environ[VARIABLE])
    (group / "cgroup.procs").write_text(str(os.getpid()))
    taken = [b"x" * (1 << 20) for _ in range(4 * LIMIT >> 20)]
    raise AssertionError(f"{len(taken)} MiB were had within a bound of {LIMIT >> 20}")
