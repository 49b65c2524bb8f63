"""The table of failure modes in docs/guarantees.md: mode → tests, read by those who check it and those who run it."""

from __future__ import annotations

import re
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
_ROW: Final = re.compile(r"^\| ([FOH]\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_TEST: Final = re.compile(r"`(test_\w+)::(test_\w+)`")


@dataclass(frozen=True)
class Mode:
    """One row."""

    name: str
    what: str
    tests: tuple[tuple[str, str], ...]
    """Module and function."""
    result: str


def read(page: Path = PAGE) -> list[Mode]:
    """All rows, in the order of the page."""
    rows = _ROW.findall(page.read_text())
    return [Mode(name, what, tuple(_TEST.findall(tests)), result) for name, what, tests, result in rows]
