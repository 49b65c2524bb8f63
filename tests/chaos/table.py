"""The table of failure modes in docs/guarantees.md: mode → tests → what was seen; read, and its last column written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = ROOT / "docs/guarantees.md"
MODES: Final = (
    *(f"F{number}" for number in range(1, 29)),
    *(f"O{number}" for number in range(1, 11)),
    *(f"H{number}" for number in range(1, 6)),
)
BEGIN: Final = "<!-- written by make chaos -->\n"
_CELL: Final = r" ([^|]+?) \|"
_ROW: Final = re.compile(rf"^\| ([FOH]\d+) \|{_CELL}{_CELL}{_CELL}(?:{_CELL})?$", re.MULTILINE)
_TEST: Final = re.compile(r"`(test_\w+)::(test_\w+)`")
_BARE: Final = re.compile(r"(?<!\[)`(test_\w+)::(test_\w+)`")
_SUMMARY: Final = re.compile(rf"(?<={re.escape(BEGIN)}).*\n")


@dataclass(frozen=True)
class Mode:
    """One row."""

    name: str
    what: str
    tests: tuple[tuple[str, str], ...]
    """Module and function."""
    result: str
    """What must come of it."""
    seen: str
    """What came of it in the last `make chaos`; empty where that is not written yet."""


def read(page: Path = PAGE) -> list[Mode]:
    """All rows, in the order of the page."""
    rows = _ROW.findall(page.read_text())
    return [Mode(name, what, tuple(_TEST.findall(tests)), result, seen) for name, what, tests, result, seen in rows]


def write(seen: Mapping[str, str], summary: str, page: Path = PAGE) -> None:
    """The last column of the rows named, the line below the table, and a link for each test that has none yet."""

    def row(found: re.Match[str]) -> str:
        name, what, tests, result, before = found.groups()
        return f"| {name} | {what} | {tests} | {result} | {seen.get(name, before or '–')} |"

    text = _ROW.sub(row, page.read_text())
    text = _BARE.sub(r"[`\1::\2`](../tests/\1.py)", text)
    page.write_text(_SUMMARY.sub(lambda _: f"{summary}\n", text))
