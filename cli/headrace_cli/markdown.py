"""What the pages that are made from the code have in common."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["cell", "table"]


def cell(text: str) -> str:
    """The text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; '' if it has no rows."""
    lines = [f"| {' | '.join(map(cell, row))} |\n" for row in (columns, *rows)]
    lines.insert(1, f"|{' --- |' * len(columns)}\n")
    return "".join(lines) if len(lines) > 2 else ""
