"""From a call to what enters the queue: its id, its envelope, when it is due. Pure; nothing is sent here."""

from __future__ import annotations

import hashlib
import math
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

import msgspec

from headrace.broker.broker import NewTask
from headrace.errors import FieldError, InvalidTask, TooLarge
from headrace.settings import ClientSettings
from headrace.task import (
    ENVELOPE_VERSION,
    Envelope,
    Priority,
    check_queue,
    encode_envelope,
    new_id,
    parse_priority,
    queue_id,
    queue_of,
)
from headrace.taskdef import TaskDef

R = TypeVar("R")

MAX_DELAY_S: Final = 366 * 86_400.0
"""A task may be due up to a year ahead."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one submission differs from what its type says; None = it does not."""

    delay: float | timedelta | None = None
    """Seconds (or a timedelta) to wait before it may run."""
    eta: datetime | None = None
    """When it may run; with a time zone."""
    priority: Priority | int | str | None = None
    id: str | None = None
    """The task's id, chosen by the caller: repeated, it makes one task."""
    key: str | None = None
    """Idempotency key: while the record of an earlier submission of this type under it is kept, that one is meant."""
    unique: str | None = None
    """While a live task holds this key in the queue, that one is meant."""
    max_retries: int | None = None
    queue: str | None = None


@dataclass(frozen=True)
class TaskCall(Generic[R]):
    """A call that was checked and not sent."""

    definition: TaskDef
    payload: bytes
    options: Options


@dataclass(frozen=True)
class Submission:
    """What is sent, and may be sent again: the id makes repetitions harmless."""

    id: str
    queue: str
    new: NewTask
    fingerprint: str | None
    """Set when the caller chose the id or a key: tells a repetition from another submission under the same name."""


def prepare(call: TaskCall[R], settings: ClientSettings, now_ms: int, trace: str | None = None) -> Submission:
    """Make a submission. `trace` is the W3C traceparent to hand on. Raises InvalidTask, TooLarge."""
    definition, options = call.definition, call.options
    if len(call.payload) > settings.max_payload:
        raise TooLarge("payload", len(call.payload), settings.max_payload)
    maker = _Maker(call, settings)
    queue = maker.queue()
    task_id = maker.task_id(queue)
    priority = maker.priority()
    fingerprint = None
    if options.id is not None or options.key is not None:
        fingerprint = _digest(definition.name, call.payload)
    envelope = Envelope(
        version=ENVELOPE_VERSION,
        priority=priority,
        id=task_id,
        unique=maker.unique(),
        type=definition.name,
        created_ms=now_ms,
        max_retries=maker.max_retries(),
        fingerprint=fingerprint,
        trace=trace,
        payload=msgspec.Raw(call.payload),
    )
    new = NewTask(
        task_id, encode_envelope(envelope), priority, maker.delay_ms(), maker.due_ms(now_ms), options.unique is not None
    )
    return Submission(task_id, queue, new, fingerprint)


class _Maker:
    """The options of one call being read; each method reads one and refuses what it cannot be."""

    def __init__(self, call: TaskCall[R], settings: ClientSettings) -> None:
        self.definition = call.definition
        self.options = call.options
        self.settings = settings

    def refuse(self, pointer: str, detail: str, hint: str | None = None) -> InvalidTask:
        return InvalidTask(self.definition.name, [FieldError(pointer, detail, hint)])

    def queue(self) -> str:
        try:
            return check_queue(self.options.queue or self.definition.queue)
        except ValueError as error:
            raise self.refuse("/queue", str(error).removesuffix(".")) from None

    def priority(self) -> Priority:
        given = self.options.priority
        try:
            return self.definition.priority if given is None else parse_priority(given)
        except ValueError as error:
            raise self.refuse("/priority", str(error).removesuffix(".")) from None

    def max_retries(self) -> int | None:
        given = self.options.max_retries
        if given is not None and not (type(given) is int and 0 <= given <= 100):
            raise self.refuse("/max_retries", f"is {given!r}", "give a whole number from 0 to 100")
        return given

    def task_id(self, queue: str) -> str:
        options = self.options
        if options.id is not None and options.key is not None:
            raise self.refuse("/key", "stands beside an id", "give one of them: a key makes the id")
        if options.key is not None:
            parts = (self.settings.namespace, queue, self.definition.name, self._key("/key", options.key))
            return queue_id(queue, uuid.UUID(_digest("headrace/key", *parts)))
        if options.id is None:
            return new_id(queue)
        if queue_of(options.id) != queue:
            form = "a UUID in lower case" if queue == "default" else f"{queue}. and a UUID in lower case"
            raise self.refuse("/id", f"{options.id!r} is no id of queue {queue!r}", f"it is {form}")
        return options.id

    def unique(self) -> str | None:
        given = self.options.unique
        return None if given is None else _digest("headrace/unique", self._key("/unique", given))

    def _key(self, pointer: str, given: str) -> str:
        if not 0 < len(given.encode("utf-8", "surrogatepass")) <= self.settings.max_key_bytes:
            raise self.refuse(pointer, f"has to have 1 to {self.settings.max_key_bytes} bytes")
        return given

    def delay_ms(self) -> int:
        given = self.options.delay
        if given is None:
            return 0
        if self.options.eta is not None:
            raise self.refuse("/eta", "stands beside a delay", "give one of them")
        seconds = given.total_seconds() if isinstance(given, timedelta) else given
        if not (math.isfinite(seconds) and 0 <= seconds <= MAX_DELAY_S):
            raise self.refuse("/delay", f"is {seconds!r} seconds", f"give 0 to {MAX_DELAY_S:.0f}")
        return math.ceil(seconds * 1000)

    def due_ms(self, now_ms: int) -> int | None:
        given = self.options.eta
        if given is None:
            return None
        if given.tzinfo is None:
            raise self.refuse("/eta", "has no time zone", "as in datetime.now(UTC) + timedelta(hours=1)")
        due_ms = math.ceil(given.timestamp() * 1000)
        if due_ms - now_ms > MAX_DELAY_S * 1000:
            raise self.refuse("/eta", f"is {given.isoformat()}", "give a time within a year")
        return max(due_ms, 0)


def _digest(*parts: str | bytes) -> str:
    """128 bits that name these parts; no two lists of parts give the same text to hash."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(b"%d:" % len(data) + data)
    return hasher.hexdigest()[:32]
