"""What commands print: colour in a terminal, none in a pipe; tables for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["coloured", "complain", "console", "note", "print_json", "print_table"]


def coloured(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: in a terminal, unless NO_COLOR or TERM=dumb asks for none."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def console(stream: TextIO | None = None) -> Console:
    """A console of rich on this stream (default: standard output)."""
    from rich.console import Console

    target = stream or sys.stdout
    return Console(file=target, no_color=not coloured(target), highlight=False, soft_wrap=not target.isatty())


def complain(sentence: str, detail: str = "") -> None:
    """An error on standard error; `detail` (a traceback of the user's own code) comes first, as Python has it."""
    colour = coloured(sys.stderr)
    if detail:
        click.echo(detail.rstrip() + "\n", err=True)
    click.echo(click.style("Error: ", fg="red", bold=True) + sentence, err=True, color=colour)


def note(sentence: str) -> None:
    """Something a person should know, on standard error, so that it is in no pipe."""
    click.echo(click.style(sentence, dim=True), err=True, color=coloured(sys.stderr))


def print_json(value: Any) -> None:
    """Indented JSON. Texts of strangers in it stay escaped where they could deceive a terminal."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    click.echo(text if not sys.stdout.isatty() else _visible(text))


def _visible(text: str) -> str:
    from headrace.logs import clean

    return "\n".join(clean(line, 1 << 20) for line in text.split("\n"))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table: rich's in a terminal, aligned text in a pipe. Numbers are right-aligned."""
    lines = [tuple(row) for row in rows]
    if sys.stdout.isatty():
        _print_rich_table(columns, lines)
        return
    widths = [max(len(row[at]) for row in [columns, *lines]) for at in range(len(columns))]
    for row in [columns, *lines]:
        cells = zip(row, widths, _numeric(lines, len(columns)), strict=True)
        text = "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells)
        click.echo(text.rstrip())


def _print_rich_table(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in zip(columns, _numeric(rows, len(columns)), strict=True):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def _numeric(rows: Sequence[tuple[str, ...]], columns: int) -> list[bool]:
    return [bool(rows) and all(row[at][:1].isdigit() or row[at] == "-" for row in rows) for at in range(columns)]
