"""What the bench of the operator makes of counters and of times. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .quantiles import quantile

TICK: Final = "headrace_operator_reconcile_duration_seconds"
_BOUND: Final = re.compile(r'le="([^"]+)"')


def samples(text: str, name: str) -> list[tuple[str, float]]:
    """Labels and value of each sample of this name in an answer for Prometheus."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
    return [(labels, float(value)) for labels, value in found]


def total(text: str, name: str) -> float:
    """The sum over all labels; 0 if there is none."""
    return sum(value for _, value in samples(text, name))


def reachable(text: str) -> int:
    """Pools whose last look at Redis went well."""
    return sum(value == 1.0 for _, value in samples(text, "headrace_operator_queue_reachable"))


def buckets(text: str) -> dict[float, float]:
    """Bound in seconds → ticks so far that took no longer."""
    found = ((_BOUND.search(labels), value) for labels, value in samples(text, f"{TICK}_bucket"))
    return {float(bound[1]): value for bound, value in found if bound is not None}


def within(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float:
    """The least bound that this share of the ticks between two moments did not exceed; 0 without ticks."""
    grown = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    ticks = max(grown.values(), default=0.0)
    return next((bound for bound, count in grown.items() if ticks and count >= share * ticks), 0.0)


@dataclass(frozen=True)
class Reading:
    """Counters at one moment."""

    at_s: float
    cpu_s: float
    """Of the operator."""
    redis_s: float
    commands: float
    """Redis commands, those inside of scripts not counted."""
    metrics: str = ""
    """What the operator says of itself."""


@dataclass(frozen=True)
class Cost:
    """What a while of measuring took."""

    seconds: float
    cpu: float
    """Percent of a core."""
    redis_cpu: float
    """Percent of a core, all Redis together."""
    commands: float
    """A second."""
    requests: float
    """To the API server a second, but watches."""
    ticks: float
    """A second."""
    tick_ms: float
    """From a tick's begin to its end, mean."""
    tick_p99_ms: float
    """The bound of the metric's buckets below which 99 % of the ticks were."""

    @property
    def cpu_ms_a_tick(self) -> float:
        return 10 * self.cpu / self.ticks if self.ticks else 0.0


def cost(before: Reading, after: Reading) -> Cost:
    """Between two moments."""
    seconds = after.at_s - before.at_s

    def grown(name: str) -> float:
        return total(after.metrics, name) - total(before.metrics, name)

    ticks = grown(f"{TICK}_count")
    return Cost(
        seconds=seconds,
        cpu=100 * (after.cpu_s - before.cpu_s) / seconds,
        redis_cpu=100 * (after.redis_s - before.redis_s) / seconds,
        commands=(after.commands - before.commands) / seconds,
        requests=grown("headrace_operator_api_requests_total") / seconds,
        ticks=ticks / seconds,
        tick_ms=1_000 * grown(f"{TICK}_sum") / ticks if ticks else 0.0,
        tick_p99_ms=1_000 * within(buckets(before.metrics), buckets(after.metrics), 0.99),
    )


@dataclass(frozen=True)
class Crowd:
    """What a tick costs while many workers beat."""

    workers: int
    beats: float
    """A second, as they were answered."""
    cost: Cost
    beats_redis_cpu: float
    """Percent of a core that the beats alone take, measured while the operator stood still."""
    rss: float
    """MiB of the operator."""

    @property
    def redis_ms_a_tick(self) -> float:
        extra = max(0.0, self.cost.redis_cpu - self.beats_redis_cpu)
        return 10 * extra / self.cost.ticks if self.cost.ticks else 0.0


@dataclass(frozen=True)
class Round:
    """All that is measured with one number of pools."""

    pools: int
    rss: float
    """MiB of the operator at rest."""
    idle: Cost
    lags: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What goes on meanwhile → seconds from each submission until its replicas were written."""
    crowd: Crowd | None = None


def milliseconds(seconds: Sequence[float], share: float) -> int:
    """The time that this share of them does not exceed."""
    return quantile([round(each * 1_000) for each in seconds], share)


def waves(names: Sequence[str], most: int, each: int) -> list[list[str]]:
    """Submissions in turns, each pool once a turn and at most `each` times; spread over all pools if these are more."""
    count = min(most, each * len(names))
    if count <= len(names):
        step = len(names) / max(1, count)
        return [[names[int(number * step)] for number in range(count)]]
    whole, rest = divmod(count, len(names))
    return [[*names]] * whole + ([list(names[:rest])] if rest else [])


def caught_up(items: Sequence[Any], pools: int) -> bool:
    """Whether the cluster's own controllers have seen all Deployments: until then each one tells of changes."""
    return len(items) >= pools and all(
        each.get("status", {}).get("observedGeneration", 0) >= each["metadata"]["generation"] for each in items
    )
