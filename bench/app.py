"""The application that is measured: handlers that do nothing, wait, or note when their first line ran."""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from pathlib import Path
from typing import Any, Final

from headrace import App

MARKS_VARIABLE: Final = "BENCH_MARKS"
NAP_S: Final = 0.01


async def noop(n: int, text: str) -> None:
    """A coroutine that never suspends."""


def noop_sync(n: int, text: str) -> None:
    """The same in a thread."""


async def nap(n: int, text: str) -> None:
    """Waits, as most tasks do."""
    await asyncio.sleep(NAP_S)


async def mark(n: int) -> None:
    """Notes the time of its first line, once per `n`; -1 notes nothing."""
    now = time.monotonic_ns()
    if n >= 0:
        _marks()[n] = now


_open_marks: list[Any] = []


def _marks() -> Any:
    if not _open_marks:
        _open_marks.append(Marks(Path(os.environ[MARKS_VARIABLE])).times)
    return _open_marks[0]


class Marks:
    """Times in ns of the clock that all processes of a machine share, in a file mapped into memory; 0 = none yet."""

    def __init__(self, path: Path, number: int = 0) -> None:
        if number:
            path.write_bytes(bytes(8 * number))
        with path.open("r+b") as file:
            self.times = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")


app = App("bench")
for handler in (noop, noop_sync, nap, mark):
    app.task()(handler)
