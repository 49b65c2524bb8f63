"""How far something is, on standard error: a bar in a terminal, a line now and then elsewhere; at first nothing.

What cannot tell how far it is shows, in a terminal, that it goes on and for how long (`Waiting`).
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

__all__ = ["LINE_S", "Bar", "Waiting"]

QUIET_S: Final = 1.0
"""Seconds in which nothing is shown: what ends by then needs no bar."""
LINE_S: Final = 10.0
"""Seconds between two lines where there is no terminal."""
_FRAME_S: Final = 0.1


class Bar:
    """Shows how much of something is done. `total` None: it is not known how much there is.

    `beside_data`: lines go to standard output meanwhile; in a terminal they show the progress, and no bar is drawn.
    `passing`: nothing of it stays, since what follows says the same.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        beside_data: bool = False,
        passing: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total = what, total
        self.done = 0
        self._note = ""
        self._passing = passing
        self._clock = clock
        self._began = clock()
        self._next = self._began + (QUIET_S if sys.stderr.isatty() else LINE_S)
        if beside_data and sys.stdout.isatty():
            self._next = math.inf
        self._progress: Progress | None = None

    def to(self, done: int, note: str = "") -> None:
        """So much is done now. Cheap: draws only when it is time to."""
        self.done, self._note = done, note
        now = self._clock()
        if now < self._next:
            return
        if sys.stderr.isatty():
            self._next = now + _FRAME_S
            self._draw(note)
        else:
            self._next = now + LINE_S
            click.echo(self.line(note), err=True)

    def beat(self) -> None:
        """As much is done as before, and some time has passed."""
        self.to(self.done, self._note)

    def line(self, note: str = "") -> str:
        """The state in words, with the rate since the beginning."""
        rate = self.done / max(self._clock() - self._began, 1e-9)
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{self.what} {self.done:,}{of}, {rate:,.0f}/s" + (f", {note}" if note else "")

    def _draw(self, note: str) -> None:
        if self._progress is None:
            self._progress = _new_progress(self.what, self.total, self._passing)
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


class Waiting:
    """Shows, in a terminal, that something goes on and for how long; nothing of it stays."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._timer = threading.Timer(QUIET_S, self._show)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._over = False
        self._progress: Progress | None = None

    def _show(self) -> None:
        with self._lock:
            if not self._over:
                self._progress = _new_spinner(self.what)
                self._progress.start()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._progress is not None:
                self._progress.stop()


def _new_progress(what: str, total: int | None, passing: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30, complete_style="cyan", finished_style="green"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    progress = _shown(*columns, passing=passing, by_itself=False)
    progress.add_task(what, total=total, note="")
    return progress


def _new_spinner(what: str) -> Progress:
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    progress = _shown(*columns, passing=True, by_itself=True)
    progress.add_task(what, total=None)
    progress.tasks[0].start_time = progress.get_time() - QUIET_S
    return progress


def _shown(*columns: ProgressColumn, passing: bool, by_itself: bool) -> Progress:
    from rich.progress import Progress

    from .output import console

    return Progress(*columns, console=console(sys.stderr), auto_refresh=by_itself, transient=passing)
