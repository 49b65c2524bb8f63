"""What `headrace dev` and its children say, as one stream of short lines: time, who, what."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, TextIO

import click
import msgspec

from headrace.logs import clean

from .output import coloured
from .worker import START

_COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}
_NAMES: Final = ("cyan", "magenta", "blue", "green")
_SHOWN: Final = {"time", "level", "logger", "message", "exception", "task_id", "type"}
_DIM: Final = {"trace_id", "attempt"}


def short(task_id: str) -> str:
    """Enough of an id to find it again on the screen."""
    return task_id[-36:][:8]


class Screen:
    """Prints lines; colours them in a terminal. `raw` leaves the lines of children as they are (JSON for machines)."""

    def __init__(self, stream: TextIO | None = None, *, raw: bool = False) -> None:
        self._given = stream
        self._raw = raw
        self._held: list[str] | None = None

    def hold(self) -> None:
        """Keep until `let_go` what is no warning; a warning is said at once."""
        self._held = []

    def let_go(self) -> None:
        """Print what was kept, and keep nothing more."""
        held, self._held = self._held, None
        for lines in held or ():
            click.echo(lines, file=self._stream, color=self._colour)

    @property
    def _stream(self) -> TextIO:
        # Looked up each time: a progress bar of rich puts itself in the place of standard output.
        return self._given or sys.stdout

    @property
    def _colour(self) -> bool:
        return coloured(self._stream)

    def say(self, sentence: str, *, level: str = "info", who: str = "dev") -> None:
        """One line, or several: those after the first are indented."""
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        self._print(now, who, level, sentence)

    def child(self, who: str) -> Callable[[str], None]:
        """What shows the lines of this child, whether log lines or anything a handler prints."""
        if self._raw:
            return self.plain
        return lambda line: self._show(who, line)

    def plain(self, line: str = "") -> None:
        """This line as it is, without time and name."""
        click.echo(line, file=self._stream, color=self._colour)

    def style(self, text: str, **style: Any) -> str:
        """The text in this style of click's, where there is colour."""
        return click.style(text, **style) if self._colour else text

    def _show(self, who: str, line: str) -> None:
        record = _log_record(line)
        if record is None:
            now = datetime.now().astimezone().strftime("%H:%M:%S")
            self._print(now, who, "info", clean(line, 4_096))
            return
        if record.get("logger") == START:  # our own screen has it all
            return
        facts = "".join(f" {name}={value}" for name, value in record.items() if name not in _SHOWN | _DIM)
        task = f" {self.style(short(str(record['task_id'])), dim=True)}" if "task_id" in record else ""
        text = f"{record['message']}{self.style(facts, dim=True)}{task}"
        trace = record.get("exception")
        self._print(_local(record["time"]), who, record["level"], f"{text}\n{trace}" if trace else text)

    def _print(self, moment: str, who: str, level: str, text: str) -> None:
        first, *rest = text.split("\n")
        if level in _COLOURS:
            first = self.style(f"{level}: {first}", fg=_COLOURS[level])
        name = self.style(f"{who:<4}", fg="white" if who == "dev" else _NAMES[sum(who.encode()) % len(_NAMES)])
        lines = [f"{self.style(moment, dim=True)} {name} {first}", *(f"              {line}" for line in rest)]
        if self._held is not None and level not in _COLOURS:
            self._held.append("\n".join(lines))
            return
        click.echo("\n".join(lines), file=self._stream, color=self._colour)


def _log_record(line: str) -> dict[str, Any] | None:
    """The parts of a log line in JSON; None for anything else."""
    if not line.startswith('{"time":'):
        return None
    try:
        record = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    whole = isinstance(record, dict) and all(isinstance(record.get(name), str) for name in ("time", "level", "message"))
    return record if whole else None


def _local(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return moment[11:19]


class ScreenHandler(logging.Handler):
    """Log lines of this process, on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        trace = f"\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else ""
        who = "api" if record.name.startswith("headrace_api") else "dev"
        text = clean(record.getMessage(), 4_096)
        self._screen.say(f"{text}{trace}", level=record.levelname.lower(), who=who)


@contextmanager
def shown_logs(screen: Screen, package: str) -> Iterator[None]:
    """Show the log lines of this process on the screen: all of headrace and of the application, else warnings."""
    handler, root = ScreenHandler(screen), logging.getLogger()
    root.addHandler(handler)
    for name in ("headrace", "headrace_api", package):
        logging.getLogger(name).setLevel(logging.INFO)
    # What it says of a dead worker, the supervisor says with more.
    logging.getLogger("headrace.worker").setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(handler)
