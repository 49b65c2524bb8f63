"""Seconds without those in which a busy machine let somebody wait for a CPU: bounds of time are then ours alone."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path


class Watch:
    """Begins when made. Linux tells how long a process was ready to run and did not; elsewhere nothing is taken off."""

    def __init__(self, *others: int) -> None:
        """Of this process, and of `others` by their ids."""
        self._pids = (os.getpid(), *others)
        self._began = time.monotonic()
        self._waited = _waited_s(self._pids)

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def own_s(self) -> float:
        """Not below 0: who waits for a CPU at once is counted twice."""
        return max(0.0, self.wall_s - self.waited_s)

    @property
    def waited_s(self) -> float:
        """What they waited for a CPU, all together."""
        return _waited_s(self._pids) - self._waited


def _waited_s(pids: Collection[int]) -> float:
    return sum(_waited_of(pid) for pid in pids)


def _waited_of(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
