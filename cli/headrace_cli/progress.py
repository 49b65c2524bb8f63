"""How far something is, on standard error: a bar in a terminal, a line now and then elsewhere; at first nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["LINE_S", "Bar"]

QUIET_S: Final = 1.0
"""Seconds in which nothing is shown: what ends by then needs no bar."""
LINE_S: Final = 10.0
"""Seconds between two lines where there is no terminal."""
_FRAME_S: Final = 0.1


class Bar:
    """Shows how much of something is done. `total` None: it is not known how much there is.

    `beside_data`: lines go to standard output meanwhile; in a terminal they show the progress, and no bar is drawn.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        beside_data: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total = what, total
        self.done = 0
        self._clock = clock
        self._began = clock()
        self._next = self._began + (QUIET_S if sys.stderr.isatty() else LINE_S)
        if beside_data and sys.stdout.isatty():
            self._next = math.inf
        self._progress: Progress | None = None

    def to(self, done: int, note: str = "") -> None:
        """So much is done now. Cheap: draws only when it is time to."""
        self.done = done
        now = self._clock()
        if now < self._next:
            return
        if sys.stderr.isatty():
            self._next = now + _FRAME_S
            self._draw(note)
        else:
            self._next = now + LINE_S
            click.echo(self.line(note), err=True)

    def line(self, note: str = "") -> str:
        """The state in words, with the rate since the beginning."""
        rate = self.done / max(self._clock() - self._began, 1e-9)
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{self.what} {self.done:,}{of}, {rate:,.0f}/s" + (f", {note}" if note else "")

    def _draw(self, note: str) -> None:
        if self._progress is None:
            self._progress = _new_progress(self.what, self.total)
            self._progress.start()
        rate = self.done / max(self._clock() - self._began, 1e-9)
        [task] = self._progress.task_ids
        self._progress.update(task, completed=self.done, note=f"{rate:,.0f}/s  {note}".rstrip())
        self._progress.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._draw("")
            self._progress.stop()


def _new_progress(what: str, total: int | None) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .output import console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30, complete_style="cyan", finished_style="green"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console(sys.stderr), auto_refresh=False)
    progress.add_task(what, total=total, note="")
    return progress
