"""A WorkerPool as the rest of the operator sees it: typed, with its defaults, checked.

The names and defaults are those of the custom resource (crds/workerpools.yaml), which the API server applies, too; here
they also serve `headrace dev -f pool.yaml`, where no API server is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from headrace.task import LABEL, LABEL_WORDS

MAX_NAME: Final = 52
"""A Deployment's pods add a hash to the name, and labels end at 63 characters."""
EXTRA_GRACE_S: Final = 30
"""Seconds between a task's time-out and the end of its pod's grace."""
MARGIN_S: Final = 5
"""Seconds that a worker's own grace is shorter than its pod's."""
MOST_GRACE_S: Final = 86_400
"""The longest that a worker takes."""
MOST_LEVELS: Final = 50
"""Of maps and lists in each other: a pod has a third as many, and Python copies no more than some hundred."""


class Mode(StrEnum):
    """Who decides the number of replicas."""

    AUTO = "Auto"
    EXTERNAL = "External"
    """An HPA, KEDA or a person writes spec.replicas; the drain is ours."""
    DRY_RUN = "DryRun"
    PAUSED = "Paused"


Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=0, le=10_000)]
QueueName = Annotated[str, Meta(pattern=f"^{LABEL}$")]
_NO_LABEL: Final = f"`str` matching regex '^{LABEL}$'"
"""What msgspec calls it, which says little to people."""


class Camel(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Field names as Kubernetes writes them."""


class PoolQueue(Camel, frozen=True, kw_only=True):
    """One queue that the pool's workers read."""

    name: QueueName
    weight: Annotated[int, Meta(ge=1, le=100)] = 1
    """Its share of the claims of a worker that reads several queues."""
    target_queue_wait_seconds: Seconds | None = None
    suspects: Literal["Run", "Leave", "Only"] = "Run"
    """Tasks that were running when their worker died, most often for lack of memory: Leave them to a pool with larger
    pods, which runs Only them."""


class Worker(Camel, frozen=True, kw_only=True):
    """What one pod can do."""

    concurrency: Annotated[int, Meta(ge=1, le=1_000)] = 10
    expected_task_seconds: Seconds = 1.0
    """How long a task takes, until it was measured."""
    task_timeout_seconds: Annotated[float, Meta(ge=0.01, le=86_400)] = 300.0
    termination_grace_period_seconds: Annotated[int, Meta(ge=1, le=90_000)] | None = None


class Policy(Camel, frozen=True, kw_only=True):
    """At most so much change within a period, as in HPA v2."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Meta(ge=1)]
    period_seconds: Annotated[int, Meta(ge=1, le=1_800)]


class Rules(Camel, frozen=True, kw_only=True):
    """How fast one direction may go, as in HPA v2."""

    stabilization_window_seconds: Annotated[int, Meta(ge=0, le=3_600)] = 0
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: tuple[Policy, ...] = ()
    """None: straight to what is needed."""


class DownRules(Rules, frozen=True, kw_only=True):
    """Slower by default: half within 15 s, 30 s after they were last needed."""

    stabilization_window_seconds: Annotated[int, Meta(ge=0, le=3_600)] = 30
    policies: tuple[Policy, ...] = (Policy(type="Percent", value=50, period_seconds=15),)


class Behavior(Camel, frozen=True, kw_only=True):
    scale_up: Rules = Rules()
    scale_down: DownRules = DownRules()


class Schedule(Camel, frozen=True, kw_only=True):
    """From each `start` to the next `end`, other bounds hold."""

    name: str
    start: str
    end: str
    time_zone: str = "UTC"
    min_replicas: Count | None = None
    max_replicas: Count | None = None


class Fallback(Camel, frozen=True, kw_only=True):
    """What holds when Redis could not be read so many ticks in a row."""

    failure_threshold: Annotated[int, Meta(ge=1, le=10_000)] = 15
    policy: Literal["Hold", "Static", "AtLeast"] = "Hold"
    replicas: Count = 0


class Scaling(Camel, frozen=True, kw_only=True):
    max_replicas: Annotated[int, Meta(ge=1, le=10_000)]
    min_replicas: Count = 0
    activation_tasks: Annotated[int, Meta(ge=1)] = 1
    """A pool at zero wakes when so many tasks wait."""
    target_queue_wait_seconds: Seconds | None = None
    target_tasks_per_replica: Annotated[int, Meta(ge=1)] | None = None
    idle_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    behavior: Behavior = Behavior()
    schedules: tuple[Schedule, ...] = ()
    fallback: Fallback = Fallback()


class Drain(Camel, frozen=True, kw_only=True):
    policy: Literal["IdleOnly", "Graceful"] = "IdleOnly"
    timeout_seconds: Seconds = 3_600.0


class Redis(Camel, frozen=True, kw_only=True):
    connection: str = "default"
    """A name in the operator's settings; never an address."""
    secret_name: str = "headrace-redis"  # noqa: S105 - a name


class PoolSpec(Camel, frozen=True, kw_only=True):
    """`spec` of a WorkerPool."""

    queues: Annotated[tuple[PoolQueue, ...], Meta(min_length=1, max_length=16)]
    scaling: Scaling
    template: dict[str, Any] = msgspec.field(default_factory=dict)
    mode: Mode = Mode.AUTO
    replicas: Count = 1
    worker: Worker = Worker()
    redis: Redis = Redis()
    drain: Drain = Drain()

    def target_wait_s(self, queue: PoolQueue) -> float | None:
        """How long a task of this queue may wait; None if only the depth counts."""
        return queue.target_queue_wait_seconds or self._pool_wait_s

    @property
    def slots(self) -> int:
        """Tasks that a replica runs at once. Of suspects a worker takes one a queue at most."""
        if all(queue.suspects == "Only" for queue in self.queues):
            return min(self.worker.concurrency, len(self.queues))
        return self.worker.concurrency

    @property
    def _pool_wait_s(self) -> float | None:
        scaling = self.scaling
        if scaling.target_queue_wait_seconds is None and scaling.target_tasks_per_replica is None:
            return DEFAULT_WAIT_S
        return scaling.target_queue_wait_seconds

    @property
    def grace_s(self) -> int:
        """Seconds from a pod's SIGTERM to its end."""
        given = self.worker.termination_grace_period_seconds
        return given if given is not None else int(self.worker.task_timeout_seconds) + EXTRA_GRACE_S

    @property
    def worker_grace_s(self) -> int:
        """Seconds from SIGTERM that tasks have to end, within what the pod has: its template may say that itself."""
        pod = self.template.get("spec")
        own = pod.get("terminationGracePeriodSeconds") if isinstance(pod, dict) else None
        seconds = own if isinstance(own, int) else self.grace_s
        return min(MOST_GRACE_S, max(1, seconds - MARGIN_S))


DEFAULT_WAIT_S: Final = 5.0


class InvalidSpec(ValueError):  # noqa: N818 - the condition's own word
    """A WorkerPool that the operator cannot act on; the text says which field and why."""


def read_spec(raw: object) -> PoolSpec:
    """Raises InvalidSpec. Fields that are not known (of a newer CRD) are left alone."""
    try:
        spec = msgspec.convert(said(raw), PoolSpec, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidSpec(f"spec: {str(error).replace(_NO_LABEL, LABEL_WORDS)}") from None
    _check(spec)
    return spec


def said(raw: object, levels: int = MOST_LEVELS) -> object:
    """Without what is null: an empty key of YAML says nothing, in a WorkerPool as in a Deployment.

    Raises InvalidSpec for what is nested too deep.
    """
    if not isinstance(raw, dict | list):
        return raw
    if not levels:
        raise InvalidSpec(f"spec: it is nested more than {MOST_LEVELS} deep.")
    if isinstance(raw, dict):
        return {name: said(each, levels - 1) for name, each in raw.items() if each is not None}
    return [said(each, levels - 1) for each in raw]


def _check(spec: PoolSpec) -> None:
    """What the CEL rules of the CRD say, for whoever has no API server."""
    scaling = spec.scaling
    if scaling.min_replicas > scaling.max_replicas:
        raise InvalidSpec(
            f"spec.scaling: minReplicas {scaling.min_replicas} is above maxReplicas {scaling.max_replicas}."
        )
    if scaling.fallback.replicas > scaling.max_replicas:
        raise InvalidSpec(
            f"spec.scaling.fallback.replicas {scaling.fallback.replicas} is above maxReplicas {scaling.max_replicas}."
        )
    names = [queue.name for queue in spec.queues]
    if len(set(names)) < len(names):
        raise InvalidSpec("spec.queues: each queue may stand there once.")
    if spec.drain.policy == "Graceful" and spec.grace_s < spec.worker.task_timeout_seconds:
        raise InvalidSpec(
            f"spec.worker: terminationGracePeriodSeconds {spec.grace_s} is below taskTimeoutSeconds "
            f"{spec.worker.task_timeout_seconds:g}, so that a drain by policy Graceful would cut tasks."
        )
