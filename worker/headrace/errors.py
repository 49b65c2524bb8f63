"""Every error headrace raises, one class per outcome that a caller can act on.

HeadraceError
├── ConfigError                a setting, or the definition of a task, is wrong: nothing was started
│   ├── UnknownSetting         a HEADRACE_* variable that no part of headrace reads
│   ├── BadSetting             a known setting with a value it cannot have
│   └── BadDefinition          a task function, middleware or lifespan that cannot be used; raised at import
├── InvalidTask                the submission is wrong and would be wrong again (.errors says where)
│   ├── InvalidPayload         the payload does not fit the task's parameters
│   ├── TooLarge               the payload, result, body or batch is over its limit
│   └── TaskConflict           the id, or the idempotency key behind it, belongs to another submission
├── QueueFull                  the queue holds as many live tasks as it may; try later
├── StoreUnavailable           Redis cannot be reached; whether a request was carried out is unknown
│   ├── StoreFull              Redis refuses writes (memory or disk)
│   └── StoreTimeout           Redis did not answer in time
├── DurabilityUnconfirmed      stored, but not confirmed as durable as the queue asks; send the same ids again
├── InvalidRequest             an order about queues or many tasks is wrong and would be again (.errors says where)
│   └── InvalidFilter          the words that say which tasks are meant cannot be understood
├── UnknownTask                no task has this id (any more)
├── UnknownQueue               the namespace has no such queue
├── UnknownType                no worker has published such a type
├── UnknownBulk                no bulk job has this id (any more)
├── WrongCount                 a bulk order fits another number of tasks than its caller expected; nothing was done
├── TooManyBulks               as many bulk jobs run as may; try later
├── WrongState                 the task is in a state that does not allow the action
├── TaskFailed                 Handle.get: the task ended in the dead letter
├── TaskCancelled              Handle.get: the task was cancelled
│   └── TaskExpired            Handle.get: nobody had begun it when its `expires` passed
├── ResultTimeout              Handle.get: the task has not ended yet
├── InvalidResult              Handle.get: the task completed, but its result is not what its function promises
├── WrongCaller                a method that cannot be used from here (the sentence names the right one)
├── Permanent                  for handlers to raise: to the dead letter at once, no retries
└── RetryAfter                 for handlers to raise: retry after so many seconds

A constructor takes facts, never sentences; `str(error)` makes the sentence. The facts are also `error.args`,
so every error here survives pickling. `code` is stable: it is what the HTTP API and the logs call the error.
"""
# ruff: noqa: N818 - named for the outcome ("QueueFull"), as users read them; the base class says that they are errors

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.config_errors import BadDefinition, BadSetting, ConfigError, UnknownSetting
from headrace.error_base import FieldError, HeadraceError, nearest
from headrace.error_base import ended as _ended
from headrace.order_errors import (
    InvalidFilter,
    InvalidRequest,
    TooManyBulks,
    UnknownBulk,
    UnknownQueue,
    UnknownType,
    WrongCount,
)

__all__ = [
    "BadDefinition",
    "BadSetting",
    "ConfigError",
    "DurabilityUnconfirmed",
    "FieldError",
    "HeadraceError",
    "InvalidFilter",
    "InvalidPayload",
    "InvalidRequest",
    "InvalidResult",
    "InvalidTask",
    "Permanent",
    "QueueFull",
    "ResultTimeout",
    "RetryAfter",
    "StoreFull",
    "StoreTimeout",
    "StoreUnavailable",
    "TaskCancelled",
    "TaskConflict",
    "TaskExpired",
    "TaskFailed",
    "TooLarge",
    "TooManyBulks",
    "UnknownBulk",
    "UnknownQueue",
    "UnknownSetting",
    "UnknownTask",
    "UnknownType",
    "WrongCaller",
    "WrongCount",
    "WrongState",
    "nearest",
]


class InvalidTask(HeadraceError):
    """A submission is refused; sent again unchanged it would be refused again."""

    code = "invalid_task"

    def __init__(self, subject: str, errors: Sequence[FieldError]) -> None:
        super().__init__(subject, tuple(errors))
        self.subject = subject
        self.errors: list[FieldError] = list(errors)

    def __str__(self) -> str:
        what = f"Task {self.subject!r}" if self.subject else "The submission"
        return f"{what} is refused: {'; '.join(map(str, self.errors))}."


class InvalidPayload(InvalidTask):
    """The payload does not fit the parameters of its type. `subject` is the type."""

    code = "invalid_payload"

    def __str__(self) -> str:
        return f"The payload does not fit task type {self.subject!r}: {'; '.join(map(str, self.errors))}."


class TooLarge(InvalidTask):
    """`what` (payload, result, body, batch) measures `size` and may measure `limit`, both in `unit`."""

    code = "too_large"

    def __init__(self, what: str, size: int, limit: int, unit: str = "bytes") -> None:
        detail = f"the {what} has {size} {unit}, the limit is {limit}"
        super().__init__(what, [FieldError(f"/{what}" if what == "payload" else "", detail)])
        self.args = (what, size, limit, unit)
        self.what, self.size, self.limit, self.unit = what, size, limit, unit

    def __str__(self) -> str:
        remedy = "Put large data where the worker can fetch it and pass its address."
        if self.what == "batch":
            remedy = "Send several batches."
        return f"The {self.what} has {self.size} {self.unit}; the limit is {self.limit}. {remedy}"


class TaskConflict(InvalidTask):
    """The id (given, or derived from an idempotency key) was already used for a different submission."""

    code = "task_conflict"

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id, [FieldError("", "the id was already used for another payload")])
        self.args = (task_id,)
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"Task {self.task_id} exists already with another type or payload; this submission is refused. "
            "Repeat a submission unchanged, or use a new id or idempotency key."
        )


class QueueFull(HeadraceError):
    """The queue is at its limit of live tasks (waiting, running, delayed); nothing was stored."""

    code = "queue_full"

    def __init__(self, queue: str, limit: int) -> None:
        super().__init__(queue, limit)
        self.queue = queue
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"Queue {self.queue!r} holds its limit of {self.limit} live tasks; nothing was stored. "
            "Try again when workers have caught up, or raise HEADRACE_MAX_DEPTH or the limit of the queue."
        )


class StoreUnavailable(HeadraceError):
    """Redis cannot be used now. `where` names the server and the setting it came from, without its password.

    A request whose answer was lost may have been carried out: repeat it with the same id, to make one task.
    `answered`: Redis is there, and `cause` is what it says.
    """

    code = "store_unavailable"

    def __init__(self, where: str, cause: str, answered: bool = False) -> None:
        super().__init__(where, cause, answered)
        self.where = where
        self.cause = cause
        self.answered = answered

    def __str__(self) -> str:
        if self.answered:
            return (
                f"Redis at {self.where} cannot be used now: {_ended(self.cause)} Mend what it says, or try again later."
            )
        return (
            f"Redis cannot be reached at {self.where}: {_ended(self.cause)} "
            "Start it (`headrace dev` brings one), or set HEADRACE_URL to one that runs."
        )


class StoreFull(StoreUnavailable):
    """Redis refuses to write: its memory limit (OOM) or its disk (MISCONF). Nothing was stored."""

    code = "store_full"

    def __str__(self) -> str:
        return (
            f"Redis at {self.where} refuses writes: {_ended(self.cause)} Nothing was stored and nothing is lost; "
            "free memory or disk, raise maxmemory, or wait until workers have drained the queue."
        )


class StoreTimeout(StoreUnavailable):
    """Redis took the connection but did not answer in time; the request may still be carried out."""

    code = "store_timeout"

    def __str__(self) -> str:
        return (
            f"Redis at {self.where} did not answer in time: {_ended(self.cause)} The request may have been done: "
            "repeat it with the same task id, which stores it once."
        )


class DurabilityUnconfirmed(HeadraceError):
    """The tasks are in Redis, but the durability of their queue was not confirmed in time."""

    code = "durability_unconfirmed"

    def __init__(self, task_ids: Sequence[str], durability: str = "") -> None:
        super().__init__(tuple(task_ids), durability)
        self.task_ids = tuple(task_ids)
        self.durability = durability

    def __str__(self) -> str:
        wanted = f" as {self.durability}" if self.durability else ""
        if not self.task_ids:
            return f"What was sent was not confirmed{wanted} in time. Send it again: nothing is stored twice."
        some = ", ".join(self.task_ids[:3]) + (" …" if len(self.task_ids) > 3 else "")
        return (
            f"{len(self.task_ids)} submission(s) ({some}) were written but not confirmed{wanted} in time. "
            "Send them again with the same ids: what is there already is not stored twice."
        )


class UnknownTask(HeadraceError):
    """No task has this id: it never existed, its form is wrong, or its record has expired."""

    code = "unknown_task"

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"No task {self.task_id!r} is known. Check the id; records of ended tasks are kept for "
            "HEADRACE_RETENTION_S seconds."
        )


class WrongState(HeadraceError):
    """`action` (cancel, replay …) does not apply to a task in `state`; nothing was changed."""

    code = "wrong_state"

    def __init__(self, task_id: str, state: str, action: str) -> None:
        super().__init__(task_id, state, action)
        self.task_id, self.state, self.action = task_id, state, action

    def __str__(self) -> str:
        return f"Task {self.task_id} is {self.state}, so it cannot be {self.action}; nothing was changed."


class TaskFailed(HeadraceError):
    """The task ended in the dead letter. `type` and `message` are those of its last error."""

    code = "task_failed"

    def __init__(self, task_id: str, type: str, message: str) -> None:
        super().__init__(task_id, type, message)
        self.task_id, self.type, self.message = task_id, type, message

    def __str__(self) -> str:
        return _ended(f"Task {self.task_id} failed with {self.type}: {self.message}")


class TaskCancelled(HeadraceError):
    """The task was cancelled and has no result."""

    code = "task_cancelled"

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"Task {self.task_id} was cancelled, so it has no result."


class TaskExpired(TaskCancelled):
    """Nobody had begun the task when its `expires` passed; it was not run after that."""

    code = "task_expired"

    def __str__(self) -> str:
        return (
            f"Task {self.task_id} expired before a worker could begin it. "
            "Start more workers, or submit it with a later `expires`."
        )


class ResultTimeout(HeadraceError, TimeoutError):
    """The task did not end within `seconds`; it goes on, and can be asked about again."""

    code = "result_timeout"

    def __init__(self, task_id: str, seconds: float, state: str) -> None:
        super().__init__(task_id, seconds, state)
        self.task_id, self.seconds, self.state = task_id, seconds, state

    def __str__(self) -> str:
        return (
            f"Task {self.task_id} is still {self.state} after {self.seconds:g} s. "
            "It goes on; wait longer, or see that a worker serves its queue."
        )


class InvalidResult(HeadraceError):
    """The task completed, and its result is not of the type that its function is annotated with here."""

    code = "invalid_result"

    def __init__(self, task_id: str, problem: str) -> None:
        super().__init__(task_id, problem)
        self.task_id, self.problem = task_id, problem

    def __str__(self) -> str:
        return _ended(f"Task {self.task_id} completed, but its result does not fit its return type: {self.problem}")


class WrongCaller(HeadraceError, TypeError):
    """`name` cannot be used here; `instead` is what can, and `because` says why."""

    code = "wrong_caller"

    def __init__(self, name: str, because: str, instead: str) -> None:
        super().__init__(name, because, instead)
        self.name, self.because, self.instead = name, because, instead

    def __str__(self) -> str:
        return f"{self.name} cannot be used here: {self.because}. Use {self.instead}."


class Permanent(HeadraceError):
    """For handlers: no retry can help, so the task goes to the dead letter at once."""

    code = "permanent"

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class RetryAfter(HeadraceError):
    """For handlers: try again after `seconds` (finite, ≥ 0) instead of after the backoff."""

    code = "retry_after"

    def __init__(self, seconds: float, message: str = "") -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"RetryAfter takes a finite number of seconds from 0 up, not {seconds!r}.")
        super().__init__(seconds, message)
        self.seconds = float(seconds)
        self.message = message

    def __str__(self) -> str:
        return self.message or f"retry after {self.seconds:g} s"
