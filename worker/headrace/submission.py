"""From a call to what enters the queue: its id, its envelope, when it is due. Pure; nothing is sent here."""

from __future__ import annotations

import hashlib
import hmac
import math
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec

from headrace.broker.broker import NewTask
from headrace.errors import FieldError, InvalidTask, TooLarge
from headrace.settings import ClientSettings
from headrace.task import (
    ENVELOPE_VERSION,
    MAX_TAGS,
    Envelope,
    Priority,
    check_queue,
    check_tag,
    encode_envelope,
    new_id,
    parse_priority,
    queue_id,
    queue_of,
)
from headrace.taskdef import TaskDef

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

MAX_DELAY_S: Final = 366 * 86_400.0
"""A task may be due up to a year ahead."""
MAX_UNIQUE_S: Final = 31 * 86_400.0
"""A unique key may be held for a month, as long as dead letters are kept."""


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
    unique: str | Unique | None = None
    """While another task holds this key in the queue, that one is meant; a text means `Unique(text)`."""
    max_retries: int | None = None
    queue: str | None = None
    tags: Sequence[str] = ()
    """Words to find it by: at most 16, of 1 to 64 letters, digits and _ . : / @ -."""
    expires: float | timedelta | datetime | None = None
    """Seconds from now (or a timedelta, or a moment with a time zone) after which no attempt begins any more: whoever
    would claim it then ends it as cancelled, and `Handle.get` raises TaskExpired."""


AS_DECLARED: Final = Options()
"""Those of a task that `using` was never called on."""


@dataclass(frozen=True)
class Unique:
    """A key that one task of a queue holds at a time: whoever submits another under it gets the one that holds it."""

    key: str
    """1 to 255 bytes."""
    until: float | timedelta | None = None
    """None: until the task has ended, however long that takes. Seconds (or a timedelta) from its submission, up to 31
    days: exactly so long, whether it has ended by then or not."""


class TaskCall(msgspec.Struct, Generic[R_co], frozen=True):
    """A call that was checked and not sent: `task.call(…)` makes it, `app.batch(…)` sends many at once."""

    definition: TaskDef
    payload: bytes
    options: Options


class Submission(msgspec.Struct, frozen=True):
    """What is sent, and may be sent again: the id makes repetitions harmless."""

    id: str
    queue: str
    new: NewTask
    fingerprint: str | None
    """Set when the caller chose the id or a key: tells a repetition from another submission under the same name."""
    named: Callable[[bytes], Submission] | None = None
    """From the namespace's secret to this submission under the id that its idempotency key makes; None: it has it."""


def prepare(
    call: TaskCall[R], settings: ClientSettings, now_ms: int, trace: str | None = None, secret: bytes | None = None
) -> Submission:
    """Make a submission. `trace` is the W3C traceparent to hand on, `secret` the namespace's, which only an idempotency
    key needs: without it `Submission.named` is set. Raises InvalidTask, TooLarge.
    """
    definition, options = call.definition, call.options
    if len(call.payload) > settings.max_payload:
        raise TooLarge("payload", len(call.payload), settings.max_payload)
    if options is AS_DECLARED:
        return _plain(call, now_ms, trace)
    maker = _Maker(call, settings, secret)
    queue = maker.queue()
    task_id = maker.task_id(queue)
    priority = maker.priority()
    unique, once = maker.unique()
    fingerprint = None
    if options.id is not None or options.key is not None:
        fingerprint = _digest(definition.name, call.payload)
    envelope = Envelope(
        version=ENVELOPE_VERSION,
        priority=priority,
        id=task_id,
        unique=unique,
        type=definition.name,
        created_ms=now_ms,
        max_retries=maker.max_retries(),
        fingerprint=fingerprint,
        trace=trace,
        payload=msgspec.Raw(call.payload),
        tags=maker.tags(),
        expires_ms=maker.expires_ms(now_ms),
    )
    new = NewTask(
        task_id,
        encode_envelope(envelope),
        priority,
        maker.delay_ms(),
        maker.due_ms(now_ms),
        unique is not None,
        once,
    )
    named = None
    if options.key is not None and secret is None:
        named = partial(prepare, call, settings, now_ms, trace)
    return Submission(task_id, queue, new, fingerprint, named)


def _plain(call: TaskCall[R], now_ms: int, trace: str | None) -> Submission:
    """Of a call without options, as nearly all are: to read those that nobody gave costs more than all the rest."""
    definition = call.definition
    queue, priority = definition.queue, definition.priority
    task_id = new_id(queue)
    envelope = Envelope(
        version=ENVELOPE_VERSION,
        priority=priority,
        id=task_id,
        type=definition.name,
        created_ms=now_ms,
        trace=trace,
        payload=msgspec.Raw(call.payload),
    )
    return Submission(task_id, queue, NewTask(task_id, encode_envelope(envelope), priority), None)


class _Maker:
    """The options of one call being read; each method reads one and refuses what it cannot be."""

    def __init__(self, call: TaskCall[R], settings: ClientSettings, secret: bytes | None) -> None:
        self.secret = secret
        self.definition = call.definition
        self.options = call.options
        self.settings = settings

    def refuse(self, pointer: str, detail: str, hint: str | None = None) -> InvalidTask:
        return InvalidTask(self.definition.name, [FieldError(pointer, detail, hint)])

    def queue(self) -> str:
        try:
            return check_queue(self._text("/queue", self.options.queue or self.definition.queue))
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
            key = self._key("/key", options.key)
            if self.secret is not None:
                return key_id(
                    self.secret, queue, "headrace/key", self.settings.namespace, queue, self.definition.name, key
                )
        if options.id is None:
            return new_id(queue)
        given = self._text("/id", options.id)
        if queue_of(given) != queue:
            form = "a UUID in lower case" if queue == "default" else f"{queue}. and a UUID in lower case"
            raise self.refuse("/id", f"{given!r} is no id of queue {queue!r}", f"it is {form}")
        return given

    def unique(self) -> tuple[str | None, str]:
        """For the envelope the hash of a key that is held until the end; else `NewTask.once`."""
        given = self.options.unique
        if given is None:
            return None, ""
        if isinstance(given, str):
            given = Unique(given)
        if not isinstance(given, Unique):
            raise self.refuse("/unique", f"is {given!r}", "give a text, or a Unique")
        hashed = unique_hash(self._key("/unique", given.key))
        if given.until is None:
            return hashed, ""
        seconds = self._seconds("/unique/until", given.until)
        if not 0 < seconds <= MAX_UNIQUE_S:
            raise self.refuse("/unique/until", f"is {seconds!r} seconds", f"give more than 0, up to {MAX_UNIQUE_S:.0f}")
        return None, held_for(seconds, hashed)

    def tags(self) -> tuple[str, ...]:
        given = self.options.tags
        if isinstance(given, str) or not isinstance(given, Collection):
            raise self.refuse("/tags", f"is {given!r}", f"give a tuple, as in tags=({given!r},)")
        if len(given) > MAX_TAGS:
            raise self.refuse("/tags", f"are {len(given)}", f"give at most {MAX_TAGS}")
        try:
            return tuple(map(check_tag, given))
        except (ValueError, TypeError) as error:
            raise self.refuse("/tags", str(error).removesuffix(".")) from None

    def expires_ms(self, now_ms: int) -> int | None:
        given = self.options.expires
        if given is None:
            return None
        if isinstance(given, datetime):
            expires_ms = self._moment_ms("/expires", given, now_ms)
        else:
            seconds = self._seconds("/expires", given)
            if not 0 < seconds <= MAX_DELAY_S:
                raise self.refuse("/expires", f"is {seconds!r} seconds", f"give more than 0, up to {MAX_DELAY_S:.0f}")
            expires_ms = now_ms + math.ceil(seconds * 1000)
        due_ms = self.due_ms(now_ms)
        if expires_ms <= (now_ms + self.delay_ms() if due_ms is None else due_ms) and expires_ms > now_ms:
            raise self.refuse("/expires", "is before it may run", "give a time after its delay or eta")
        return expires_ms

    def _key(self, pointer: str, given: object) -> str:
        key = self._text(pointer, given)
        if not 0 < len(key.encode("utf-8", "surrogatepass")) <= self.settings.max_key_bytes:
            raise self.refuse(pointer, f"has to have 1 to {self.settings.max_key_bytes} bytes")
        return key

    def _text(self, pointer: str, given: object) -> str:
        if not isinstance(given, str):
            raise self.refuse(pointer, f"is {given!r}", "give a text")
        return given

    def _seconds(self, pointer: str, given: object) -> float:
        if isinstance(given, timedelta):
            return given.total_seconds()
        if not isinstance(given, int | float):
            raise self.refuse(pointer, f"is {given!r}", "give seconds, or a timedelta")
        return given

    def delay_ms(self) -> int:
        given = self.options.delay
        if given is None:
            return 0
        if self.options.eta is not None:
            raise self.refuse("/eta", "stands beside a delay", "give one of them")
        seconds = self._seconds("/delay", given)
        if not 0 <= seconds <= MAX_DELAY_S:
            raise self.refuse("/delay", f"is {seconds!r} seconds", f"give 0 to {MAX_DELAY_S:.0f}")
        return math.ceil(seconds * 1000)

    def due_ms(self, now_ms: int) -> int | None:
        given = self.options.eta
        return None if given is None else self._moment_ms("/eta", given, now_ms)

    def _moment_ms(self, pointer: str, given: object, now_ms: int) -> int:
        if not isinstance(given, datetime):
            raise self.refuse(pointer, f"is {given!r}", "give a datetime, as datetime.now(UTC) + timedelta(hours=1)")
        if given.tzinfo is None:
            raise self.refuse(pointer, "has no time zone", "as in datetime.now(UTC) + timedelta(hours=1)")
        moment_ms = math.ceil(given.timestamp() * 1000)
        if moment_ms - now_ms > MAX_DELAY_S * 1000:
            raise self.refuse(pointer, f"is {given.isoformat()}", "give a time within a year")
        return max(moment_ms, 0)


def unique_hash(key: str) -> str:
    """What stands for a unique key in Redis: the same for the library and the API."""
    return _digest("headrace/unique", key)


def held_for(seconds: float, hashed: str) -> str:
    """`NewTask.once` of a unique key that is held for so long."""
    return f"{math.ceil(seconds * 1000)}:{hashed}"


def key_id(secret: bytes, queue: str, *parts: str) -> str:
    """The id that these parts make in a queue. Nobody without the namespace's secret can find it out by guessing."""
    return queue_id(queue, uuid.UUID(bytes=hmac.digest(secret, _joined(parts), hashlib.sha256)[:16]))


def _digest(*parts: str | bytes) -> str:
    """128 bits that name these parts."""
    return hashlib.sha256(_joined(parts)).hexdigest()[:32]


def _joined(parts: Iterable[str | bytes]) -> bytes:
    """No two lists of parts give the same text."""
    texts = (part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts)
    return b"".join(b"%d:%b" % (len(text), text) for text in texts)
