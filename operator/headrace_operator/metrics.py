"""What the operator shows to Prometheus, made from its own state when it is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .cluster import Cluster
from .kube import KubeCluster
from .loop import ControlLoop

_POOL = ("namespace", "pool")


class OperatorCollector(Collector):
    """Of one operator process."""

    def __init__(self, loop: ControlLoop, cluster: Cluster) -> None:
        self._loop = loop
        self._cluster = cluster

    def collect(self) -> Iterator[Metric]:
        yield from self._pools()
        yield from self._queues()
        yield from self._ticks()
        if isinstance(self._cluster, KubeCluster):
            yield self._requests(self._cluster)

    def _pools(self) -> Iterator[Metric]:
        names = ("desired", "recommended", "ready", "busy", "draining", "min", "max")
        gauges = {
            n: GaugeMetricFamily(f"headrace_operator_{n}_workers", f"Workers of a pool: {n}.", labels=_POOL)
            for n in names
        }
        scalings = CounterMetricFamily(
            "headrace_operator_scale_events", "Changes of a pool's number.", labels=(*_POOL, "direction", "reason")
        )
        for key, steering in self._loop.pools.items():
            for name, value in steering.figures(self._cluster.fleet(key)).items():
                gauges[name].add_metric([*key], value)
            for (direction, reason), count in steering.scalings.items():
                scalings.add_metric([*key, direction, reason], count)
        yield from gauges.values()
        yield scalings

    def _queues(self) -> Iterator[Metric]:
        pending = GaugeMetricFamily("headrace_operator_pending_tasks", "Tasks that wait for a pool.", labels=_POOL)
        oldest = GaugeMetricFamily(
            "headrace_operator_oldest_pending_seconds", "Seconds that the oldest of them has waited.", labels=_POOL
        )
        reachable = GaugeMetricFamily(
            "headrace_operator_queue_reachable", "1 if the last look at a pool's queues went well.", labels=_POOL
        )
        for key, steering in self._loop.pools.items():
            loads = steering.loads
            reachable.add_metric([*key], int(loads is not None))
            if loads is not None:
                pending.add_metric([*key], sum(load.pending for load in loads))
                oldest.add_metric([*key], max((load.oldest_s for load in loads), default=0.0))
        yield from (pending, oldest, reachable)

    def _ticks(self) -> Iterator[Metric]:
        numbers = self._loop.numbers
        yield CounterMetricFamily("headrace_operator_reconcile", "Ticks of the control loop.", value=numbers.ticks)
        yield CounterMetricFamily(
            "headrace_operator_reconcile_seconds", "Seconds spent in ticks.", value=numbers.seconds
        )
        yield CounterMetricFamily(
            "headrace_operator_reconcile_errors", "Steps that failed unexpectedly.", value=numbers.errors
        )
        yield CounterMetricFamily("headrace_operator_wakes", "Ticks out of turn, by a submission.", value=numbers.woken)
        age = time.monotonic() - numbers.last_tick_s if numbers.ticks else 0.0
        yield GaugeMetricFamily("headrace_operator_tick_age_seconds", "Seconds since the last tick ended.", value=age)
        yield GaugeMetricFamily(
            "headrace_operator_invalid_pools", "Pools with a spec that cannot be read.", value=len(self._loop.invalid)
        )

    def _requests(self, cluster: KubeCluster) -> Metric:
        family = CounterMetricFamily(
            "headrace_operator_api_requests", "Requests to the API server; code 0 = no answer.",
            labels=("verb", "resource", "code"),
        )  # fmt: skip
        for (method, resource, status), count in cluster.requests.made.items():
            family.add_metric([method, resource, str(status)], count)
        return family


def registry_of(loop: ControlLoop, cluster: Cluster) -> CollectorRegistry:
    """The operator's own metrics, and those of its process."""
    registry = CollectorRegistry()
    registry.register(OperatorCollector(loop, cluster))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
