"""A worker that is asked to leave: it claims no more, and its beats say so and what it still runs.

Whoever asked (a scaler) takes a worker away only when a beat says that it drains and runs nothing; it may also change
its mind, and then the worker claims again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from headrace.broker.demand import WorkerBeat
from headrace.runtime.claims import QueueClaims
from headrace.runtime.stats import WorkerStats

logger = logging.getLogger("headrace.worker")

NEWEST: Final = 0.1
"""Weight of one attempt in the mean duration; of many that ended together, as if one after the other."""


class Handshake:
    """Of one worker."""

    def __init__(self, claims: Mapping[str, QueueClaims], stats: WorkerStats) -> None:
        self._claims = claims
        self._mean = MeanDuration(stats)
        self._asked: set[str] = set()

    @property
    def draining(self) -> bool:
        """Whether it is asked to claim no more, in any of its queues."""
        return bool(self._asked)

    def heard(self, queue: str, drain: bool) -> bool:
        """What a beat was answered. Whether that is news, which the next beat should tell soon."""
        before = self.draining
        if drain:
            self._asked.add(queue)
        else:
            self._asked.discard(queue)
        if self.draining is before:
            return False
        logger.info("asked to drain" if self.draining else "asked to work again")
        for claims in self._claims.values():
            claims.drain(self.draining)
        return True

    def load(self, running: int) -> str:
        """What the next beat says. While something is out that may still claim or report, it does not count as idle."""
        if self.draining and any(claims.busy for claims in self._claims.values()):
            running = max(1, running)
        return WorkerBeat(0, running, self.draining, self._mean.seconds).load()

    def look(self) -> None:
        """With each beat: how long tasks take lately."""
        self._mean.look()


class MeanDuration:
    """How long an attempt takes, the latest ones most; from counts that are kept anyway."""

    def __init__(self, stats: WorkerStats) -> None:
        self._stats = stats
        self._count, self._sum = self._totals()
        self.seconds: float | None = None
        """None before the first attempt ended."""

    def look(self) -> None:
        count, total = self._totals()
        if count > self._count:
            fresh = (total - self._sum) / (count - self._count)
            weight = 1 - (1 - NEWEST) ** (count - self._count)
            self.seconds = fresh if self.seconds is None else self.seconds + weight * (fresh - self.seconds)
            self._count, self._sum = count, total

    def _totals(self) -> tuple[int, float]:
        durations = [each.duration for each in self._stats.types.values()]
        return sum(sum(each.counts) for each in durations), sum(each.sum for each in durations)
