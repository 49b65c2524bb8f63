"""What the operator shows to Prometheus, made from its own state when it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.metrics import new_registry

from . import patience
from .cluster import Cluster
from .kube import KubeCluster
from .loop import ControlLoop
from .requests import Requests

_POOL = ("namespace", "pool")


class Work(Protocol):
    """What this process does while it leads."""

    @property
    def loop(self) -> ControlLoop: ...

    @property
    def cluster(self) -> Cluster: ...


class Leading(NamedTuple):
    """Of a process that always leads."""

    loop: ControlLoop
    cluster: KubeCluster


class OperatorCollector(Collector):
    """Of one operator process. `work` gives None while it stands by: then it knows of no pool."""

    def __init__(self, work: Callable[[], Work | None], leads: Callable[[], bool], requests: Requests) -> None:
        self._work = work
        self._leads = leads
        self._made = requests.made

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "headrace_operator_leading", "1 if this operator acts, 0 while it stands by.", value=int(self._leads())
        )
        work = self._work()
        if work is not None:
            yield from self._pools(work)
            yield from self._queues(work.loop)
            yield from self._ticks(work.loop)
            yield self._redis(work.loop)
        yield self._requests()
        yield self._restarts()

    def _pools(self, work: Work) -> Iterator[Metric]:
        names = ("desired", "recommended", "ready", "busy", "draining", "min", "max")
        gauges = {
            n: GaugeMetricFamily(f"headrace_operator_{n}_workers", f"Workers of a pool: {n}.", labels=_POOL)
            for n in names
        }
        scalings = CounterMetricFamily(
            "headrace_operator_scale_events", "Changes of a pool's number.", labels=(*_POOL, "direction", "reason")
        )
        for key, steering in work.loop.pools.items():
            for name, value in steering.figures(work.cluster.fleet(key)).items():
                gauges[name].add_metric([*key], value)
            for (direction, reason), count in steering.scalings.items():
                scalings.add_metric([*key, direction, reason], count)
        yield from gauges.values()
        yield scalings

    def _queues(self, loop: ControlLoop) -> Iterator[Metric]:
        pending = GaugeMetricFamily("headrace_operator_pending_tasks", "Tasks that wait for a pool.", labels=_POOL)
        oldest = GaugeMetricFamily(
            "headrace_operator_oldest_pending_seconds", "Seconds that the oldest of them has waited.", labels=_POOL
        )
        reachable = GaugeMetricFamily(
            "headrace_operator_queue_reachable", "1 if the last look at a pool's queues went well.", labels=_POOL
        )
        task = GaugeMetricFamily(
            "headrace_operator_task_seconds", "Measured mean seconds of an attempt, of types that began lately.",
            labels=(*_POOL, "queue", "type"),
        )  # fmt: skip
        for key, steering in loop.pools.items():
            loads = steering.loads
            reachable.add_metric([*key], int(loads is not None))
            if loads is not None:
                pending.add_metric([*key], sum(load.pending for load in loads))
                oldest.add_metric([*key], max((load.oldest_s for load in loads), default=0.0))
                for queue, each in ((load.name, each) for load in loads for each in load.types):
                    if each.seconds is not None:
                        task.add_metric([*key, queue, each.name], each.seconds)
        yield from (pending, oldest, reachable, task)

    def _ticks(self, loop: ControlLoop) -> Iterator[Metric]:
        numbers = loop.numbers
        yield CounterMetricFamily("headrace_operator_reconcile", "Ticks of the control loop.", value=numbers.ticks)
        duration = HistogramMetricFamily("headrace_operator_reconcile_duration_seconds", "What a tick takes.")
        duration.add_metric([], numbers.durations.cumulative(), numbers.durations.sum)
        yield duration
        yield CounterMetricFamily(
            "headrace_operator_reconcile_errors", "Steps that failed unexpectedly.", value=numbers.errors
        )
        yield CounterMetricFamily(
            "headrace_operator_reconcile_overruns", "Steps of pools that a tick did not wait for.",
            value=numbers.overruns,
        )  # fmt: skip
        yield CounterMetricFamily("headrace_operator_wakes", "Ticks out of turn, by a submission.", value=numbers.woken)
        age = time.monotonic() - numbers.last_tick_s if numbers.ticks else 0.0
        yield GaugeMetricFamily("headrace_operator_tick_age_seconds", "Seconds since the last tick ended.", value=age)
        yield GaugeMetricFamily(
            "headrace_operator_invalid_pools", "Pools with a spec that cannot be read.", value=loop.unreadable
        )
        yield GaugeMetricFamily(
            "headrace_operator_resting_pools", "Pools that a tick only looks at: nothing to do.", value=loop.resting
        )

    def _redis(self, loop: ControlLoop) -> Metric:
        up = GaugeMetricFamily(
            "headrace_redis_up", "1 while this process reaches Redis; of an operator, each that pools name.",
            labels=("connection",),
        )  # fmt: skip
        for name, answers in loop.redis_up.items():
            up.add_metric([name], int(answers))
        return up

    def _restarts(self) -> Metric:
        family = CounterMetricFamily(
            "headrace_operator_watch_restarts", "Watches that began anew, for whatever reason.", labels=("resource",)
        )
        for resource, count in patience.restarts.items():
            family.add_metric([resource], count)
        return family

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            "headrace_operator_api_requests", "Requests to the API server; code 0 = no answer.",
            labels=("verb", "resource", "code"),
        )  # fmt: skip
        for (method, resource, status), count in self._made.items():
            family.add_metric([method, resource, str(status)], count)
        return family


def registry_of(loop: ControlLoop, cluster: KubeCluster) -> CollectorRegistry:
    """Of an operator that always leads."""
    return registry_for(lambda: Leading(loop, cluster), lambda: True, cluster.requests)


def registry_for(work: Callable[[], Work | None], leads: Callable[[], bool], requests: Requests) -> CollectorRegistry:
    """The operator's own metrics, and those of its process."""
    registry = new_registry("operator")
    registry.register(OperatorCollector(work, leads, requests))
    for collector in (PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
