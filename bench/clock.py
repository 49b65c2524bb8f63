"""CPU time of this machine's processes, and what they keep in memory."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, to the nanosecond; NaN where the system does not tell."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # Linux' clock id of another process' CPU time
    except (OSError, OverflowError, AttributeError):
        return float("nan")


def processes_cpu_s(pids: Iterable[int]) -> float:
    """The same for several."""
    return sum(process_cpu_s(pid) for pid in pids)


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (10⁶ bytes); NaN where the system does not tell."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return float("nan")
