"""Wait against cost: all runs, their means, and who is ahead of whom."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from .catalogue import CATALOGUE, DEFAULT, KEDA_BEST, KEDA_USUAL, OURS, START_S, Job, run
from .metrics import Figures, interval, mean
from .workloads import PATTERNS

SAME_S: Final = 0.05
"""Waits that differ by less are equal."""
SAME: Final = 0.01
"""Costs that differ by a smaller share are equal."""


@dataclass(frozen=True, slots=True)
class Point:
    """A policy with its knobs, under one pattern."""

    pattern: str
    policy: str
    knobs: str
    runs: tuple[Figures, ...]
    """One a seed, in their order."""
    start_s: float = START_S
    """Median of a pod's start."""

    @property
    def mean(self) -> Figures:
        return mean(self.runs)

    def interval(self, name: str) -> tuple[float, float]:
        """95 % of the mean of a figure, over the seeds."""
        return interval([getattr(each, name) for each in self.runs])


Points = Sequence[Point]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    patterns: Sequence[str]
    seeds: Sequence[int]
    start_s: float = START_S
    policies: Mapping[str, Iterable[str]] = field(default_factory=lambda: CATALOGUE)
    """With their knobs, the usual ones first."""
    most: int | None = None
    """Of the knobs of each."""

    def jobs(self) -> list[Job]:
        return [
            Job(pattern, policy, knobs, seed, self.start_s)
            for seed in self.seeds
            for pattern in self.patterns
            for policy, variants in self.policies.items()
            for knobs in list(variants)[: self.most]
        ]


def measure(work: Sequence[Job], processes: int, tick: Callable[[], object]) -> list[Point]:
    """Run them all. `tick` is called after each."""
    found: dict[tuple[str, str, str, float], list[Figures]] = defaultdict(list)
    for job, result in zip(work, _results(work, processes), strict=True):
        found[job.pattern, job.policy, job.knobs, job.start_s].append(result)
        tick()
    return [
        Point(pattern, policy, knobs, tuple(runs), start_s) for (pattern, policy, knobs, start_s), runs in found.items()
    ]


def _results(work: Sequence[Job], processes: int) -> Iterator[Figures]:
    if processes == 1:
        yield from map(run, work)
        return
    with ProcessPoolExecutor(processes) as executor:
        yield from executor.map(run, work, chunksize=4)


def by_start(points: Points) -> dict[float, list[Point]]:
    """Those whose pods start alike; the quickest first."""
    return {s: [each for each in points if each.start_s == s] for s in sorted({each.start_s for each in points})}


def patterns_of(points: Points) -> list[str]:
    """In the order in which they are shown."""
    found = {point.pattern for point in points}
    return [name for name in PATTERNS if name in found]


def of(points: Points, pattern: str, policy: str) -> list[Point]:
    return [point for point in points if (point.pattern, point.policy) == (pattern, policy)]


def front(points: Points) -> list[Point]:
    """Those that no other beats in wait and in cost, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.mean.cost, point.mean.wait_p95_s)):
        if not best or point.mean.wait_p95_s < best[-1].mean.wait_p95_s:
            best.append(point)
    return best


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours with one set of knobs, and KEDA at its best with those that hindsight picks for this very pattern."""

    ours: Point
    keda: Point
    """One setting for all patterns."""
    wait_s: float
    """The least wait (p95) of KEDA at no more than our cost; infinite: none is as cheap."""
    cost: float
    """The least cost of KEDA at no more than our wait; infinite: none waits so little."""
    interrupted: tuple[float, float]
    """By the runs of KEDA that these two are from."""

    @property
    def ahead_in_wait(self) -> bool:
        return self.ours.mean.wait_p95_s <= self.wait_s + SAME_S

    @property
    def ahead_in_cost(self) -> bool:
        return self.ours.mean.cost <= self.cost * (1 + SAME)

    @property
    def ahead(self) -> bool:
        return self.ahead_in_wait and self.ahead_in_cost


def compare(points: Points, pattern: str, knobs: str = DEFAULT) -> Comparison:
    ours = next(point for point in of(points, pattern, OURS) if point.knobs == knobs)
    others = of(points, pattern, KEDA_BEST)
    as_cheap = [each for each in others if each.mean.cost <= ours.mean.cost * (1 + SAME)]
    as_quick = [each for each in others if each.mean.wait_p95_s <= ours.mean.wait_p95_s + SAME_S]
    quickest = min(as_cheap, key=lambda each: each.mean.wait_p95_s, default=None)
    cheapest = min(as_quick, key=lambda each: each.mean.cost, default=None)
    return Comparison(
        ours, next(each for each in others if each.knobs == KEDA_USUAL),
        wait_s=math.inf if quickest is None else quickest.mean.wait_p95_s,
        cost=math.inf if cheapest is None else cheapest.mean.cost,
        interrupted=(
            0.0 if quickest is None else quickest.mean.interrupted,
            0.0 if cheapest is None else cheapest.mean.interrupted,
        ),
    )  # fmt: skip


def ahead_everywhere(points: Points, patterns: Iterable[str]) -> list[str]:
    """Those of our knobs that are ahead in both under every pattern; by the seeds that all points have."""
    patterns, seeds = list(patterns), min(len(point.runs) for point in points)
    paired = [replace(point, runs=point.runs[:seeds]) for point in points]
    knobs = [point.knobs for point in of(paired, patterns[0], OURS)]
    return [each for each in knobs if all(compare(paired, pattern, each).ahead for pattern in patterns)]


def save(points: Points, path: Path) -> None:
    """Every run, as JSON."""
    rows = [asdict(point) for point in points]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) + "\n")


def load(path: Path) -> list[Point]:
    """What `save` wrote."""
    rows = json.loads(path.read_text())
    return [Point(**{**row, "runs": tuple(Figures(**each) for each in row["runs"])}) for row in rows]
