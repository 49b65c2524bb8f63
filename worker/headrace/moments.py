"""A moment in a filter: how long ago (`2h`), a time (`2026-01-15T10:30:00Z`) or a day (`2026-01-15`, in UTC)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

_AGO_FORM: Final = r"([0-9]{1,9})(ms|s|m|h|d|w)"
_DAY_FORM: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK_FORM: Final = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
FORM: Final = rf"({_AGO_FORM}|{_DAY_FORM}([Tt ]{_CLOCK_FORM})?)"
"""What a moment looks like; not every text of this form is one, for a day must be in the calendar."""
_AGO: Final = re.compile(_AGO_FORM)
_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TIME: Final = re.compile(rf"{_DAY_FORM}([Tt ]{_CLOCK_FORM})?")

WORDS: Final = "how long ago (90s, 15m, 2h, 3d, 1w), a time with its zone (2026-01-15T10:30:00Z) or a day (2026-01-15)"


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment as it was written, and what that was when it was read."""

    text: str
    ms: int
    """Unix time; never before 1970."""

    @classmethod
    def parse(cls, text: str, now_ms: int) -> Self:
        """Read a moment. ValueError for any other text."""
        ago = _AGO.fullmatch(text)
        if ago:
            return cls(text, max(0, now_ms - int(ago[1]) * _UNITS[ago[2]]))
        if not _TIME.fullmatch(text):
            raise ValueError(f"{text!r} is no moment")
        moment = datetime.fromisoformat(text.upper())
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return cls(text, max(0, round(seconds * 1000)))
