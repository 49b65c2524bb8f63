"""SPEC's measures of elasticity: pods that can work, against pods with which no task would wait."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from .pool import Record, Setting
from .workloads import Workload

STEP_S: Final = 15.0
"""For what moved and what did not: as long as an HPA rests between two looks."""


class Level(NamedTuple):
    """What holds from a moment until that of the next one."""

    s: float
    needed: int
    """Never more than there may be."""
    working: int


@dataclass(frozen=True, slots=True)
class Elasticity:
    """All of them are shares."""

    under: float
    """θU: pods that were missing, on average over the time, of the most that there may be."""
    over: float
    """θO: pods that were too many."""
    under_time: float
    """τU: of the time, in which pods were missing."""
    over_time: float
    """τO: of the time, in which pods were too many."""
    instability: float
    """υ: of the steps, in which the pods moved in another way than what was needed."""


def elasticity(workload: Workload, setting: Setting, record: Record) -> Elasticity:
    """Over the whole run."""
    levels = list(_levels(workload, setting, record))
    under = over = under_s = over_s = 0.0
    for level, later in pairwise(levels):
        passed, missing = later.s - level.s, level.needed - level.working
        if missing > 0:
            under, under_s = under + missing * passed, under_s + passed
        elif missing < 0:
            over, over_s = over - missing * passed, over_s + passed
    whole_s = max(levels[-1].s, workload.horizon_s)
    most = setting.max_pods
    shares = under / whole_s / most, over / whole_s / most, under_s / whole_s, over_s / whole_s
    return Elasticity(*shares, _instability(levels, whole_s))


def reached_s(workload: Workload, record: Record, pods: int) -> float:
    """From the first task until so many pods could work; infinite: they never could."""
    working = 0
    for s, change in sorted(record.ready):
        working += change
        if working >= pods:
            return max(0.0, s - workload.tasks[0][0])
    return math.inf


def _levels(workload: Workload, setting: Setting, record: Record) -> Iterator[Level]:
    """The last one is the last change: after it nothing is counted."""
    demand = [(at, 1) for at, _ in workload.tasks] + [(at + seconds, -1) for at, seconds in workload.tasks]
    changes = sorted([(s, change, 0) for s, change in demand] + [(s, 0, change) for s, change in record.ready])
    tasks = working = 0
    yield Level(0.0, 0, 0)
    for s, of_demand, of_supply in changes:
        tasks, working = tasks + of_demand, working + of_supply
        yield Level(s, min(math.ceil(tasks / setting.slots), setting.max_pods), working)


def _instability(levels: list[Level], whole_s: float) -> float:
    """By what holds at the end of each step."""
    steps = max(1, math.ceil(whole_s / STEP_S))
    seen, at = [Level(0.0, 0, 0)], 0
    for step in range(1, steps + 1):
        while at + 1 < len(levels) and levels[at + 1].s <= step * STEP_S:
            at += 1
        seen.append(levels[at])
    unlike = sum(_way(one.needed, other.needed) != _way(one.working, other.working) for one, other in pairwise(seen))
    return unlike / steps


def _way(before: int, after: int) -> int:
    return (after > before) - (after < before)
