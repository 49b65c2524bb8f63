"""How often something may happen: `100/s`, `6000/min`, `10000/h`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

FORM: Final = r"([1-9][0-9]{0,8})/(s|min|h)"
_FORM: Final = re.compile(FORM)
_WINDOWS: Final = {"s": 1, "min": 60, "h": 3_600}
ALLOWED: Final = "a whole number per s, min or h, as in 100/s or 6000/min"


@dataclass(frozen=True)
class Rate:
    """A bucket of `count` permits that fills evenly within its window."""

    count: int
    unit: str
    """s, min or h."""

    @property
    def window_s(self) -> int:
        """Seconds in which an empty bucket fills."""
        return _WINDOWS[self.unit]

    @classmethod
    def parse(cls, given: str) -> Self:
        """Raises ValueError with a sentence."""
        match = _FORM.fullmatch(given.strip())
        if match is None:
            raise ValueError(f"{given.strip()[:40]!r} is no rate; write {ALLOWED}")
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"
