"""What the routes of tasks and of the service answer, as types that the OpenAPI document describes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .task_body import TaskBody

TaskId = Annotated[str, Meta(description="The task's id: ask for it at /api/v1/tasks/{id}.")]


class SubmittedTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task that is stored."""

    task_id: TaskId
    status: Annotated[
        Literal["submitted", "held"],
        Meta(description="`held`, in a batch only: not stored, `task_id` is who holds its unique key."),
    ]
    warning: Annotated[str | UnsetType, Meta(description="Where no worker has published the type yet.")] = UNSET
    task: Annotated[TaskBody | UnsetType, Meta(description="With `Prefer: wait`, if it ended in time: how.")] = UNSET


class SubmittedBatch(msgspec.Struct, frozen=True):
    """Tasks that are stored, in the order of the batch."""

    count: int
    tasks: list[SubmittedTask]


class TaskStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a task."""

    task_id: TaskId
    status: Annotated[Literal["cancelled", "processing", "pending"], Meta(description="The state that it has now.")]
    note: Annotated[str | UnsetType, Meta(description="What follows from it.")] = UNSET


class HealthChecks(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the health depends on."""

    redis: Literal["up", "down", "refuses"]
    tokens: Annotated[
        Literal["stale"] | UnsetType, Meta(description="The file of tokens cannot be read; those before it hold.")
    ] = UNSET


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether submissions can be taken."""

    status: Literal["ok", "stopping", "unavailable"]
    checks: HealthChecks
    warnings: Annotated[
        list[str] | UnsetType, Meta(description="By which of its settings Redis may lose tasks; nothing is refused.")
    ] = UNSET


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class QueueCounts(msgspec.Struct, frozen=True):
    """How many tasks of a queue are where, and how many ended since it was made."""

    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    scheduled: Annotated[int, Meta(description="Scheduled and retrying.")]
    parked: int
    dead_letters: int
    paused: bool


class Stats(msgspec.Struct, frozen=True):
    """The sums of all queues, and each of them."""

    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    scheduled: Annotated[int, Meta(description="Scheduled and retrying.")]
    parked: int
    dead_letters: int
    workers: Annotated[int, Meta(description="Workers whose life signs arrive.")]
    queues: Annotated[dict[str, QueueCounts], Meta(description="By name.")]
