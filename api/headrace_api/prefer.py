"""`Prefer: wait=10` (RFC 7240): how long a client would wait. What else it prefers is ignored, as it may be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from multidict import istr

_WAIT: Final = re.compile(r'wait[ \t]*=[ \t]*"?(\d{1,9})"?[ \t]*(;.*)?', re.IGNORECASE | re.ASCII)
PREFER: Final = istr("Prefer")


def preferred_wait(headers: Iterable[str], limit_s: float) -> int | None:
    """The whole seconds to wait, at most `limit_s`; None if no header says so. The first one counts."""
    for each in (part.strip() for header in headers for part in header.split(",")):
        if found := _WAIT.fullmatch(each):
            return min(int(found[1]), int(limit_s))
    return None


def applied(wait_s: int) -> dict[str, str]:
    """The header that says so."""
    return {"Preference-Applied": f"wait={wait_s}"}
