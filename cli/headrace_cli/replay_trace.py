"""A recorded trace: when each request came, and how large it was."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

from headrace.errors import ConfigError

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_EXAMPLE: Final = "2023-11-16 18:17:03.9799600,4808,10"

CONTEXT_TOKEN_S: Final = 0.0002
GENERATED_TOKEN_S: Final = 0.03
"""The trace holds no durations; these model one: seconds for each token read, and for each token written."""


class TraceError(ConfigError):
    """A trace that cannot be read; says where and what is wrong."""

    code = "trace"


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request."""

    number: int
    """From 0, in the order of the file."""
    at_s: float
    """Seconds after the first request."""
    context_tokens: int
    generated_tokens: int

    @property
    def duration_s(self) -> float:
        """How long it takes, by the model above."""
        return duration_s(self.context_tokens, self.generated_tokens)


def duration_s(context_tokens: int, generated_tokens: int) -> float:
    """The modelled duration of a request."""
    return CONTEXT_TOKEN_S * context_tokens + GENERATED_TOKEN_S * generated_tokens


def read_trace(path: Path, limit: int | None = None) -> list[Row]:
    """The first `limit` rows (None: all), by time. Raises TraceError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(_rows(file, path, limit))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise TraceError(f"The trace {path} cannot be read: {why}", "Name a CSV file") from None
    if not rows:
        raise TraceError(f"The trace {path} has no rows", f"It should have the columns {', '.join(COLUMNS)}")
    return sorted(rows, key=lambda row: row.at_s)


def _rows(file: TextIO, path: Path, limit: int | None) -> Iterator[Row]:
    reader = csv.DictReader(file)
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise TraceError(
            f"The trace {path} has no column {', '.join(missing)}", f"Its first line is {','.join(COLUMNS)}"
        )
    first: datetime | None = None
    for number, fields in enumerate(reader):
        if number == limit:
            return
        try:
            moment = datetime.fromisoformat(fields[COLUMNS[0]])
            context, generated = (_count(fields[name]) for name in COLUMNS[1:])
        except (ValueError, TypeError) as error:
            raise TraceError(
                f"Line {reader.line_num} of {path} cannot be read ({error})", f"It should look like {_EXAMPLE}"
            ) from None
        first = first or moment
        yield Row(number, (moment - first).total_seconds(), context, generated)


def _count(text: str) -> int:
    if not 0 <= int(text) <= 10_000_000:
        raise ValueError(f"{text} is no number of tokens")
    return int(text)
