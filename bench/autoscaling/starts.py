"""How long pods take to start: each by itself, or on a node that they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from .events import Agenda


@dataclass(frozen=True, slots=True)
class Start:
    """One pod that is made now."""

    number: int
    nth: int
    """From 0, of those that are made in this moment."""
    together: int
    """So many are."""
    ready: Callable[[], None]
    """To be called when it is."""


class StartUp(Protocol):
    """The starts of a pool's pods, for one run after the other."""

    def begin(self, agenda: Agenda) -> Callable[[Start], None]:
        """A run begins: what is to be called with each pod."""


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Each pod draws its own time. By seed and number, so that every policy meets the same pods."""

    median_s: float = 5.0
    sigma: float = 0.4
    seed: int = 0

    def begin(self, agenda: Agenda) -> Callable[[Start], None]:
        return lambda start: agenda.at(agenda.now_s + self.seconds(start.number), start.ready)

    def seconds(self, number: int) -> float:
        return self.median_s * math.exp(Random(f"{self.seed}:{number}").gauss(0.0, self.sigma))

    @property
    def mean_s(self) -> float:
        return self.median_s * math.exp(self.sigma**2 / 2)


@dataclass(frozen=True, slots=True)
class SmallNode:
    """The node of two cores on which KEDA was measured. Pods that are made together slow each other down.

    Alone 0.4 s to the first task; of 10 together, the last is Ready after 1.5 s; of 20, the first after 3.3 s and the
    last after 5.5 s, and it works 1.4 s later.
    """

    alone_s: float = 0.4
    each_s: float = 0.15
    turn_s: float = 0.18

    def begin(self, agenda: Agenda) -> Callable[[Start], None]:
        return lambda start: agenda.at(agenda.now_s + self.seconds(start.nth, start.together), start.ready)

    def seconds(self, nth: int, together: int) -> float:
        return self.alone_s + (self.each_s * (together - 1) + self.turn_s * nth) * together / 20


@dataclass(frozen=True, slots=True)
class SharedNode:
    """Whatever starts on it shares it, whenever it was made: n starts take the node n times as long as one.

    Not evenly: by weights that are lognormal. So some are early, most are late, and the last one is when all are done.
    """

    each_s: float
    """Of the whole node."""
    apart_s: float = 0.0
    """Of a start, before that, in which it takes nothing of the node."""
    sigma: float = 0.45
    seed: int = 0

    def begin(self, agenda: Agenda) -> Callable[[Start], None]:
        starting = Starting(self, agenda)
        return lambda start: agenda.at(agenda.now_s + self.apart_s, partial(starting.begin, start))


class Starting:
    """The starts that are under way on a shared node."""

    def __init__(self, node: SharedNode, agenda: Agenda) -> None:
        self._node, self._agenda = node, agenda
        self._left_s: dict[Start, float] = {}
        """What each still needs of the node, had it the node for itself."""
        self._weights: dict[Start, float] = {}
        self._seen_s = 0.0
        self._changes = 0

    def begin(self, start: Start) -> None:
        self._progress()
        self._left_s[start] = self._node.each_s
        random = Random(f"{self._node.seed}:{start.number}")
        self._weights[start] = math.exp(random.gauss(0.0, self._node.sigma))
        self._await_next()

    def _progress(self) -> None:
        """Up to now."""
        passed_s, self._seen_s = self._agenda.now_s - self._seen_s, self._agenda.now_s
        whole = sum(self._weights[start] for start in self._left_s)
        for start in self._left_s:
            self._left_s[start] -= passed_s * self._weights[start] / whole

    def _await_next(self) -> None:
        self._changes += 1
        if self._left_s:
            whole = sum(self._weights[start] for start in self._left_s)
            needs_s = {start: left_s * whole / self._weights[start] for start, left_s in self._left_s.items()}
            start = min(needs_s, key=lambda each: (needs_s[each], each.number))
            self._agenda.at(self._agenda.now_s + needs_s[start], partial(self._done, start, self._changes))

    def _done(self, start: Start, change: int) -> None:
        if change == self._changes:  # else another start came in between
            self._progress()
            del self._left_s[start]
            start.ready()
            self._await_next()
