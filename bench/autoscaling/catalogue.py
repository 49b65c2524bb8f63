"""Each way to scale, over its knobs. One set of knobs for all patterns; nothing is tuned for one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from random import Random
from typing import Final

from headrace_operator.spec import DEFAULT_WAIT_S, DownRules, Scaling

from .metrics import Figures, figures
from .policies import Policy
from .policies.keda import TUNED, Behavior, Keda
from .policies.oracle import foresee
from .policies.ours import Ours
from .policies.peers import Dask, Fixed, Kpa
from .pool import Pool, Setting
from .starts import Lognormal
from .workloads import PATTERNS, Workload

OURS: Final = "headrace"
KEDA_BEST: Final = "KEDA at its best"
KEDA_DEFAULT: Final = "KEDA by default"
ORACLE: Final = "oracle"
DEFAULT: Final = "default"
"""The knobs' name of a policy as it comes."""
START_S: Final = 5.0
SLOW_START_S: Final = 45.0
"""Of a large image that is not on the node, or of a node that is not there."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """The oracle, with at most so many pods."""

    pods: int


TARGETS_S: Final = (1, 2, 5, 10, 20, 40)
TASKS_PER_REPLICA: Final = (1, 2, 5, 10)
Variants = Mapping[str, Policy | Foresight]


def _ours() -> dict[str, Policy]:
    found: dict[str, Policy] = {DEFAULT: Ours({})}
    as_it_comes = (DEFAULT_WAIT_S, DownRules().stabilization_window_seconds, Scaling(max_replicas=1).idle_seconds)
    windows = ((0, 10), (30, 60), (120, 120))
    for target, (window, idle) in product(TARGETS_S, windows):
        down = {"scaleDown": {"stabilizationWindowSeconds": window}}
        scaling = {"targetQueueWaitSeconds": target, "idleSeconds": idle, "behavior": down}
        if (target, window, idle) != as_it_comes:
            found[f"target {target} s, window {window} s, idle {idle} s"] = Ours(scaling)
    by_depth = {_by_depth(tasks): Ours({"targetTasksPerReplica": tasks}) for tasks in TASKS_PER_REPLICA}
    return found | by_depth


def _by_depth(tasks: int) -> str:
    return f"{tasks} tasks a replica" if tasks > 1 else "1 task a replica"


def _keda() -> dict[str, Policy]:
    """Polled each second, by the length of the stream, up to ten times as many or 20 pods more in 15 s."""
    windows = ((15, 30), (0, 15), (60, 60), (120, 120), (300, 300))
    return {
        f"target {target}, window {window} s, cooldown {cooldown} s": Keda(
            target, poll_s=1.0, cooldown_s=cooldown, behavior=Behavior(TUNED, window)
        )
        for target, (window, cooldown) in product((1, 2, 4, 8), windows)
    }


CHOICES: Final = {
    **{f"{s:g} s": DEFAULT if s == DEFAULT_WAIT_S else f"target {s} s, window 30 s, idle 60 s" for s in TARGETS_S},
    **{_by_depth(tasks): _by_depth(tasks) for tasks in TASKS_PER_REPLICA},
}
"""A target, in words → the knobs of ours that differ from the defaults in nothing else."""
CONTENDERS: Final = ("target 10 s, window 30 s, idle 60 s", "target 2 s, window 0 s, idle 10 s")
"""What else might be the defaults: the former ones, and those of least cost."""
KEDA_USUAL: Final = "target 1, window 15 s, cooldown 30 s"
"""One setting of KEDA at its best for all patterns: that of the measured runs."""

CATALOGUE: Final[Mapping[str, Variants]] = {
    OURS: _ours(),
    KEDA_BEST: _keda(),
    KEDA_DEFAULT: {f"target {target}": Keda(target) for target in (1, 2, 5, 10)},
    "Knative's KPA": {f"utilization {share}": Kpa(share) for share in (0.3, 0.5, 0.7, 1.0)},
    "dask": {f"target {target} s": Dask(target) for target in (1, 2, 5, 10, 20)},
    "fixed": {f"{pods} pods": Fixed(pods) for pods in (1, 2, 4, 8, 12, 16, 20)},
    ORACLE: {f"{pods} pods": Foresight(pods) for pods in (20, 10)},
}


RIVALS: Final[Mapping[str, Sequence[str]]] = {
    OURS: [DEFAULT], KEDA_BEST: list(CATALOGUE[KEDA_BEST]), ORACLE: list(CATALOGUE[ORACLE])[:1],
}  # fmt: skip
"""What it takes to say who is ahead: policy → knobs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    pattern: str
    policy: str
    knobs: str
    seed: int
    start_s: float = START_S
    """Median of a pod's start."""


@lru_cache(maxsize=4)
def _workload(pattern: str, seed: int) -> Workload:
    return PATTERNS[pattern].workload(pattern, seed)


def run(job: Job) -> Figures:
    """The same job gives the same figures, on any machine."""
    pattern, workload = PATTERNS[job.pattern], _workload(job.pattern, job.seed)
    start_up = Lognormal(job.start_s, seed=job.seed)
    setting = Setting(start_up, seed=job.seed)
    policy = CATALOGUE[job.policy][job.knobs]
    if isinstance(policy, Foresight):
        record = foresee(workload, setting, policy.pods, start_up.mean_s)
    else:
        pool = Pool(workload, setting)
        policy.attach(pool, Random(f"phase:{job.seed}"))
        record = pool.run()
    return figures(workload, setting, record, pattern.target_s)
