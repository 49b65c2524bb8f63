"""What kopf says, as far as somebody wants to read it."""

from __future__ import annotations

import logging
import re
from typing import Final

_SILENT: Final = ("kopf.objects", "kopf.activities", "kopf._core.engines.activities")
"""They say of every object that it was handled, and of every login that it began and ended."""
_REQUESTING: Final = ("kopf._cogs.clients.watching", "kopf._core.reactor.observation")
"""Whoever tries a request again for ever says so under its own name."""
_ATTEMPT: Final = re.compile(r"Request attempt #(\d+)\b.* failed; will retry")


def rare(record: logging.LogRecord) -> bool:
    """Of the tries of one request the 1st, 2nd, 4th, 8th: an API server that is away for a day is no news each 8 s."""
    found = _ATTEMPT.match(record.getMessage())
    return found is None or int(found[1]).bit_count() == 1


def calm() -> None:
    """For this process; a second time changes nothing."""
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _REQUESTING:
        logging.getLogger(name).addFilter(rare)
