"""When the API server is not asked: for as long as it wants, and a growing while after it could not be reached. Pure.

A thousand pools that cannot write would else ask a thousand times a second, for all the minutes that it is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LONGEST_S: Final = 5.0
"""Whatever happens: pools are led on within seconds of its return."""
UNSAID_S: Final = 1.0
"""As long as a server that wants fewer requests, and does not say when they may come again."""
BUSY: Final = frozenset({429, 502, 503})
"""Too many requests, or nobody behind a proxy who could answer any."""


@dataclass(frozen=True, slots=True)
class _Pause:
    until_s: float
    why: str


class Holdoff:
    """Of one process."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}
        """Resource → until when; '' stands for all of them."""
        self._wait_s = 0.0
        self._away = False

    def standing(self, resource: str, now_s: float) -> str:
        """Why nothing is to be asked of this resource now; '' if it may be."""
        pauses = (self._pauses.get(each) for each in ("", resource))
        return next((each.why for each in pauses if each is not None and now_s < each.until_s), "")

    def silent(self) -> bool:
        """It was asked, and no answer came: that may be a matter of this one request. Whether that is news."""
        fresh, self._away = not self._away, True
        return fresh

    def unreachable(self, why: str, now_s: float) -> bool:
        """Nobody was there: the next try after 0.5, 1, 2, 4, 5, 5 … s. Whether that is news.

        Tries that were out together count once.
        """
        if not self.standing("", now_s):
            self._wait_s = min(LONGEST_S, self._wait_s * 2 or 0.5)
            self._pauses[""] = _Pause(now_s + self._wait_s, why)
        return self.silent()

    def busy(self, resource: str, headers: Mapping[str, str], why: str, now_s: float) -> bool:
        """It answered that it is. Whether that is news. What is too much of one kind need not be of another."""
        fresh = resource not in self._pauses
        self._pauses[resource] = _Pause(now_s + wished_s(headers), why)
        return fresh

    def reached(self, resource: str) -> bool:
        """It answered. Whether that is news."""
        fresh, self._away, self._wait_s = self._away, False, 0.0
        self._pauses.pop("", None)
        self._pauses.pop(resource, None)
        return fresh


def wished_s(headers: Mapping[str, str]) -> float:
    """How long a server wants to be left alone. A date is not worth a clock that may be wrong."""
    given = headers.get("Retry-After", "")
    return min(LONGEST_S, float(given)) if given.isdecimal() else UNSAID_S
