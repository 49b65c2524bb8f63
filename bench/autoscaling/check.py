"""Is the model of KEDA true? The runs of KEDA 2.21 on a real cluster, done again in the model, figure by figure.

The cluster: Kubernetes 1.37, one node of two cores, image on the node, one task a pod, at most 20 pods. Where KEDA's
two clocks stood in a run is chance, and no model's to say: it is taken from the run's own record (when the pool left
zero, when 20 pods were Ready). What is checked follows from there. KEDA makes the HPA and begins to poll in the same
moment, and 30 s are twice 15 s; so by default the HPA's first tick comes just before the next 15 s are over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Final

from bench.quantiles import quantile

from .policies.keda import SYNC_S, TUNED, Behavior, Keda, Limit
from .pool import Pool, Record, Setting
from .starts import SmallNode
from .workloads import Workload

NODE: Final = SmallNode()
READY: Final = 5.5 / 6.9
"""When the last of 20 pods that start together is Ready, as a share of when it works."""
PER_TASK_S: Final = 0.02
BURST: Final = Workload("400 × 1 s", ((0.0, 1.0),) * 400, 150.0)
ONE: Final = Workload("1 × 1 s", ((0.0, 1.0),), 400.0)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, in seconds unless its name says otherwise."""

    run: str
    figure: str
    measured: float
    model: float

    @property
    def off(self) -> float:
        """By what share of the measured figure the model differs."""
        return abs(self.model - self.measured) / self.measured if self.measured else abs(self.model)


def rows() -> list[Row]:
    """All that are checked."""
    return [*_single(), *_bursts(), *_harm()]


def run(workload: Workload, keda: Keda, *, grace_s: float = 0.0, seed: int = 0) -> Record:
    """On the cluster of the measurement. Grace 0: a worker that knows no SIGTERM."""
    pool = Pool(workload, Setting(NODE, grace_s=grace_s, reclaim_s=90.0, per_task_s=PER_TASK_S, seed=seed))
    keda.attach(pool, Random(seed))
    return pool.run()


def by_default(wake_s: float, step_s: float = 14.3) -> Keda:
    """`wake_s`: when the pool leaves zero; `step_s`: from then to the HPA's first tick."""
    return Keda(poll_at_s=wake_s, sync_at_s=(wake_s + step_s) % SYNC_S)


def at_best(wake_s: float, step_s: float, limits: tuple[Limit, ...] = TUNED[:1]) -> Keda:
    return Keda(
        1, poll_s=1.0, cooldown_s=30.0, behavior=Behavior(limits, 15.0), poll_at_s=wake_s,
        sync_at_s=(wake_s + step_s) % SYNC_S,
    )  # fmt: skip


def _single() -> Iterator[Row]:
    """T1 and T4: one task at zero, and back to zero."""
    for name, keda, started_s, ended_s, zero_s in (
        ("one task, by default", by_default(12.5), 13.1, 14.1, 298.0),
        ("one task, at its best", at_best(0.42, 7.0), 0.82, 1.8, 29.6),
    ):
        record = run(ONE, keda)
        yield Row(name, "first task started", started_s, record.began_s[0])
        yield Row(name, "its end", ended_s, record.ended_s[0])
        yield Row(name, "last end to zero", zero_s, record.writes[-1][0] - record.ended_s[0])


def _bursts() -> Iterator[Row]:
    """T2: 400 tasks at zero."""
    wake_s = 0.42
    by_ten_s = 23.9 - wake_s - SYNC_S - READY * NODE.seconds(9, 10)
    at_once_s = 8.7 - wake_s - READY * NODE.seconds(18, 19)
    for name, keda, measured in (
        ("400 tasks, by default", by_default(21.7 - NODE.alone_s), (80, 66, 78, 79)),
        ("400 tasks, at its best", at_best(wake_s, by_ten_s), (36, 25, 34, 35)),
        ("400 tasks, at its best, 20 pods at once", at_best(wake_s, at_once_s, TUNED), (29, 18, 27, 28)),
    ):
        record = run(BURST, keda)
        model = (max(record.ended_s), *(quantile(record.began_s, share) for share in (0.5, 0.95, 0.99)))
        for figure, one, other in zip(("drained", "wait p50", "wait p95", "wait p99"), measured, model, strict=True):
            yield Row(name, figure, one, other)


def _harm() -> Iterator[Row]:
    """T3: 100 short tasks and 20 long ones; the medians over the phases of the HPA's clock."""
    tasks = [0.5] * 100 + [60.0] * 20
    Random(1).shuffle(tasks)
    mixed = Workload("100 × 0.5 s and 20 × 60 s", tuple((0.0, seconds) for seconds in tasks), 400.0)

    def over_phases(of: Callable[[Record], float], grace_s: float) -> float:
        runs = (run(mixed, at_best(0.42, step_s + 1), grace_s=grace_s, seed=step_s) for step_s in range(14))
        return median(map(of, runs))

    name = "100 short and 20 long tasks, at its best"
    yield Row(name, "long tasks interrupted (of 20)", 10, over_phases(lambda record: record.interrupted, 0.0))
    yield Row(name, "work thrown away", 569, over_phases(lambda record: record.wasted_s, 0.0))
    yield Row(name, "drained", 181, over_phases(lambda record: max(record.ended_s), 0.0))
    name += ", workers that end what they run within 30 s"
    yield Row(name, "long tasks interrupted (of 20)", 0, over_phases(lambda record: record.interrupted, 30.0))
    yield Row(name, "drained", 85, over_phases(lambda record: max(record.ended_s), 30.0))


def markdown() -> str:
    """The check as a table."""
    lines = ["| run | figure | measured | model | off |", "|---|---|---|---|---|"]
    for row in rows():
        off = f"{row.off:.0%}" if math.isfinite(row.off) else ""
        lines.append(f"| {row.run} | {row.figure} | {row.measured:g} | {row.model:.3g} | {off} |")
    return "\n".join(lines)
