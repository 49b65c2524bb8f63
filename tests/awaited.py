"""Waiting for what another process brings about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], good: Callable[[T], object], what: str, timeout_s: float = 60) -> T:
    """What `look` gives, once that is good; the failure tells the last look."""
    deadline, seen = time.monotonic() + timeout_s, look()
    while not good(seen):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last seen: {seen}"
        time.sleep(0.2)
        seen = look()
    return seen
