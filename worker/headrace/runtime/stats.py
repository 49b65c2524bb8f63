"""What a worker counts. Written by the event loop only, read by it at a scrape: plain numbers, no locks.

prometheus-client's counters take a lock each and cost more than the rest of a task's bookkeeping; `headrace.metrics`
turns these numbers into Prometheus' text when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from headrace.task import Priority

if TYPE_CHECKING:
    from headrace.broker.reclaiming import Reclaimed
    from headrace.broker.safety import Risk

DURATION_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
WAIT_BUCKETS: Final = (
    0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0,
)  # fmt: skip
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FIRST: Final = 0.005
"""The first bound of the hot histograms: nearly all no-op tasks end below it, and a comparison beats a search."""

OUTCOMES: Final = ("completed", "retrying", "failed", "cancelled")
"""How an attempt of a known type ends, as `State` calls it."""
REASONS: Final = ("error", "timeout", "invalid_payload", "malformed", "crashed")
"""Why a task was dead-lettered. A closed set: handlers' own words must not become labels."""
VERDICTS: Final = ("dup", "stale", "gone")
"""What Redis says of a report that it did not accept anew."""
UNKNOWN: Final = ""
"""The type of what cannot be read; its label is `unknown`."""


class Histogram:
    """Counts per bucket (the last one is above all bounds) and the sum of what was observed, in seconds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound as Prometheus writes it, observations up to it), the last one `+Inf`."""
        return list(zip((*map(repr, self.bounds), "+Inf"), accumulate(self.counts), strict=True))


class TypeStats:
    """One task type. `started` and `ended` run once a task each, so they are flat code without calls."""

    __slots__ = ("_duration_counts", "_wait_counts", "dead", "duration", "outcomes", "timeouts", "waits")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.dead = dict.fromkeys(REASONS, 0)
        self.timeouts = 0
        self.duration = Histogram(DURATION_BUCKETS)
        self.waits = [Histogram(WAIT_BUCKETS) for _ in Priority]
        """By priority."""
        self._duration_counts = self.duration.counts
        self._wait_counts = [wait.counts for wait in self.waits]

    def started(self, priority: int, wait_s: float) -> None:
        """An attempt begins; `wait_s` since its task could have been claimed."""
        priority &= 3  # a hostile envelope may hold any number
        if wait_s <= _FIRST:
            self._wait_counts[priority][0] += 1
            if wait_s < 0.0:  # two clocks; a sum must not fall
                return
        else:
            self._wait_counts[priority][bisect_left(WAIT_BUCKETS, wait_s)] += 1
        self.waits[priority].sum += wait_s

    def ended(self, outcome: str, duration_s: float, reason: str = "") -> None:
        """An attempt ended. `reason` (one of REASONS, anything else counts as `error`) says why it went wrong."""
        self.outcomes[outcome] += 1
        self._duration_counts[0 if duration_s <= _FIRST else bisect_left(DURATION_BUCKETS, duration_s)] += 1
        self.duration.sum += duration_s
        if reason:
            self._went_wrong(outcome, reason)

    def never_run(self, outcome: str) -> None:
        """A task ended without an attempt, so there is no duration."""
        self.outcomes[outcome] += 1

    def _went_wrong(self, outcome: str, reason: str) -> None:
        if reason == "timeout":
            self.timeouts += 1
        if outcome == "failed":
            self.dead[reason if reason in self.dead else "error"] += 1


class WorkerStats:
    """One worker process."""

    def __init__(self, types: Iterable[str], slots: int = 0) -> None:
        self.types: dict[str, TypeStats] = {name: TypeStats() for name in (*types, UNKNOWN)}
        """Every registered type from the start, so that rates begin at 0, and UNKNOWN."""
        self.slots = slots
        self.busy = 0
        self.leaked = 0
        """Handlers that outlived their hard timeout, in all."""
        self.heartbeat_s = 0.0
        """Unix time of the last beat that Redis answered; 0 = none yet."""
        self.redis_up = False
        self.redis_errors = 0
        self.risks: Mapping[Risk, str] = {}
        """By which of its settings Redis may lose tasks."""
        self.redelivered = 0
        """Tasks that this process took from dead workers and handed on."""
        self.parked = 0
        self.expired = 0
        """Tasks that were cancelled because nobody had begun them in time."""
        self.purged = 0
        """Dead letters that this process deleted."""
        self.verdicts: dict[str, int] = dict.fromkeys(VERDICTS, 0)
        self.lag = Histogram(LAG_BUCKETS)

    def reclaimed(self, done: Reclaimed) -> None:
        """What became of a dead worker's tasks. Those it sent to the dead letter are counted by nobody else."""
        self.redelivered += len(done.handed_on)
        for dead in done.buried:
            stats = self.types.get(dead.type, self.types[UNKNOWN])
            stats.outcomes["failed"] += 1
            stats.dead["crashed" if dead.type else "malformed"] += 1

    def loop_lag(self, seconds: float) -> None:
        """How much later than planned the event loop came to something."""
        self.lag.observe(max(0.0, seconds))
