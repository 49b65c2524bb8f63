"""Log lines: JSON for machines, colours for a terminal, and nothing that a client sent can forge one.

Control characters, bidirectional overrides and lone surrogates are shown as escapes, every text is cut at a length, and
payloads are never logged. A line written inside a handler, by whatever logger, carries the task it belongs to; another
line gets it by `extra={"ctx": ctx}`. More facts go into `extra={"fields": {…}}`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from headrace.context import Ctx, current_ctx

MAX_MESSAGE: Final = 8_192
"""Characters of a message."""
MAX_FIELD: Final = 256
"""Characters of any other text."""
MAX_TRACE: Final = 16_384
"""Characters of a traceback; its end is kept, where the error stands."""

# C0, DEL, C1, bidi marks and overrides, line separators, zero-width no-break space, surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNSAFE_BUT_NEWLINE = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

_encode = msgspec.json.Encoder().encode


def clean(text: str, limit: int = MAX_FIELD) -> str:
    """The text on one line, with what could deceive a reader shown as escapes, cut at `limit` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}…[{len(text) - limit} more]"
    return _UNSAFE.sub(_escape, cut)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C traceparent; None if it holds none."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


def _task_fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    given = getattr(record, "ctx", None)  # somebody else's line may have one that is another thing
    ctx: Ctx[Any] | None = given if isinstance(given, Ctx) else current_ctx.get()
    if ctx is not None:
        yield "task_id", clean(ctx.id)
        yield "type", clean(ctx.type)
        yield "attempt", ctx.attempt
        if found := trace_id(ctx.trace):
            yield "trace_id", found


def _extra_fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    fields = getattr(record, "fields", None)
    for name, value in fields.items() if isinstance(fields, Mapping) else ():
        yield clean(str(name), 64), _fact(value)


def _fact(value: Any) -> str | float | bool | None:
    """What JSON can say of it: of a number's subclass, such as numpy's, only the number."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else clean(str(value))


def _trace(record: logging.LogRecord) -> str:
    """The traceback, if the line has one; its newlines stay."""
    text = logging.Formatter().formatException(record.exc_info) if record.exc_info else record.exc_text or ""
    if record.stack_info:
        text = f"{text}\n{record.stack_info}".strip()
    cut = text if len(text) <= MAX_TRACE else f"[{len(text) - MAX_TRACE} characters cut]…{text[-MAX_TRACE:]}"
    return _UNSAFE_BUT_NEWLINE.sub(_escape, cut)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, task_id, type, attempt, trace_id, …"""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": clean(record.name),
            "message": clean(record.getMessage(), MAX_MESSAGE),
            **dict(_task_fields(record)),
        }
        for name, value in _extra_fields(record):
            line.setdefault(name, value)
        if trace := _trace(record):
            line["exception"] = trace
        return _encode(line).decode()


_COLOURS: Final = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


class TextFormatter(logging.Formatter):
    """One readable line, then an indented traceback if there is one: no message can pass for another line."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = self._paint(_COLOURS.get(record.levelname, "0"), f"{record.levelname:<8}")
        facts = {**dict(_extra_fields(record)), **dict(_task_fields(record))}
        tail = self._paint("2", "".join(f"  {name}={value}" for name, value in facts.items()))
        head = f"{self._paint('2', moment)} {level} {clean(record.getMessage(), MAX_MESSAGE)}{tail}"
        return "\n    ".join([head, *_trace(record).splitlines()])

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and text else text


def setup_logging(
    level: str = "info",
    json: bool | None = None,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> logging.Handler:
    """Send all log lines to `stream` (default: stderr), replacing what an earlier call set up; returns the handler.

    `json` None means: JSON unless the stream is a terminal. NO_COLOR and TERM=dumb are honoured.
    """
    target = stream or sys.stderr
    terminal = target.isatty()
    handler = _Handler(target)
    if json or (json is None and not terminal):
        handler.setFormatter(JsonFormatter())
    else:
        colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        handler.setFormatter(TextFormatter(colour))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second setup replaces it and nothing else."""
