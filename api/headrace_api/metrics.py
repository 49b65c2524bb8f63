"""What the API counts, and what it reads from Redis when it is asked: the names of contract.md and `headrace_http_*`.

Counting on the hot path is an addition in a defaultdict (a Counter's costs three times as much); Prometheus' own
objects are made at the scrape only. Gauges of queues are the same at every replica of the API (use `max by`, not
`sum`), and are absent while Redis is away: an old number would be a lie. Labels are bounded: types are the published
ones and `unknown`, routes are templates.
"""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headrace.broker.broker import Depth
from headrace.bulk_job import Action
from headrace.metrics import redis_risks, release
from headrace.task import Priority

from .buckets import Buckets
from .connections import TOO_MANY, TOO_MANY_OF_YOURS, Connections
from .overview import Overview
from .store import Store

HTTP_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BYTES_BUCKETS: Final = (256, 1024, 4096, 16384, 65536, 262144, 1048576)

STREAM_LABELS: Final = {"3": "critical", "2": "high", "1": "medium", "0": "low", "r": "recovered", "s": "suspect"}
PRIORITY_LABELS: Final = {priority: priority.name.lower() for priority in Priority}

_MAX_BY: Final = " The same at every replica: use max by, not sum."


class Metrics(Collector):
    """One API process' numbers. `types` gives the published types' names, for series that start at 0."""

    def __init__(self, store: Store, capacity: int, connections: Connections) -> None:
        self._build = _build_info()  # read from disk, and it stays so
        self._store = store
        self._capacity = capacity
        self._connections = connections
        self.submitted: defaultdict[tuple[str, str], int] = defaultdict(int)
        """(type or unknown, priority)"""
        self.rejected: Counter[str] = Counter()
        self.requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        """(method, route, status)"""
        self.durations: dict[tuple[str, str], Buckets] = {}
        self.payload_bytes: dict[str, Buckets] = {}
        self.bulk_jobs: Counter[tuple[str, str]] = Counter()
        """(action, done or aborted)"""
        self.bulk_tasks: Counter[tuple[str, str]] = Counter()
        """(action, done or failed)"""
        self.bulk_running = 0
        self.in_flight = 0
        self.known_types: Iterable[str] = ()
        self.tokens_stale = False
        """Whether the file of tokens cannot be read."""
        self.risks: Container[str] = ()
        """By which of its settings Redis may lose tasks."""
        self.overviews: Sequence[Overview] | None = None
        """What was read for this scrape; None = Redis is away."""

    def accepted(self, type_label: str, priority: int, size: int) -> None:
        """One task was stored."""
        self.submitted[type_label, PRIORITY_LABELS[priority]] += 1  # type: ignore[index] # an IntEnum is its number
        buckets = self.payload_bytes.get(type_label)
        if buckets is None:
            buckets = self.payload_bytes[type_label] = Buckets(BYTES_BUCKETS)
        buckets.observe(size)

    def collect(self) -> Iterator[Metric]:
        yield self._build
        yield from self._tasks()
        yield from self._bulk()
        yield from self._http()
        yield from self._redis()
        if self.overviews is not None:
            depths = [depth for each in self.overviews for depth in each.depths.values()]
            yield from _queues(depths, self._capacity)
            workers = {name for each in self.overviews for name in each.active}
            yield _gauge("workers_active", f"Workers with a live heartbeat.{_MAX_BY}", {(): len(workers)})

    def _tasks(self) -> Iterator[Metric]:
        submitted = CounterMetricFamily("tasks_submitted", "Tasks accepted over HTTP.", labels=["type", "priority"])
        for name in {*self.known_types, "unknown"}:
            for priority in PRIORITY_LABELS.values():
                self.submitted.setdefault((name, priority), 0)
        for labels, count in sorted(self.submitted.items()):
            submitted.add_metric(labels, count)
        yield submitted
        rejected = CounterMetricFamily("headrace_tasks_rejected", "Submissions turned away.", labels=["reason"])
        for why in (*REASONS.values(), "full"):
            rejected.add_metric([why], self.rejected[why])
        yield rejected
        sizes = HistogramMetricFamily("headrace_task_payload_bytes", "Payloads of accepted tasks.", labels=["type"])
        for name, buckets in sorted(self.payload_bytes.items()):
            sizes.add_metric([name], buckets.cumulative(), buckets.total)
        yield sizes

    def _bulk(self) -> Iterator[Metric]:
        said = "Bulk jobs that this process carried out to their end."
        yield _by_action("headrace_bulk_jobs", said, self.bulk_jobs, ("done", "aborted"))
        said = "Tasks that bulk jobs came to in this process, by whether the action was done."
        yield _by_action("headrace_bulk_tasks", said, self.bulk_tasks, ("done", "failed"))
        yield _gauge("headrace_bulk_jobs_running", "Bulk jobs that this process carries out.", {(): self.bulk_running})

    def _http(self) -> Iterator[Metric]:
        name = "headrace_http_requests"
        requests = CounterMetricFamily(name, "Requests answered.", labels=["method", "route", "code"])
        for (method, route, status), count in sorted(self.requests.items()):
            requests.add_metric([method, route, str(status)], count)
        yield requests
        name = "headrace_http_request_duration_seconds"
        durations = HistogramMetricFamily(name, "From the headers to the answer.", labels=["method", "route"])
        for labels, buckets in sorted(self.durations.items()):
            durations.add_metric(labels, buckets.cumulative(), buckets.total)
        yield durations
        yield _gauge("headrace_http_requests_in_flight", "Requests being answered.", {(): self.in_flight})
        yield _gauge("headrace_http_connections", "Open connections.", {(): len(self._connections)})
        name, said = "headrace_http_connections_refused", "Connections over a limit."
        refused = CounterMetricFamily(name, said, labels=["limit"])
        for problem, limit in ((TOO_MANY, "all"), (TOO_MANY_OF_YOURS, "address")):
            refused.add_metric([limit], self._connections.refused[problem.code])
        yield refused
        stale = "Whether the file of tokens cannot be read, so that older ones hold."
        yield _gauge("headrace_tokens_stale", stale, {(): int(self.tokens_stale)})

    def _redis(self) -> Iterator[Metric]:
        store = self._store
        up = store.up and self.overviews is not None
        yield _gauge("headrace_redis_up", "Whether Redis answers (1) or not (0).", {(): int(up)})
        yield redis_risks(self.risks)
        errors = CounterMetricFamily("headrace_redis_errors", "Calls to Redis that failed.", labels=["kind"])
        for kind, count in sorted(store.errors.items()):
            errors.add_metric([kind], count)
        yield errors
        name = "headrace_redis_command_duration_seconds"
        durations = HistogramMetricFamily(name, "Calls to Redis that were answered.", labels=["command"])
        for command, buckets in sorted(store.durations.items()):
            durations.add_metric([command], buckets.cumulative(), buckets.total)
        yield durations
        memory = next((each.memory for each in self.overviews or () if each.memory), None)
        if memory:
            yield _gauge("headrace_redis_memory_used_bytes", "Memory that Redis uses.", {(): memory[0]})
            yield _gauge("headrace_redis_memory_max_bytes", "Redis' maxmemory; 0 = none.", {(): memory[1]})


REASONS: Final = {
    401: "unauthorized", 403: "forbidden", 413: "too_large", 422: "invalid", 429: "limited", 503: "unavailable",
    500: "error",
}  # fmt: skip
"""Status → why a submission was turned away; any other 4xx is `invalid`."""


def reason(status: int, code: str) -> str:
    """Why a submission with this answer was turned away: one of `REASONS`, or `full`."""
    return "full" if code == "queue_full" else REASONS.get(status, "invalid")


def _build_info() -> Metric:
    facts = {"version": release(), "component": "api", "python": platform.python_version()}
    return InfoMetricFamily("headrace_build", "What runs here.", value=facts)


def _by_action(name: str, help_text: str, counts: Counter[tuple[str, str]], outcomes: Iterable[str]) -> Metric:
    """A counter of each action and outcome, from 0 on."""
    family = CounterMetricFamily(name, help_text, labels=["action", "outcome"])
    for action in get_args(Action):
        for outcome in outcomes:
            family.add_metric([action, outcome], counts[action, outcome])
    return family


def _queues(depths: Sequence[Depth], capacity: int) -> Iterator[Metric]:
    by_stream = ["priority"]
    sizes, running, ages = Counter[str](), Counter[str](), dict[str, float]()
    for digit, label in STREAM_LABELS.items():
        streams = [(depth.streams[digit], depth.now_ms) for depth in depths if digit in depth.streams]
        sizes[label] = sum(stream.waiting for stream, _ in streams)
        running[label] = sum(stream.pending for stream, _ in streams)
        ages[label] = max([0.0, *((now - s.oldest_ms) / 1000 for s, now in streams if s.oldest_ms is not None)])
    yield _gauge("queue_size", f"Tasks that wait, unclaimed.{_MAX_BY}", _labelled(sizes), by_stream)
    name = "headrace_queue_processing"
    yield _gauge(name, f"Tasks claimed and not reported.{_MAX_BY}", _labelled(running), by_stream)
    name = "headrace_queue_oldest_task_age_seconds"
    yield _gauge(name, f"Age of the oldest task that waits; 0 = none.{_MAX_BY}", _labelled(ages), by_stream)
    yield from _bounds(depths, capacity)
    yield _gauge("headrace_queue_scheduled", f"Tasks due later.{_MAX_BY}", {(): sum(d.delayed for d in depths)})
    yield _gauge("headrace_queue_parked", f"Tasks no worker knows.{_MAX_BY}", {(): sum(d.parked for d in depths)})
    yield _gauge("headrace_queue_paused", f"Queues that are paused.{_MAX_BY}", {(): sum(d.paused for d in depths)})
    yield _gauge("headrace_dead_letter_size", f"Dead letters kept.{_MAX_BY}", {(): sum(d.dead for d in depths)})


def _bounds(depths: Sequence[Depth], capacity: int) -> Iterator[Metric]:
    """A queue's own max_depth goes before the setting. No queue is named: this page needs no token."""
    bounds = [(depth.live, depth.max_depth or capacity) for depth in depths]
    said = "Live tasks that the queues may have, each its own max_depth, else HEADRACE_MAX_DEPTH; more are refused."
    yield _gauge("headrace_queue_capacity", said + _MAX_BY, {(): sum(bound for _, bound in bounds) or capacity})
    said = "Live tasks of the queue that is nearest to its limit, as a part of that."
    fullest = max((live / bound for live, bound in bounds), default=0.0)
    yield _gauge("headrace_queue_fill_ratio", said + _MAX_BY, {(): fullest})


def _labelled(values: dict[str, float] | Counter[str]) -> dict[tuple[str, ...], float]:
    return {(label,): value for label, value in values.items()}


def _gauge(name: str, help_text: str, values: Mapping[tuple[str, ...], float], labels: Sequence[str] = ()) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=list(labels))
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def registry_of(metrics: Metrics, more: Iterable[Collector] = ()) -> CollectorRegistry:
    """A registry for this process; `more` are collectors of whoever runs in it besides the API."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    for collector in (metrics, *more):
        registry.register(collector)
    return registry
