"""What goes wrong while a workload runs: nobody reaches Redis, nobody decides, tasks are cancelled by the hundred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Span:
    """From a moment to another one, at which it is over."""

    begin_s: float
    end_s: float

    def holds(self, s: float) -> bool:
        return self.begin_s <= s < self.end_s


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Of many tasks at once. Those of them that wait then are gone; what runs goes on."""

    at_s: float
    tasks: frozenset[int]
    """Their places in the workload."""


@dataclass(frozen=True, slots=True)
class Mishaps:
    """Of one workload, the same for every policy."""

    redis_away: tuple[Span, ...] = ()
    """Nobody submits, claims or looks. What was due to be submitted is as soon as Redis is back, and waits from when it
    was due."""
    decider_away: tuple[Span, ...] = ()
    """Nobody decides; who does so afterwards has forgotten what was only in its memory. Workers go on."""
    cancellations: tuple[Cancellation, ...] = ()

    def reachable_s(self, s: float) -> float:
        """The first moment from then on at which Redis answers."""
        for span in self.redis_away:
            if span.holds(s):
                return span.end_s
        return s

    def cancelled_s(self) -> dict[int, float]:
        """Task → when it is cancelled. Whether it ran before that differs, so no figure counts any of them."""
        return {task: each.at_s for each in self.cancellations for task in each.tasks}


NO_MISHAPS: Final = Mishaps()
