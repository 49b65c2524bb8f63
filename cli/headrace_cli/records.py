"""Records in the five forms of `-o`: tables for people (`wide`: all columns), JSON and YAML whole, names for xargs.

A command says once what it lists: `Listing(columns, name, none)`; `show_all` and `show_one` do the rest.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import click

from .output import coloured, note, print_json, print_yaml

__all__ = ["FORMS", "Cell", "Column", "Listing", "say", "show_all", "show_one", "span"]

T = TypeVar("T")
Cell = str | int | float | bool | None
FORMS: Final = ("table", "wide", "json", "yaml", "name")
_MAX_CELL: Final = 2_000


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table."""

    title: str
    cell: Callable[[T], Cell]
    wide: bool = False
    """Shown with `-o wide` only."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """How records of one kind are listed. A terminal cuts the last column at its edge, and no other."""

    columns: Sequence[Column[T]]
    name: Callable[[T], str]
    """What `-o name` prints: what other commands take as an argument."""
    none: str
    """The sentence for people when there is no record."""


def show_all(records: Sequence[T], listing: Listing[T], form: str) -> None:
    """Print records as `form` asks. An empty list is an empty list in JSON, and a sentence on standard error."""
    if _printed_as_data(list(records), form):
        return
    if form == "name":
        for each in records:
            click.echo(listing.name(each))
    elif not records:
        note(listing.none)
    else:
        _print_table(records, [each for each in listing.columns if form == "wide" or not each.wide])


def show_one(record: Any, name: str, lines: Iterable[str], form: str) -> None:
    """Print one record: `lines` are for people."""
    if _printed_as_data(record, form):
        return
    for line in [name] if form == "name" else lines:
        click.echo(line)


def say(record: Any, name: str, words: str, form: str) -> None:
    """Print what became of something: `name: words`."""
    show_one(record, name, [f"{name}: {words}"], form)


def _printed_as_data(value: Any, form: str) -> bool:
    if form == "json":
        print_json(value)
    elif form == "yaml":
        print_yaml(value)
    return form in {"json", "yaml"}


def _print_table(records: Sequence[T], columns: Sequence[Column[T]]) -> None:
    rows = [[_text(each.cell(record)) for each in columns] for record in records]
    titles = [each.title for each in columns]
    right = [all(isinstance(each.cell(record), int | float | None) for record in records) for each in columns]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for at, row in enumerate([titles, *rows]):
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        line = _cut("  ".join(cells).rstrip(), sum(widths[:-1]) + 2 * len(widths[:-1]), edge)
        click.echo(click.style(line, bold=True) if not at else line, color=coloured(sys.stdout))


def _cut(line: str, last: int, edge: int | None) -> str:
    """The line without what its last column, which begins at `last`, has beyond the edge."""
    if edge is None or len(line) <= edge or last >= edge - 10:
        return line
    return line[: edge - 1] + "…"


def _text(cell: Cell) -> str:
    from headrace.logs import clean

    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int | float):
        return f"{cell:,}"
    return clean(cell, _MAX_CELL) if cell else "-"


def span(seconds: float | None) -> str | None:
    """A length of time as people say it, in two units at most: 0.4s, 12s, 3m20s, 2h5m, 4d6h."""
    if seconds is None:
        return None
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit}" + (f"{rest}{smaller}" if rest else "")
    return f"{whole}s"
