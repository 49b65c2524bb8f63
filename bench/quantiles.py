"""The quantile of all benchmarks: a value that occurred, never one between two."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

Value = TypeVar("Value", int, float)


def quantile(values: Iterable[Value], share: float) -> Value:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
