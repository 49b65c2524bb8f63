"""What the handlers of a replay note outside Redis: every run that began and every run that ended.

One line a note, appended by one write to a file opened with O_APPEND, so that processes that are killed at any
instant leave whole lines only:

    B <task id> <attempt> <start>            a run began
    E <task id> <attempt> <start> <end>      it ended; Unix times in seconds
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

VARIABLE: Final = "REPLAY_LEDGER"
"""Tells the workers of a replay where the file is."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one task's handler."""

    task_id: str
    attempt: int
    start: float


@dataclass
class Ledger:
    """All that was noted. A run that ended is also among those that began."""

    begun: list[Run] = field(default_factory=list)
    ended: list[Run] = field(default_factory=list)


class Writer:
    """Appends notes. For one process; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def begin(self, run: Run) -> None:
        """Note that a run begins."""
        os.write(self._file, f"B {run.task_id} {run.attempt} {run.start:.6f}\n".encode())

    def end(self, run: Run, at: float) -> None:
        """Note that it ended."""
        os.write(self._file, f"E {run.task_id} {run.attempt} {run.start:.6f} {at:.6f}\n".encode())


def size(path: Path | None) -> int:
    """Bytes that are in the file: the notes of earlier replays. Nothing if there is none."""
    return path.stat().st_size if path is not None and path.exists() else 0


def read_ledger(path: Path, since: int = 0) -> Ledger:
    """What is in the file now, from this byte on; nothing if there is none yet."""
    ledger = Ledger()
    for kind, run in _lines(path.read_bytes()[since:].decode() if path.exists() else ""):
        (ledger.begun if kind == "B" else ledger.ended).append(run)
    return ledger


def _lines(text: str) -> Iterator[tuple[str, Run]]:
    for line in text.splitlines():
        kind, task_id, attempt, start, *_ = line.split(" ")
        yield kind, Run(task_id, int(attempt), float(start))
