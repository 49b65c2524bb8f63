"""What the cluster refused is asked for again at growing intervals: it will mostly be refused again. Pure."""

from __future__ import annotations

from typing import Final

from .cluster import Refused
from .spec import InvalidSpec

LONGEST_S: Final = 60.0
Wish = tuple[object, ...]


class Refusals:
    """Of one pool: at once, then after 1, 2, 4 … 60 s; another wish is another matter."""

    def __init__(self) -> None:
        self._wish: Wish | None = None
        self._error: InvalidSpec | Refused | None = None
        self._wait_s = 0.0
        self._again_s = 0.0

    def standing(self, wish: Wish, now_s: float) -> InvalidSpec | Refused | None:
        """The answer, where it is too early to ask again."""
        return self._error if wish == self._wish and now_s < self._again_s else None

    def refused(self, wish: Wish, error: InvalidSpec | Refused, now_s: float) -> None:
        """It was asked for at `now_s`, in monotonic seconds."""
        self._wait_s = min(LONGEST_S, self._wait_s * 2) if wish == self._wish else 1.0
        self._wish, self._error, self._again_s = wish, error, now_s + self._wait_s

    def granted(self) -> None:
        """Nothing is refused any more."""
        self._wish = self._error = None
