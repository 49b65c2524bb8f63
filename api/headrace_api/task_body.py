"""A task as the API shows it: contract.md's names first, ours after them. Times are RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from headrace.blame import last_failure
from headrace.broker.broker import TaskView
from headrace.task import TERMINAL, Attempt, Failure, Progress, State

_UNREADABLE: Final = msgspec.Raw(b"null")


Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC."""


class AttemptBody(msgspec.Struct, frozen=True):
    """One ended attempt."""

    outcome: Annotated[
        str, Meta(description="The state that followed, or `crashed` (its worker died) or `interrupted` (handed back).")
    ]
    worker_id: str | None
    started_at: Moment | None
    ended_at: Moment | None
    error: Failure | None
    cause: Annotated[str | None, Meta(description="What ended its worker, where that is known.")]


class ProgressBody(msgspec.Struct, frozen=True):
    """How far an attempt says it is."""

    done: int | float
    total: int | float | None
    message: str
    at: Annotated[Moment | None, Meta(description="When it said so.")]


class TaskBody(msgspec.Struct, frozen=True):
    """A task as it is now."""

    id: str
    type: Annotated[str, Meta(description="Empty where something foreign wrote the task.")]
    priority: Annotated[int, Meta(description="3 critical, 2 high, 1 medium, 0 low.")]
    status: State
    payload: Annotated[
        msgspec.Raw,
        Meta(
            description="The client's own bytes; null where something foreign wrote them.",
            extra_json_schema={"type": ["object", "null"]},
        ),
    ]
    max_retries: int
    retry_count: Annotated[int, Meta(description="Failed attempts so far, the first one among them.")]
    created_at: Moment | None
    started_at: Annotated[Moment | None, Meta(description="When its last attempt began.")]
    completed_at: Annotated[Moment | None, Meta(description="When it ended for good.")]
    worker_id: Annotated[str | None, Meta(description="Who runs it, or ran it last.")]
    queue: str
    due_at: Annotated[Moment | None, Meta(description="When a scheduled or retrying task is due.")]
    attempts: int
    crashes: Annotated[int, Meta(description="Attempts whose worker died.")]
    interruptions: Annotated[int, Meta(description="Attempts handed back or parked, which are free.")]
    result: Annotated[msgspec.Raw | None, Meta(description="What the handler returned.")]
    error: Annotated[Failure | None, Meta(description="Of the last attempt, if that failed.")]
    log: Annotated[list[AttemptBody], Meta(description="The last 8 attempts, oldest first.")]
    tags: tuple[str, ...]
    expires_at: Annotated[Moment | None, Meta(description="When it is cancelled if nobody has begun it.")]
    progress: Annotated[ProgressBody | None, Meta(description="Of the attempt that runs, if that said any.")]


def rfc3339(ms: int | None) -> str | None:
    """Unix milliseconds as text; whole seconds stay whole. None for a time that no calendar has."""
    if ms is None:
        return None
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    spec = "milliseconds" if ms % 1000 else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def task_body(seen: TaskView, default_retries: int) -> TaskBody:
    """The answer for a task. `default_retries` holds for a submission that did not say."""
    envelope, counters = seen.envelope, seen.counters
    chosen = envelope.max_retries if envelope else None
    return TaskBody(
        id=seen.id,
        type=envelope.type if envelope else "",
        priority=envelope.priority if envelope else 0,
        status=seen.state,
        payload=envelope.payload if envelope else _UNREADABLE,
        max_retries=default_retries if chosen is None else chosen,
        retry_count=counters.failures,
        created_at=rfc3339(envelope.created_ms) if envelope else None,
        started_at=rfc3339(seen.started_ms),
        completed_at=rfc3339(seen.ended_ms) if seen.state in TERMINAL else None,
        worker_id=seen.worker,
        queue=seen.queue,
        due_at=rfc3339(seen.due_ms),
        attempts=counters.attempts,
        crashes=counters.crashes,
        interruptions=counters.interruptions,
        result=seen.result,
        error=last_failure(seen),
        log=[_attempt(each) for each in seen.attempts],
        tags=envelope.tags if envelope else (),
        expires_at=rfc3339(envelope.expires_ms) if envelope else None,
        progress=progress_body(seen.progress) if seen.progress else None,
    )


def progress_body(said: Progress) -> ProgressBody:
    """What an attempt said."""
    return ProgressBody(said.done, said.total, said.message, rfc3339(said.at))


def _attempt(each: Attempt) -> AttemptBody:
    return AttemptBody(
        outcome=each.outcome,
        worker_id=each.worker or None,
        started_at=rfc3339(each.started_ms or None),
        ended_at=rfc3339(each.ended_ms or None),
        error=each.error,
        cause=each.cause,
    )
