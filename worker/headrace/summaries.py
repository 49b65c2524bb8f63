"""Tasks, failures and workers in lists, as HTTP answers and commands show them. Times are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from headrace.blame import last_failure, place_of
from headrace.broker.broker import TaskView
from headrace.failures import FailureGroup
from headrace.queues import at
from headrace.roster import WorkerInfo
from headrace.task import TERMINAL, Progress, State

MESSAGE_CHARS: Final = 200
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class ErrorSummary(msgspec.Struct, frozen=True):
    """What went wrong last."""

    type: Annotated[str, Meta(description="class of the exception; `Crashed`: its worker died")]
    message: Annotated[str, Meta(description=f"its first {MESSAGE_CHARS} characters")]
    reason: Annotated[str | None, Meta(description="a fixed word, where there is one")]
    place: Annotated[str, Meta(description="`folder/file.py:function` of the application; `-` without a traceback")]


class ProgressSummary(msgspec.Struct, frozen=True):
    """How far an attempt says it is."""

    done: int | float
    total: int | float | None
    message: str
    at: Moment | None


class TaskSummary(msgspec.Struct, frozen=True):
    """A task in a list; GET /api/v1/tasks/{id} has all of it."""

    id: str
    type: str
    queue: str
    status: State
    priority: int
    tags: tuple[str, ...]
    created_at: Moment | None
    started_at: Annotated[Moment | None, Meta(description="of the last attempt")]
    completed_at: Annotated[Moment | None, Meta(description="when it ended for good")]
    due_at: Annotated[Moment | None, Meta(description="of a scheduled or retrying task")]
    worker_id: str | None
    attempts: int
    retry_count: int
    crashes: int
    error: ErrorSummary | None
    progress: ProgressSummary | None
    payload: Annotated[
        msgspec.Raw | None,
        Meta(description="with `fields=payload`, else null", extra_json_schema={"type": ["object", "null"]}),
    ] = None


class ErrorGroup(msgspec.Struct, frozen=True):
    """Failures that are most likely one fault."""

    type: Annotated[str, Meta(description="task type; empty for entries that headrace did not write")]
    exception: Annotated[str, Meta(description="its class; `Crashed`: their worker died")]
    place: Annotated[str, Meta(description="`folder/file.py:function` of the application; `-` without a traceback")]
    count: Annotated[int, Meta(description="tasks, of those that were looked at")]
    first_at: Moment | None
    last_at: Moment | None
    message: Annotated[str, Meta(description="of the last one")]
    sample_id: Annotated[str, Meta(description="the last one")]
    filter: Annotated[str, Meta(description="finds them in lists, and bulk jobs take it")]


class RunningTask(msgspec.Struct, frozen=True):
    """A task that a worker runs."""

    id: str
    type: str
    queue: str
    started_at: Moment | None
    progress: ProgressSummary | None


class WorkerSummary(msgspec.Struct, frozen=True):
    """A worker process. What it does not say (it is older, or died before its first beat) is null."""

    worker: Annotated[str, Meta(description="WORKER_ID and a random part that is new at each start")]
    worker_id: str | None
    alive: Annotated[bool | None, Meta(description="whether its beat changes; null: not known yet")]
    draining: Annotated[bool, Meta(description="it claims no more")]
    version: Annotated[str | None, Meta(description="of headrace")]
    host: str | None
    pid: int | None
    queues: tuple[str, ...]
    slots: int | None
    held: Annotated[int, Meta(description="tasks that it holds")]
    started_at: Moment | None
    running: Annotated[list[RunningTask], Meta(description="these; fewer than `held` if there are very many")]


def summary(seen: TaskView, *, payload: bool = False) -> TaskSummary:
    """A task of a page. `payload` shows it, for pages that were asked for with payloads."""
    envelope, counters = seen.envelope, seen.counters
    return TaskSummary(
        id=seen.id,
        type=envelope.type if envelope else "",
        queue=seen.queue,
        status=seen.state,
        priority=envelope.priority if envelope else 0,
        tags=envelope.tags if envelope else (),
        created_at=at(envelope.created_ms) if envelope else None,
        started_at=at(seen.started_ms),
        completed_at=at(seen.ended_ms) if seen.state in TERMINAL else None,
        due_at=at(seen.due_ms),
        worker_id=seen.worker,
        attempts=counters.attempts,
        retry_count=counters.failures,
        crashes=counters.crashes,
        error=_error(seen),
        progress=_progress(seen.progress),
        payload=envelope.payload if envelope and payload else None,
    )


def _error(seen: TaskView) -> ErrorSummary | None:
    failure = last_failure(seen)
    if failure is None:
        return None
    return ErrorSummary(failure.type, _short(failure.message), failure.reason or None, place_of(failure))


def _short(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARS else message[: MESSAGE_CHARS - 1] + "…"


def _progress(said: Progress | None) -> ProgressSummary | None:
    if said is None:
        return None
    return ProgressSummary(said.done, said.total, said.message, at(said.at))


def error_group(group: FailureGroup) -> ErrorGroup:
    """One row of the errors."""
    failure = last_failure(group.sample)
    return ErrorGroup(
        type=group.type,
        exception=group.exception,
        place=group.place,
        count=group.count,
        first_at=at(group.first_ms),
        last_at=at(group.last_ms),
        message=_short(failure.message) if failure else "",
        sample_id=group.sample.id,
        filter=group.filter,
    )


def worker_summary(worker: WorkerInfo, alive: bool | None = None) -> WorkerSummary:
    """One row of the workers. `alive` is told by whoever watches beats all the time."""
    return WorkerSummary(
        worker=worker.name,
        worker_id=worker.worker_id or None,
        alive=worker.alive if alive is None else alive,
        draining=worker.draining,
        version=worker.version or None,
        host=worker.host or None,
        pid=worker.pid or None,
        queues=worker.queues,
        slots=worker.slots or None,
        held=worker.held,
        started_at=at(worker.started_ms or None),
        running=[_running(seen) for seen in worker.running],
    )


def _running(seen: TaskView) -> RunningTask:
    type_ = seen.envelope.type if seen.envelope else ""
    return RunningTask(seen.id, type_, seen.queue, at(seen.started_ms), _progress(seen.progress))
