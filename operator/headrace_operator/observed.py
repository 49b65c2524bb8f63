"""What a decision looks at: the queues and the replicas of one pool at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headrace.broker.demand import TypeTime


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """One queue at one moment."""

    name: str
    pending: int
    """Waiting in streams: never the consumer group's `lag`."""
    processing: int = 0
    due_soon: int = 0
    """Scheduled or retrying, due before a pod that is started now would be ready."""
    scheduled: int = 0
    """All that are scheduled or retrying, those with them."""
    parked: int = 0
    """Parked since before the pool's present template: a new image gets its chance once."""
    oldest_s: float = 0.0
    """Seconds that the oldest pending task has waited."""
    task_s: float | None = None
    """What a task is expected to take, by what was measured; None: nothing was yet."""
    types: tuple[TypeTime, ...] = ()
    """What that was made of."""
    paused: bool = False

    @property
    def waiting(self) -> int:
        """What wants a slot and has none."""
        return 0 if self.paused else self.pending + self.due_soon + self.parked


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The queues could not be read: an error, which is never zero."""

    why: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One pool at one moment."""

    queues: tuple[QueueLoad, ...] | Unreadable
    replicas: int
    """What the Deployment is asked for."""
    busy: int = 0
    """Pods that run a task."""
    rollout: bool = False
    """Two templates run side by side: deletion costs do not reach across ReplicaSets, so nothing shrinks."""
    granted: int | None = None
    """The most that caps of the namespace or the cluster leave to this pool."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The time by both clocks."""

    s: float
    """Monotonic seconds: for windows."""
    wall: datetime
    """Aware: for schedules."""
