"""How long the tasks of one queue take, type by type, by what one worker runs: the latest count most.

A type's share is of the attempts that began: by those that ended, slow tasks would not count for as long as they take.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from headrace.broker.demand import TypeTime

NEWEST: Final = 0.1
"""Weight of one attempt; of many at once, as if one after the other."""
MOST_TYPES: Final = 6
"""So many are told, those with the largest shares: a beat is a few hundred bytes at most."""
LEAST_SHARE: Final = 0.001
"""What began so seldom lately is not told."""


class Spent:
    """One type, since the process began. The executor counts here, once an attempt each, so there are no methods."""

    __slots__ = ("begun", "ended", "seconds")

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.seconds = 0.0


class _Lately:
    """What the counts of one type come to."""

    __slots__ = ("begun", "ended", "mean_s", "seconds", "share")

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.seconds = 0.0
        self.mean_s: float | None = None
        self.share = 0.0

    def look(self, spent: Spent) -> int:
        """Learn from what ended; returns how many began."""
        ended, began = spent.ended - self.ended, spent.begun - self.begun
        if ended:
            fresh = (spent.seconds - self.seconds) / ended
            self.mean_s = fresh if self.mean_s is None else self.mean_s + _weight(ended) * (fresh - self.mean_s)
        self.begun, self.ended, self.seconds = spent.begun, spent.ended, spent.seconds
        return began


class ServiceTimes:
    """Of one queue in one worker."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, Spent] = defaultdict(Spent)
        self._lately: defaultdict[str, _Lately] = defaultdict(_Lately)
        self._begun = False

    def look(self) -> None:
        """With each beat."""
        began = {name: self._lately[name].look(spent) for name, spent in self.spent.items()}
        total = sum(began.values())
        if not total:
            return
        weight = _weight(total) if self._begun else 1.0
        self._begun = True
        for name, each in self._lately.items():
            each.share += weight * (began.get(name, 0) / total - each.share)

    @property
    def seconds(self) -> float | None:
        """What an attempt takes by the present mix; None before the first one ended."""
        known = [(each.share, each.mean_s) for each in self._lately.values() if each.mean_s is not None]
        shares = sum(share for share, _ in known)
        if not known:
            return None
        return sum(share * mean_s for share, mean_s in known) / shares if shares else known[0][1]

    def types(self) -> tuple[TypeTime, ...]:
        """The largest shares first; nothing before the first attempt ended."""
        if self.seconds is None:
            return ()
        found = [TypeTime(name, each.share, each.mean_s) for name, each in self._lately.items()]
        found = [each for each in found if each.share >= LEAST_SHARE]
        return tuple(sorted(found, key=lambda each: -each.share)[:MOST_TYPES])


def _weight(count: int) -> float:
    return 1.0 - (1.0 - NEWEST) ** count
