"""A task: its states and who moves it, its priorities, ids and names, and the texts that carry it.

The table of states is the specification; the Lua files in `broker/lua` are its only writers.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

ENVELOPE_VERSION: Final = 1
"""A worker parks an envelope of a higher version for a newer worker."""

DEFAULT_QUEUE: Final = "default"


class State(StrEnum):
    """Where a task lies is its state; `ARROWS` says what moves it on."""

    SCHEDULED = "scheduled"
    """Due in the future; a promotion or a cancellation takes it out."""
    PENDING = "pending"
    """In a stream, claimed by nobody; a claim or a cancellation takes it out."""
    PROCESSING = "processing"
    """Claimed by one worker; its report, a hand-back, or a reclaim after its worker's death takes it out."""
    RETRYING = "retrying"
    """An attempt failed or its worker crashed twice, the next one is due later."""
    PARKED = "parked"
    """Its type or its envelope's version is known to no worker that claimed it; a worker that knows it releases it."""
    COMPLETED = "completed"
    """Ended well; the record is kept for the retention."""
    FAILED = "failed"
    """The dead letter; only an explicit replay takes it out."""
    CANCELLED = "cancelled"
    """Ended by request; the record is kept for the retention."""


ARROWS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.SCHEDULED: frozenset({State.PENDING, State.CANCELLED}),
        State.PENDING: frozenset({State.PROCESSING, State.CANCELLED}),
        State.PROCESSING: frozenset(
            {
                State.COMPLETED,
                State.RETRYING,
                State.PARKED,
                State.FAILED,
                State.CANCELLED,
                State.PENDING,
            }
        ),
        State.RETRYING: frozenset({State.PENDING, State.CANCELLED}),
        State.PARKED: frozenset({State.PENDING, State.CANCELLED}),
        State.COMPLETED: frozenset(),
        State.FAILED: frozenset({State.PENDING}),
        State.CANCELLED: frozenset(),
    }
)
TERMINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class Priority(IntEnum):
    """Higher first, strictly; the numbers are the API's."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3


_PRIORITY_NAMES: Final = {priority.name.lower(): priority for priority in Priority}


def parse_priority(value: int | str) -> Priority:
    """A priority by number (0 to 3) or name (`low` to `critical`); ValueError says which there are."""
    if isinstance(value, str):
        found = _PRIORITY_NAMES.get(value.lower())
        if found is not None:
            return found
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 3:
        return Priority(value)
    raise ValueError(f"{value!r} is no priority: use 3 or 'critical', 2 or 'high', 1 or 'medium', 0 or 'low'.")


MAX_LABEL: Final = 63
LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""What queues and namespaces may be called: a DNS label."""
LABEL_WORDS: Final = "1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends, as in image-resize"
"""The same for people."""
TYPE_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}"
TAG: Final = r"[A-Za-z0-9_.:/@-]{1,64}"
_LABEL: Final = re.compile(LABEL)
_TYPE: Final = re.compile(TYPE_NAME)
_TAG: Final = re.compile(TAG)
MAX_TAGS: Final = 16
"""Tags a task may have."""
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID: Final = re.compile(rf"({LABEL})\.{_UUID}")
_PLAIN_ID: Final = re.compile(_UUID)
"""Of the default queue. Apart, because most are, and to find no label in one costs as much as all the rest."""


def check_queue(name: str) -> str:
    """The name of a queue or namespace: a DNS label, so it can never forge a hash tag. ValueError else."""
    if _LABEL.fullmatch(name):
        return name
    raise ValueError(f"{name!r} is no queue name: use {LABEL_WORDS}.")


def check_type(name: str) -> str:
    """The name of a task type; ValueError says what it may look like."""
    if _TYPE.fullmatch(name):
        return name
    raise ValueError(
        f"{name!r} is no type name: use a letter or '_', then up to 127 of letters, digits, '_', '.', ':', '-'."
    )


def check_tag(tag: str) -> str:
    """A tag; ValueError says what it may look like."""
    if _TAG.fullmatch(tag):
        return tag
    raise ValueError(f"{tag!r} is no tag: use 1 to 64 of letters, digits, '_', '.', ':', '/', '@', '-'.")


def new_id(queue: str = DEFAULT_QUEUE) -> str:
    """A fresh id: a random UUID for the default queue, else `<queue>.<uuid>`, so the id alone finds the queue."""
    try:
        value = _uuids.pop()
    except IndexError:
        value, *others = _draw_uuids(_DRAWN)
        _uuids.extend(others)
    return value if queue == DEFAULT_QUEUE else f"{queue}.{value}"


_DRAWN: Final = 128
"""Ids made at once: a system call an id would be half of its cost, and cutting each into its parts the other half."""
_uuids: list[str] = []
os.register_at_fork(after_in_child=_uuids.clear)  # else parent and child would make the same ids

_VARIANT: Final = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
"""Any digit to one that begins with the bits 10."""


def _draw_uuids(number: int) -> list[str]:
    """Random UUIDs of version 4 (RFC 9562), cut and marked for all of them at once.

    As groups of four digits and a dash, three of which are too many in each: xxxx.xxxx-xxxx-4xxx-vxxx-xxxx.xxxx.xxxx
    """
    texts = bytearray(os.urandom(16 * number).hex("-", -2).encode() + b"-")
    texts[15::40] = b"4" * number
    texts[20::40] = texts[20::40].translate(_VARIANT)
    for dash in (4, 29, 34):
        texts[dash::40] = b"." * number
    texts[39::40] = b" " * number
    return texts.translate(None, b".").decode().split()


def queue_id(queue: str, value: uuid.UUID) -> str:
    """The id that this UUID makes in this queue."""
    return str(value) if queue == DEFAULT_QUEUE else f"{queue}.{value}"


def queue_of(task_id: str) -> str | None:
    """The queue an id belongs to; None for a text that is no id."""
    if _PLAIN_ID.fullmatch(task_id):
        return DEFAULT_QUEUE
    match = _ID.fullmatch(task_id)
    return None if match is None or match[1] == DEFAULT_QUEUE else match[1]


class Envelope(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    rename={
        "version": "v",
        "priority": "p",
        "id": "i",
        "unique": "u",
        "type": "t",
        "created_ms": "c",
        "max_retries": "m",
        "fingerprint": "f",
        "trace": "w",
        "tags": "g",
        "expires_ms": "x",
        "payload": "a",
    },
):
    """What a client said; written once, never changed.

    The order of the first fields is a promise to the Lua files, which read them without a JSON parser.
    """

    version: int
    priority: int
    id: str
    unique: str | None = None
    """Hash of the unique key: characters that JSON never escapes."""
    type: str = ""
    created_ms: int = 0
    max_retries: int | None = None
    fingerprint: str | None = None
    """Of the whole request body: tells a repeated request from another one under the same key."""
    trace: str | None = None
    """W3C traceparent of the submission."""
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    """The client's own bytes."""
    tags: tuple[str, ...] = ()
    """Words to find it by; `check_tag` says what they may look like."""
    expires_ms: int | None = None
    """Unix ms after which no attempt begins: whoever claims it then ends it as cancelled, with the reason `expired`."""


_encoder: Final = msgspec.json.Encoder()
encode_envelope: Final = _encoder.encode
decode_envelope: Final = msgspec.json.Decoder(Envelope).decode


NO_RESULT: Final = msgspec.Raw(b"")
"""What a handler returned that returned nothing. (msgspec reads `Raw | None` as None only.)"""


class Attempt(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    rename={
        "place": "p",
        "outcome": "o",
        "worker": "w",
        "started_ms": "s",
        "ended_ms": "e",
        "error": "x",
        "result": "r",
    },
):
    """One line of a task's history. `place` and `outcome` come first: a resent report is told apart by them."""

    place: str
    outcome: str
    """A State, or `crashed` (its worker died), `interrupted` (handed back)."""
    worker: str = ""
    started_ms: int = 0
    ended_ms: int = 0
    error: Failure | None = None
    cause: str | None = None
    """What ended the worker, where that is known: OOMKilled, exit code 1, …"""
    result: msgspec.Raw = NO_RESULT


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why an attempt failed; texts only, and bounded."""

    type: str
    message: str = ""
    trace: str = ""
    reason: str = ""
    """A fixed word where there is one: invalid_payload, timeout, malformed, cancelled, expired."""


EXPIRED: Final = "expired"
"""The reason of a task that ended because its `expires` had passed."""


_attempt: Final = msgspec.json.Decoder(Attempt)
encode_attempt: Final = _encoder.encode


class Progress(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How far an attempt says it is."""

    done: int | float
    total: int | float | None = None
    message: str = ""
    at: int = 0
    """Unix ms."""
    attempt: int = 0
    """Which attempt said it."""


class Counters(msgspec.Struct, frozen=True, gc=False):
    """How often a task was attempted, and how those attempts ended."""

    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    interruptions: int = 0

    def text(self) -> str:
        return f"{self.attempts},{self.failures},{self.crashes},{self.interruptions}"


FIRST: Final = Counters()
KEPT_ATTEMPTS: Final = 8
"""As in lua/lib/carry.lua."""


def parse_counters(carried: bytes) -> Counters:
    """The counters at the head of N; zeros for a task without an ended attempt, or a text that holds none."""
    try:
        numbers = [int(number) for number in carried.partition(b"\n")[0].split(b",")]
        return Counters(*numbers)
    except (ValueError, TypeError):
        return FIRST


def parse_attempts(carried: bytes) -> list[Attempt]:
    """The kept attempts, oldest first; lines that are none (written by something foreign) are left out."""
    attempts = []
    for line in carried.split(b"\n")[1:]:
        try:
            attempts.append(_attempt.decode(line))
        except msgspec.DecodeError:
            continue
    return attempts


def extend(carried: bytes, counters: Counters, line: bytes) -> bytes:
    """N after one more attempt."""
    if not carried:
        return b"%b\n%b" % (counters.text().encode(), line)
    past = [_without_trace(line) for line in carried.split(b"\n")[1:][-(KEPT_ATTEMPTS - 1) :]]
    return b"\n".join([counters.text().encode(), *past, line])


def _without_trace(line: bytes) -> bytes:
    """A past attempt in short: only the last one keeps its traceback, of which a dead letter would hold eight."""
    if b'"trace":' not in line:
        return line
    try:
        past = _attempt.decode(line)
    except msgspec.DecodeError:
        return line
    if past.error is None or not past.error.trace:
        return line
    return encode_attempt(msgspec.structs.replace(past, error=msgspec.structs.replace(past.error, trace="")))


def record(state: str, envelope: bytes, carried: bytes) -> bytes:
    """The value of `t:<id>` and `body[id]`."""
    return b"%b %d\n%b%b" % (state.encode(), len(envelope), envelope, carried)


def cut(text: bytes) -> tuple[str, bytes, bytes]:
    """State, envelope and N of a record; ValueError if the text is none."""
    first, _, rest = text.partition(b"\n")
    state, _, length = first.partition(b" ")
    size = int(length)
    return state.decode(), rest[:size], rest[size:]
