"""What a run cost and how long its tasks waited; and how sure a mean over several runs is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from random import Random
from typing import Final

from bench.quantiles import quantile

from .elasticity import elasticity, reached_s
from .pool import Record, Setting
from .workloads import Workload

RESAMPLES: Final = 1_000
MOST: Final = 0.9
"""Of all pods that there may be: so many are nearly all."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run; or, as floats all the same, the means of several. Tasks that are cancelled count in none of them."""

    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    wait_max_s: float
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
    first_pod_s: float
    """From the first task until a pod could work."""
    most_pods_s: float
    """From the first task until nearly all pods could work; infinite: they never could."""
    interrupted: float
    """Attempts that a scale-down ended."""
    wasted: float
    """Work that was done again, as a share of all work."""
    under: float
    """θU of SPEC, and so on: see there."""
    over: float
    under_time: float
    over_time: float
    instability: float


NAMES: Final = tuple(field.name for field in fields(Figures))


def figures(workload: Workload, setting: Setting, record: Record, target_s: float) -> Figures:
    """Of a run that has ended. A task waits until the attempt begins that ends well."""
    waits = _waits(workload, record)
    paid_s = math.fsum(gone - made for made, gone in record.lives) * setting.slots
    ways = [after > before for _, before, after in record.writes]
    spec = elasticity(workload, setting, record)
    return Figures(
        wait_p50_s=quantile(waits, 0.5), wait_p95_s=quantile(waits, 0.95), wait_p99_s=quantile(waits, 0.99),
        wait_max_s=waits[-1], wait_mean_s=math.fsum(waits) / len(waits),
        late=sum(wait > target_s for wait in waits) / len(waits),
        cost=paid_s / workload.work_s, writes=len(ways),
        reversals=sum(one is not other for one, other in pairwise(ways)), made=len(record.lives),
        first_pod_s=reached_s(workload, record, 1),
        most_pods_s=reached_s(workload, record, math.ceil(MOST * setting.max_pods)),
        interrupted=record.interrupted, wasted=record.wasted_s / workload.work_s,
        under=spec.under, over=spec.over, under_time=spec.under_time, over_time=spec.over_time,
        instability=spec.instability,
    )  # fmt: skip


def _waits(workload: Workload, record: Record) -> list[float]:
    """In order."""
    cancelled = workload.mishaps.cancelled_s()
    each = enumerate(zip(record.began_s, workload.tasks, strict=True))
    return sorted(began_s - at_s for task, (began_s, (at_s, _)) in each if task not in cancelled)


def mean(runs: Sequence[Figures]) -> Figures:
    return Figures(*(math.fsum(getattr(run, name) for run in runs) / len(runs) for name in NAMES))


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """Of the mean, by bootstrap: which means other draws of these runs would have."""
    random = Random("bootstrap")
    means = [_mean(random.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    tail = (1 - share) / 2
    return quantile(means, tail), quantile(means, 1 - tail)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
