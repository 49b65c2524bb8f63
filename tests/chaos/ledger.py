"""What handlers note outside Redis: each run that began, and each that came to its end.

One line a note, appended by one write to a file opened with O_APPEND, so that processes that are killed at any instant
leave whole lines only:

    B <task id> <epoch> <attempt> <worker> <Unix time>
    E <task id> <epoch> <attempt> <worker> <Unix time>
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

VARIABLE: Final = "CHAOS_LEDGER"
"""Tells worker processes where the file is."""

Token = tuple[int, int]
"""Epoch and attempt: what handlers get as `ctx.token`."""


class Note(NamedTuple):
    """One line."""

    task_id: str
    token: Token
    worker: str
    at: float


@dataclass
class Ledger:
    """All that was noted. A run that ended is also among those that began."""

    begun: list[Note] = field(default_factory=list)
    ended: list[Note] = field(default_factory=list)


class Writer:
    """Appends notes. For one process; threads may share it."""

    def __init__(self, path: Path, worker: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._worker = worker

    def begin(self, task_id: str, token: Token) -> None:
        self._write("B", task_id, token)

    def end(self, task_id: str, token: Token) -> None:
        self._write("E", task_id, token)

    def _write(self, kind: str, task_id: str, token: Token) -> None:
        epoch, attempt = token
        os.write(self._file, f"{kind} {task_id} {epoch} {attempt} {self._worker} {time.time():.6f}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> Ledger:
    """What is in the file now; nothing if there is none yet. A line that is being written is not there yet."""
    ledger = Ledger()
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        kind, task_id, epoch, attempt, worker, at = line.split(" ")
        note = Note(task_id, (int(epoch), int(attempt)), worker, float(at))
        (ledger.begun if kind == "B" else ledger.ended).append(note)
    return ledger
