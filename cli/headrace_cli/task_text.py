"""A task as people read it: one line a fact, then its attempts, then where its code failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .records import Column, Listing

if TYPE_CHECKING:
    from headrace.summaries import TaskSummary
    from headrace_api.task_body import AttemptBody, TaskBody

__all__ = ["LISTING", "error_text", "task_lines"]

_MAX_TEXT: Final = 2_000


def _why(body: TaskBody | TaskSummary) -> str | None:
    return error_text(body.error.type, body.error.message) if body.error is not None else None


def error_text(type: str, message: str) -> str:
    return f"{type}: {message}" if message else type


def _progress(body: TaskBody | TaskSummary) -> str | None:
    said = body.progress
    if said is None:
        return None
    of = f" of {said.total:g}" if said.total is not None else ""
    return f"{said.done:g}{of}" + (f", {said.message}" if said.message else "")


LISTING: Final[Listing[TaskBody | TaskSummary]] = Listing(
    (
        Column("ID", lambda body: body.id),
        Column("TYPE", lambda body: body.type),
        Column("STATUS", lambda body: body.status),
        Column("QUEUE", lambda body: body.queue, wide=True),
        Column("PRIORITY", lambda body: body.priority, wide=True),
        Column("ATTEMPTS", lambda body: body.attempts),
        Column("CREATED", lambda body: body.created_at),
        Column("ENDED", lambda body: body.completed_at, wide=True),
        Column("WORKER", lambda body: body.worker_id, wide=True),
        Column("TAGS", lambda body: ",".join(body.tags), wide=True),
        Column("PROGRESS", _progress, wide=True),
        Column("ERROR", _why),
    ),
    name=lambda body: body.id,
    none="There are no such tasks.",
)
"""Several tasks in a table."""


def task_lines(body: TaskBody) -> Iterator[str]:
    """All that is known of a task. What strangers wrote is cleaned and cut."""
    from headrace.logs import clean

    for name, value in _facts(body).items():
        if value:
            yield f"{name:<10} {clean(value, _MAX_TEXT)}"
    for attempt in body.log:
        yield f"{'':<10} {clean(_attempt(attempt), _MAX_TEXT)}"
    if body.error is not None and body.error.trace:
        yield from (clean(line, _MAX_TEXT) for line in body.error.trace.splitlines())


def _facts(body: TaskBody) -> dict[str, str | None]:
    from headrace.task import Priority

    return {
        "id": body.id,
        "type": body.type,
        "status": body.status,
        "queue": f"{body.queue}, priority {Priority(body.priority & 3).name.lower()}",
        "created": body.created_at,
        "due": body.due_at,
        "started": body.started_at,
        "completed": body.completed_at,
        "expires": body.expires_at,
        "tags": ", ".join(body.tags),
        "worker": body.worker_id,
        "progress": _progress(body),
        "attempts": _counts(body),
        "payload": bytes(body.payload).decode(errors="replace"),
        "result": None if body.result is None else bytes(body.result).decode(errors="replace"),
    }


def _counts(body: TaskBody) -> str:
    so_far = (
        _number(body.attempts, "attempt", "attempts"),
        _number(body.retry_count, "failure", "failures"),
        _number(body.crashes, "crash", "crashes"),
        _number(body.interruptions, "interruption", "interruptions"),
    )
    return f"{', '.join(so_far)}; {_number(body.max_retries, 'retry', 'retries')} allowed"


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _attempt(attempt: AttemptBody) -> str:
    why = f": {error_text(attempt.error.type, attempt.error.message)}" if attempt.error else ""
    cause = f" ({attempt.cause})" if attempt.cause else ""
    return f"{attempt.ended_at or '-'} {attempt.outcome}{cause} on {attempt.worker_id or '-'}{why}"
