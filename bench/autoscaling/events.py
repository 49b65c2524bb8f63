"""The virtual clock: what is to happen, in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Agenda:
    """Calls that are due at moments of a virtual time, in seconds from 0. Equal moments keep their order."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()

    def at(self, s: float, call: Callable[[], object]) -> None:
        """Call it then, or now if that is over."""
        heapq.heappush(self._due, (max(s, self.now_s), next(self._order), call))

    def run(self, over: Callable[[], bool], limit_s: float) -> None:
        """Until `over`, or until nothing is due any more. Raises RuntimeError at the limit."""
        while self._due and not over():
            self.now_s, _, call = heapq.heappop(self._due)
            if self.now_s > limit_s:
                raise RuntimeError(f"not over after {limit_s:.0f} simulated seconds")
            call()
