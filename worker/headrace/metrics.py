"""Prometheus: what every process exports, and the metrics of a worker.

`new_registry` serves API, worker and operator alike. `WorkerCollector` turns the plain numbers of
`headrace.runtime.stats` into metrics when they are asked for. The names without the prefix `headrace_` come from the
Go original and stay as they are. The label `type` holds registered names only (else `unknown`), and every other label
has a closed set of values; so the number of series is bounded.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Container, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from headrace.broker.safety import RISKS
from headrace.task import Priority

if TYPE_CHECKING:
    from headrace.runtime.stats import TypeStats, WorkerStats

UNKNOWN_TYPE: Final = "unknown"
"""The label `type` of a task whose type nobody registered or nobody can read."""
STATUSES: Final = ("completed", "failed", "cancelled")
"""The label `status` of `tasks_processed_total`."""


def release() -> str:
    """The version that is installed; `unknown` for code that is only on the path, as in an image that copies it."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"


def new_registry(component: str, revision: str = "unknown") -> CollectorRegistry:
    """A registry with what every process tells of itself. `component` is api, worker or operator."""
    # Each would double the number of series, to say when a process started.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(_BuildInfo(component, revision))
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """The text for a request with this Accept header, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _BuildInfo(Collector):
    def __init__(self, component: str, revision: str) -> None:
        self._facts = {
            "version": release(),
            "revision": revision,
            "component": component,
            "python": platform.python_version(),
        }

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("headrace_build", "What runs here.", self._facts)


class WorkerCollector(Collector):
    """All metrics of one worker process. Every series exists from the start, so that rates begin at 0."""

    def __init__(self, stats: WorkerStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        types = {name or UNKNOWN_TYPE: stats for name, stats in self._stats.types.items()}
        yield from _type_counters(types)
        yield _durations(types)
        yield _waits(types)
        yield from _process_counters(self._stats)
        yield from _gauges(self._stats)
        lag = HistogramMetricFamily(
            "headrace_worker_event_loop_lag_seconds", "How late the event loop came to what was due."
        )
        lag.add_metric([], self._stats.lag.cumulative(), self._stats.lag.sum)
        yield lag


def _type_counters(types: dict[str, TypeStats]) -> Iterator[Metric]:
    processed = ("tasks_processed", "Tasks that ended for good, by how.", "status")
    yield _by_word(types, processed, lambda stats: {word: stats.outcomes[word] for word in STATUSES})
    attempts = ("headrace_task_attempts", "Attempts that ended, by what became of the task.", "outcome")
    yield _by_word(types, attempts, lambda stats: stats.outcomes)
    dead = ("headrace_tasks_dead_lettered", "Tasks that went to the dead letter, by why.", "reason")
    yield _by_word(types, dead, lambda stats: stats.dead)
    retries = CounterMetricFamily("task_retries", "Retries that were scheduled.", labels=["type"])
    timeouts = CounterMetricFamily("headrace_task_timeouts", "Attempts over their time.", labels=["type"])
    for name, stats in types.items():
        retries.add_metric([name], stats.outcomes["retrying"])
        timeouts.add_metric([name], stats.timeouts)
    yield retries
    yield timeouts


def _by_word(
    types: dict[str, TypeStats], what: tuple[str, str, str], counts: Callable[[TypeStats], dict[str, int]]
) -> Metric:
    name, documentation, label = what
    family = CounterMetricFamily(name, documentation, labels=["type", label])
    for type_name, stats in types.items():
        for word, count in counts(stats).items():
            family.add_metric([type_name, word], count)
    return family


def _durations(types: dict[str, TypeStats]) -> Metric:
    family = HistogramMetricFamily("task_duration_seconds", "Run time of one attempt.", labels=["type"])
    for name, stats in types.items():
        family.add_metric([name], stats.duration.cumulative(), stats.duration.sum)
    return family


def _waits(types: dict[str, TypeStats]) -> Metric:
    family = HistogramMetricFamily(
        "headrace_task_queue_latency_seconds",
        "From when a task could have been claimed to the start of its attempt.",
        labels=["type", "priority"],
    )
    for name, stats in types.items():
        for priority in Priority:
            wait = stats.waits[priority]
            family.add_metric([name, priority.name.lower()], wait.cumulative(), wait.sum)
    return family


def _process_counters(stats: WorkerStats) -> Iterator[Metric]:
    verdicts = CounterMetricFamily(
        "headrace_reports_refused",
        "Reports that were not accepted anew: dup = accepted before, stale = the task is another's, gone = no trace.",
        labels=["verdict"],
    )
    for word, count in stats.verdicts.items():
        verdicts.add_metric([word], count)
    yield verdicts
    for name, documentation, value in (
        ("headrace_tasks_redelivered", "Tasks taken from dead workers and handed on.", stats.redelivered),
        ("headrace_tasks_parked", "Tasks set aside for a worker that knows their type.", stats.parked),
        ("headrace_tasks_expired", "Tasks cancelled because nobody had begun them when they expired.", stats.expired),
        ("headrace_dead_letters_purged", "Dead letters deleted by age or number.", stats.purged),
        ("headrace_worker_leaked_slots", "Slots given up to handlers that do not end.", stats.leaked),
        ("headrace_redis_errors", "Failed requests to Redis and broken connections.", stats.redis_errors),
    ):
        yield CounterMetricFamily(name, documentation, value)


def redis_risks(found: Container[str]) -> Metric:
    """By which of its settings Redis may lose tasks; the names are those of `headrace.broker.safety`."""
    said = "1 if Redis may lose tasks by its settings: it evicts keys, keeps no file, or does not say."
    family = GaugeMetricFamily("headrace_redis_risk", said, labels=["risk"])
    for risk in RISKS:
        family.add_metric([risk], int(risk in found))
    return family


def _gauges(stats: WorkerStats) -> Iterator[Metric]:
    yield GaugeMetricFamily("headrace_worker_slots", "Tasks that may run at once in this process.", stats.slots)
    yield GaugeMetricFamily("headrace_worker_slots_busy", "Tasks that run in this process now.", stats.busy)
    yield GaugeMetricFamily("headrace_redis_up", "1 while this process reaches Redis.", int(stats.redis_up))
    yield redis_risks(stats.risks)
    beat = GaugeMetricFamily(
        "headrace_worker_heartbeat_timestamp_seconds", "When Redis last answered a heartbeat; absent before the first."
    )
    if stats.heartbeat_s:
        beat.add_metric([], stats.heartbeat_s)
    yield beat
