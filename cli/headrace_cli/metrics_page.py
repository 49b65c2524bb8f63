"""The page of all metrics, made from the collectors of API, worker and operator. `make docs` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from headrace.metrics import WorkerCollector, new_registry
from headrace.redis_settings import RedisSettings
from headrace.runtime.stats import WorkerStats
from headrace_api.connections import Connections
from headrace_api.metrics import _MAX_BY, Metrics
from headrace_api.overview import Overview
from headrace_api.store import Store
from headrace_operator.caps import Caps
from headrace_operator.kube import KubeCluster, Watched
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.metrics import registry_of
from headrace_operator.requests import Requests

from .markdown import table

__all__ = ["api_registry", "operator_registry", "page", "worker_registry"]

HEAD: Final = """\
# Metrics

Made from the code by `make docs`; change it there. API, workers and operator each serve theirs at `GET /metrics`, and
beside these the usual `process_…` metrics of their process. `headrace dev` shows those of API and workers at its
API, with the process of the API.

Of queues (here *q*) the API tells the same at every replica: use `max by`, not `sum`. They are absent while Redis is
away.
"""
LABELS: Final = {
    "type": "a registered type, or `unknown`",
    "priority": "`critical`, `high`, `medium` or `low`; of queues also `recovered` (handed back) and `suspect` (their "
    "worker died)",
    "status": "`completed`, `failed`, `cancelled`",
    "outcome": "of an attempt: `completed`, `retrying`, `failed`, `cancelled`; of a bulk job: `done`, `aborted`; of "
    "its tasks: `done`, `failed`",
    "action": "`retry`, `cancel`, `delete`",
    "reason": "of a refused submission: `invalid`, `unauthorized`, `forbidden`, `too_large`, `full`, `limited`, "
    "`unavailable`, `error`; of a dead letter: `error`, `timeout`, `invalid_payload`, `malformed`, "
    "`crashed`; of a pool's change: that of its decision",
    "verdict": "`dup`, `stale`, `gone`",
    "limit": "`all` (`HEADRACE_MAX_CONNECTIONS`) or `address` (`HEADRACE_MAX_CONNECTIONS_PER_ADDRESS`)",
    "risk": "`eviction` (keys are dropped to make room), `persistence` (no file is kept), `untold` (it does not say)",
    "kind": "the code of the error, see [errors.md](errors.md)",
    "command": "the script's name, or `command`",
    "method": "of the request",
    "route": "the path with its placeholders",
    "connection": "of the operator only: a Redis that its settings name",
    "code": "the status of the answer; of the operator's requests 0 where none came",
    "version": "of headrace",
    "python": "its version",
    "revision": "the commit, where the build knows it",
    "component": "`api` or `worker`",
    "namespace": "the pool's in Kubernetes; Prometheus calls it `exported_namespace` unless it is told `honor_labels`",
    "pool": "the WorkerPool's name",
    "queue": "a queue that the workers of a pool read",
    "direction": "`up` or `down`",
    "verb": "of the request to the Kubernetes API",
    "resource": "what that request or watch was about, such as `pods` or `deployments/scale`",
}


def page() -> str:
    """The whole page."""
    labels = ((f"`{name}`", values) for name, values in LABELS.items())
    parts = [
        HEAD,
        table(("metric", "labels", "of", "meaning"), _all()),
        "## Labels\n",
        table(("label", "values"), labels),
    ]
    return "\n".join(parts)


def _all() -> Iterator[tuple[str, str, str, str]]:
    rows: dict[str, tuple[str, str, str]] = {}
    registries = {"API": api_registry(), "worker": worker_registry(), "operator": operator_registry()}
    for of, registry in registries.items():
        for name, labels, meaning in _rows(registry.collect()):
            known = rows.get(name)
            told, of_queues, _ = meaning.partition(_MAX_BY)
            shared = "all" if known and known[1] == "both" else "both"
            whose = shared if known else f"{of}, *q*" if of_queues else of
            rows[name] = (labels or (known[0] if known else ""), whose, told)
    for name, (labels, whose, told) in rows.items():
        yield f"`{name}`", labels, whose, told


def _rows(families: Iterable[Metric]) -> Iterator[tuple[str, str, str]]:
    for family in families:
        if family.name.startswith(("process_", "python_")):
            continue
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels: Iterable[str] = getattr(family, "_labelnames", ()) or _seen(family)
        histogram = "histogram: " if family.type == "histogram" else ""
        yield name, " ".join(f"`{label}`" for label in labels), histogram + family.documentation


def _seen(family: Metric) -> list[str]:
    return sorted({label for sample in family.samples for label in sample.labels} - {"le"})


def worker_registry() -> CollectorRegistry:
    """What a worker shows."""
    registry = new_registry("worker")
    stats = WorkerStats(["hello"])
    stats.heartbeat_s = 1.0
    registry.register(WorkerCollector(stats))
    return registry


def api_registry() -> CollectorRegistry:
    """What the API shows."""
    registry = CollectorRegistry(auto_describe=False)
    metrics = Metrics(Store(RedisSettings(), 1.0), 1_000, Connections(1, 1))
    metrics.overviews = [Overview({}, frozenset(), (1, 1))]
    registry.register(metrics)
    return registry


def operator_registry() -> CollectorRegistry:
    """What the operator shows. It is made without a cluster and asks for nothing."""
    cluster = KubeCluster(Requests(cast(Any, None)), Watched())
    return registry_of(ControlLoop(cluster, Looker({}), tick_s=1, caps=Caps()), cluster)
