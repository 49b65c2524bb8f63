"""What comes in, and what goes wrong meanwhile: the patterns, by seed, and the recorded traffic of a code model."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from .mishaps import NO_MISHAPS, Cancellation, Mishaps, Span

TRACE: Final = Path(__file__).parents[2] / "examples" / "data" / "azure-llm-2023-code.csv"
TAIL_S: Final = 400.0
"""What a policy costs after the last arrival counts for so long: KEDA's cooldown is 300 s."""

Tasks = tuple[tuple[float, float], ...]
"""(arrival, seconds of work), by arrival."""
Rate = Callable[[float], float]
"""Tasks per second at a moment."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Tasks, until a horizon at which the bill is made."""

    name: str
    tasks: Tasks
    horizon_s: float
    mishaps: Mishaps = NO_MISHAPS

    @property
    def work_s(self) -> float:
        """Of the tasks that nobody cancels."""
        cancelled = self.mishaps.cancelled_s()
        return math.fsum(seconds for task, (_, seconds) in enumerate(self.tasks) if task not in cancelled)


@dataclass(frozen=True, slots=True)
class Pattern:
    """How to make a workload, and how it is told."""

    words: str
    make: Callable[[Random], Iterator[tuple[float, float]]]
    target_s: float = 10.0
    """The wait above which a task counts as late."""
    mishaps: Callable[[Random, Tasks], Mishaps] = lambda random, tasks: NO_MISHAPS

    def workload(self, name: str, seed: int) -> Workload:
        tasks = tuple(sorted(self.make(Random(f"{name}:{seed}"))))
        mishaps = self.mishaps(Random(f"{name}:{seed}:mishaps"), tasks)
        return Workload(name, tasks, tasks[-1][0] + TAIL_S, mishaps)


def arrivals(random: Random, rate: Rate, most: float, until_s: float) -> Iterator[float]:
    """A Poisson process whose rate changes, never above `most`: by thinning."""
    s = random.expovariate(most)
    while s < until_s:
        if random.random() * most < rate(s):
            yield s
        s += random.expovariate(most)


def lognormal(random: Random, mean_s: float, sigma: float) -> float:
    """Seconds with that mean."""
    return mean_s * math.exp(random.gauss(-(sigma**2) / 2, sigma))


def _changing(
    rate: Rate, most: float, until_s: float, mean_s: float = 1.0, sigma: float = 0.5
) -> Callable[[Random], Iterator[tuple[float, float]]]:
    """Arrivals at a rate, and lognormal tasks."""

    def make(random: Random) -> Iterator[tuple[float, float]]:
        for s in arrivals(random, rate, most, until_s):
            yield s, lognormal(random, mean_s, sigma)

    return make


def _burst(random: Random) -> Iterator[tuple[float, float]]:
    """Two bursts, at moments that no clock of a policy knows."""
    for at_s in (random.uniform(0, 60), random.uniform(700, 760)):
        for _ in range(1_000):
            yield at_s, 1.0


def _poison(random: Random) -> Iterator[tuple[float, float]]:
    for s in arrivals(random, lambda _: 4.0, 4.0, 1_500):
        yield s, 90.0 if random.random() < 0.015 else lognormal(random, 1.0, 0.5)


def _shift(random: Random) -> Iterator[tuple[float, float]]:
    for s in arrivals(random, lambda _: 3.0, 3.0, 1_500):
        yield s, lognormal(random, 1.0 if s < 750 else 5.0, 0.5)


def _outage(random: Random, tasks: Tasks) -> Mishaps:
    """Redis is away for a minute."""
    begin_s = random.uniform(300, 360)
    return Mishaps(redis_away=(Span(begin_s, begin_s + 60.0),))


def _restarts(random: Random, tasks: Tasks) -> Mishaps:
    """About when each flood of the pattern begins, whoever decides is away for 10 s."""
    begins_s = [flood_s + random.uniform(-8, 4) for flood_s in (420, 900, 1_380, 1_860)]
    return Mishaps(decider_away=tuple(Span(s, s + 10.0) for s in begins_s))


def _storm(random: Random, tasks: Tasks) -> Mishaps:
    """Of each burst, four fifths of the tasks are cancelled after 20 s."""
    found = []
    for burst_s in sorted({at_s for at_s, _ in tasks}):
        those = [task for task, (at_s, _) in enumerate(tasks) if at_s == burst_s]
        found.append(Cancellation(burst_s + 20.0, frozenset(random.sample(those, len(those) * 4 // 5))))
    return Mishaps(cancellations=tuple(found))


def _flash(s: float) -> float:
    return 15.0 if s % 480 >= 420 else 1.5


@cache
def _rows() -> tuple[tuple[float, float], ...]:
    """Arrivals are recorded; seconds are modelled from the tokens, as `headrace replay` does."""
    with TRACE.open() as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    work = [0.0002 * int(row["ContextTokens"]) + 0.03 * int(row["GeneratedTokens"]) for row in rows]
    return tuple((at - times[0], seconds) for at, seconds in zip(times, work, strict=True))


def _trace(random: Random) -> Iterator[tuple[float, float]]:
    """The same tasks each time; only where a policy's clocks stand differs."""
    offset_s = random.uniform(0, 60)
    return ((offset_s + s, seconds) for s, seconds in _rows())


PATTERNS: Final = {
    "burst": Pattern("two bursts of 1000 tasks of 1 s into an empty queue", _burst),
    "step": Pattern("1 task/s, for 8 minutes 12, and 1 again", _changing(
        lambda s: 12.0 if 500 <= s < 980 else 1.0, 12, 1_500)),
    "square": Pattern("12 tasks/s for 2 minutes, nothing for 3", _changing(
        lambda s: 12.0 if s % 300 < 120 else 0.0, 12, 1_500)),
    "sine": Pattern("1 to 15 tasks/s and back in 10 minutes", _changing(
        lambda s: 8 - 7 * math.cos(2 * math.pi * s / 600), 15, 1_800)),
    "ramp": Pattern("0 to 16 tasks/s in 20 minutes, then none", _changing(lambda s: 16 * s / 1_200, 16, 1_200)),
    "flash": Pattern("1.5 tasks/s, ten times as many for 1 minute of 8", _changing(_flash, 15, 1_920)),
    "steady": Pattern("Poisson, 30 % of what all pods can do", _changing(lambda _: 6.0, 6, 1_500)),
    "full": Pattern("Poisson, 90 % of what all pods can do", _changing(lambda _: 18.0, 18, 1_200)),
    "tail": Pattern("6 tasks/s, lognormal with σ = 1.5", _changing(lambda _: 6.0, 6, 1_500, sigma=1.5)),
    "rare": Pattern("a task of 2 s each 3 minutes", _changing(lambda _: 1 / 180, 1 / 180, 14_400, 2.0)),
    "long": Pattern("a task of 60 s each 6 s", _changing(lambda _: 1 / 6, 1 / 6, 3_600, 60.0), target_s=30.0),
    "poison": Pattern("4 tasks/s of 1 s, of which 1.5 % take 90 s", _poison),
    "shift": Pattern("3 tasks/s of 1 s, then of 5 s", _shift),
    "outage": Pattern("8 tasks/s, and Redis is away for a minute", _changing(lambda _: 8.0, 8, 900), mishaps=_outage),
    "restart": Pattern("as `flash`, and who decides restarts for 10 s about when each flood begins", _changing(
        _flash, 15, 1_920), mishaps=_restarts),
    "cancel": Pattern("as `burst`, and after 20 s four fifths are cancelled", _burst, mishaps=_storm),
    "code": Pattern("an hour of requests to a code model (recorded arrivals, modelled seconds)", _trace),
}  # fmt: skip
