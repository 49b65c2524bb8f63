"""How long a test of faults goes on, and from which seed."""

from __future__ import annotations

import os
import secrets
from random import Random
from typing import Final

FULL: Final = os.environ.get("CHAOS") == "full"
"""`make chaos` sets it: the numbers that docs/guarantees.md states."""


def rounds(quick: int, full: int) -> int:
    """How often: a few times in every CI, the stated number in `make chaos`."""
    return full if FULL else quick


_told: list[str] = []


def tell(words: str) -> None:
    """Print what was seen, for whoever reads the output (pytest shows it with -s, and of tests that failed).

    One line of it comes into the table of docs/guarantees.md.
    """
    print(words)
    if "\n" not in words:
        _told.append(words)


def told() -> list[str]:
    """What was told since the last time."""
    words = _told.copy()
    _told.clear()
    return words


def dice(name: str) -> Random:
    """Seeded by CHAOS_SEED; without it by 1, in `make chaos` by a fresh number. The seed is printed."""
    given = os.environ.get("CHAOS_SEED")
    seed = int(given) if given else secrets.randbelow(10**6) if FULL else 1
    print(f"{name}: CHAOS_SEED={seed}")
    return Random(f"{name} {seed}")
