"""The name of a request, in its answer and in the log."""

from __future__ import annotations

import itertools
import re
import secrets
from typing import Final

from multidict import istr

HEADER: Final = istr("X-Request-Id")
"""Made once: multidict lowers a plain text at each look."""
_HARMLESS: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_boot: Final = secrets.token_hex(6) + "-"
_numbers: Final = itertools.count(1)


def request_id(given: str | None) -> str:
    """The caller's own id, if it is harmless, else a new one."""
    if given is not None and _HARMLESS.fullmatch(given):
        return given
    return f"{_boot}{next(_numbers)}"
