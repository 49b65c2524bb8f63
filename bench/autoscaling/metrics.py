"""What a run cost and how long its tasks waited; and how sure a mean over several runs is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from random import Random
from typing import Final

from .pool import Record, Setting
from .workloads import Workload

Steps = list[tuple[float, int]]
"""(time, change of a level)."""
RESAMPLES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run; or, as floats all the same, the means of several."""

    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    wait_mean_s: float
    late: float
    """Share of tasks that waited longer than the target."""
    cost: float
    """Seconds of slots that were paid for, from a pod's making to its end, per second of work."""
    writes: float
    """Of the number of replicas."""
    reversals: float
    """Writes in the other direction than the one before."""
    made: float
    """Pods that were started."""
    interrupted: float
    """Attempts that a scale-down ended."""
    wasted: float
    """Work that was done again, as a share of all work."""
    under: float
    """θU of SPEC: pods that were missing, on average over the time, as a share of the most that may be."""
    over: float
    """θO: pods that were too many."""
    under_time: float
    """τU: share of the time in which pods were missing."""
    over_time: float
    """τO: share of the time in which pods were too many."""


NAMES: Final = tuple(field.name for field in fields(Figures))


def figures(workload: Workload, setting: Setting, record: Record, target_s: float) -> Figures:
    """Of a run that has ended. A task waits until the attempt begins that ends well."""
    waits = sorted(began - task[0] for began, task in zip(record.began_s, workload.tasks, strict=True))
    paid_s = math.fsum(gone - made for made, gone in record.lives) * setting.slots
    ways = [after > before for _, before, after in record.writes]
    under, over, under_time, over_time = elasticity(workload, setting, record)
    return Figures(
        wait_p50_s=quantile(waits, 0.5), wait_p95_s=quantile(waits, 0.95), wait_p99_s=quantile(waits, 0.99),
        wait_mean_s=math.fsum(waits) / len(waits), late=sum(wait > target_s for wait in waits) / len(waits),
        cost=paid_s / workload.work_s, writes=len(ways),
        reversals=sum(one is not other for one, other in pairwise(ways)),
        made=len(record.lives), interrupted=record.interrupted, wasted=record.wasted_s / workload.work_s,
        under=under, over=over, under_time=under_time, over_time=over_time,
    )  # fmt: skip


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below or at which that share of the ordered values lies."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def elasticity(workload: Workload, setting: Setting, record: Record) -> tuple[float, float, float, float]:
    """SPEC's accuracy (θU, θO) and time shares (τU, τO): pods that work against pods that no task would wait for."""
    demand = [(at, 1) for at, _ in workload.tasks] + [(at + seconds, -1) for at, seconds in workload.tasks]
    changes = sorted([(s, change, 0) for s, change in demand] + [(s, 0, change) for s, change in record.ready])
    tasks = supply = 0
    under = over = under_s = over_s = last_s = 0.0
    for s, of_demand, of_supply in changes:
        passed, last_s = s - last_s, s
        missing = min(math.ceil(tasks / setting.slots), setting.max_pods) - supply
        if missing > 0:
            under, under_s = under + missing * passed, under_s + passed
        elif missing < 0:
            over, over_s = over - missing * passed, over_s + passed
        tasks, supply = tasks + of_demand, supply + of_supply
    whole_s = max(last_s, workload.horizon_s)
    return under / whole_s / setting.max_pods, over / whole_s / setting.max_pods, under_s / whole_s, over_s / whole_s


def mean(runs: Sequence[Figures]) -> Figures:
    return Figures(*(math.fsum(getattr(run, name) for run in runs) / len(runs) for name in NAMES))


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """Of the mean, by bootstrap: which means other draws of these runs would have."""
    random = Random("bootstrap")
    means = sorted(_mean(random.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - share) / 2
    return quantile(means, tail), quantile(means, 1 - tail)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
