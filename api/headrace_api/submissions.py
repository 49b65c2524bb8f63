"""One submission: from the body's bytes to a task that can be stored. Nothing is stored here.

    {"type": "send_email", "priority": "high", "payload": {…}, "max_retries": 3, "queue": "mail", "delay": 60}

The payload's bytes go into the envelope as they came. What the body does not say, the type says (as its workers
published it), else the settings.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from headrace.broker.broker import NewTask
from headrace.errors import FieldError, InvalidPayload, InvalidTask, TooLarge, nearest
from headrace.settings import ApiSettings
from headrace.submission import MAX_DELAY_S, MAX_UNIQUE_S, held_for, unique_hash
from headrace.task import (
    DEFAULT_QUEUE,
    ENVELOPE_VERSION,
    LABEL,
    LABEL_WORDS,
    MAX_TAGS,
    TAG,
    TYPE_NAME,
    Envelope,
    Priority,
    check_queue,
    check_tag,
    check_type,
    encode_envelope,
    new_id,
    parse_priority,
)

from . import strict_json
from .registry import KnownType, Types
from .shapes import explain_shape
from .strict_json import MalformedJson

MAX_RETRIES: Final = 100


class UniqueBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """A key that one task of the queue holds at a time; another submission under it is refused (409)."""

    key: Annotated[str, Meta(description="1 to 255 bytes.", extra_json_schema={"minLength": 1, "maxLength": 255})]
    until: Annotated[
        int | float | str,
        Meta(
            description="`finished`, or so many seconds from its submission, whether it has ended by then or not.",
            extra_json_schema={"pattern": "^finished$", "exclusiveMinimum": 0, "maximum": MAX_UNIQUE_S},
        ),
    ] = "finished"


class Submission(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """What a client may say about a task.

    The bounds are told to readers of the OpenAPI document here, and checked below, where an error gets a sentence.
    """

    type: Annotated[
        str,
        Meta(description="The task type.", examples=["send_email"], extra_json_schema={"pattern": f"^{TYPE_NAME}$"}),
    ]
    payload: Annotated[
        msgspec.Raw, Meta(description="The arguments by name.", extra_json_schema={"type": "object"})
    ] = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    priority: Annotated[
        int | str | None,
        Meta(
            description="3 or `critical`, 2 or `high`, 1 or `medium`, 0 or `low`; left out: as the type says.",
            extra_json_schema={"enum": [0, 1, 2, 3, "low", "medium", "high", "critical", None]},
        ),
    ] = None
    max_retries: Annotated[
        int | None,
        Meta(
            description="How often it is tried again; left out: as the type says.",
            extra_json_schema={"minimum": 0, "maximum": MAX_RETRIES},
        ),
    ] = None
    queue: Annotated[
        str | None,
        Meta(
            description="Where it goes; left out: as the type says, else `default`.",
            extra_json_schema={"pattern": f"^{LABEL}$"},
        ),
    ] = None
    delay: Annotated[
        int | float | None,
        Meta(
            description="Seconds to wait before it may run.", extra_json_schema={"minimum": 0, "maximum": MAX_DELAY_S}
        ),
    ] = None
    eta: Annotated[
        str | None,
        Meta(description="Instead of `delay`: when it may run.", extra_json_schema={"format": "date-time"}),
    ] = None
    tags: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={"pattern": f"^{TAG}$"})], ...],
        Meta(description="Words to find it by.", extra_json_schema={"maxItems": MAX_TAGS}),
    ] = ()
    expires: Annotated[
        int | float | str | None,
        Meta(
            description="Seconds from now, or a time, after which it is not begun any more but cancelled.",
            extra_json_schema={"format": "date-time", "exclusiveMinimum": 0, "maximum": MAX_DELAY_S},
        ),
    ] = None
    unique: Annotated[
        UniqueBody | None, Meta(description="Refused (409) while another task of the queue holds this key.")
    ] = None


FIELDS: Final = Submission.__struct_fields__
_decode: Final = msgspec.json.Decoder(Submission).decode
_DIGEST: Final = msgspec.json.Encoder(order="sorted").encode


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A submission that is in order."""

    queue: str
    new: NewTask
    type_label: str
    """The type, or `unknown`: what clients invent must not become a metric's label."""
    payload_bytes: int
    fingerprint: str | None
    """Set under an Idempotency-Key: tells a repetition from another submission under the same key."""
    secret: bytes | None
    """Set under an Idempotency-Key: what its id was made with."""
    warning: str | None


@dataclass(frozen=True, slots=True)
class Origin:
    """What the request says around the body. `task_id` makes the id, given the queue: random, or from a key."""

    task_id: Callable[..., str] = new_id
    fingerprint: Callable[[Any], str] | None = None
    """From the document; None without an Idempotency-Key."""
    secret: bytes | None = None
    """What `task_id` makes ids with; None without an Idempotency-Key."""
    traceparent: str | None = None


class Desk:
    """Reads submissions of one namespace."""

    def __init__(self, settings: ApiSettings, types: Types) -> None:
        self._settings = settings
        self._types = types
        self._checks = settings.schemas != "off"

    @property
    def max_payload(self) -> int:
        """Bytes."""
        return self._settings.max_payload

    async def read(self, text: bytes | msgspec.Raw, origin: Origin) -> Accepted:
        """Raises MalformedJson, InvalidTask, InvalidPayload, TooLarge."""
        body = _parse(text)
        self.weigh(body)
        document = strict_json.load(text)
        return self.judge_known(body, document, origin) or await self.judge(body, document, origin)

    def weigh(self, body: Submission) -> None:
        """Raises TooLarge for a payload over its limit."""
        size = len(body.payload)
        if size > self._settings.max_payload:
            raise TooLarge("payload", size, self._settings.max_payload)

    def judge_known(self, body: Submission, document: Any, origin: Origin) -> Accepted | None:
        """As `judge`; None if its type would have to be looked for."""
        known = self._types.get(body.type)
        return None if known is None else self._judge_by(known, body, document, origin)

    async def judge(self, body: Submission, document: Any, origin: Origin) -> Accepted:
        """As `read`, of a body that was weighed and its checked document, where the type is not known yet."""
        self._check_fields(body, document, None)
        known = await self._types.find(body.type)
        if known is None:
            return _accept(body, document, None, origin, self._unknown(body.type))
        return self._judge_by(known, body, document, origin)

    def _judge_by(self, known: KnownType, body: Submission, document: Any, origin: Origin) -> Accepted:
        self._check_fields(body, document, known)
        if self._checks and (errors := known.errors(document.get("payload", _EMPTY))):
            raise InvalidPayload(body.type, errors)
        return _accept(body, document, known, origin, None)

    def _check_fields(self, body: Submission, document: Any, known: KnownType | None) -> None:
        if errors := _wrong(body, document, known, self._settings.max_key_bytes):
            raise InvalidTask(body.type[:128], errors)

    def _unknown(self, name: str) -> str | None:
        if self._settings.schemas == "off":
            return None
        meant = self._types.nearest(name)
        hint = f"did you mean {meant!r}?" if meant else "start a worker that knows it"
        if self._settings.schemas == "enforce":
            raise InvalidTask(name, [FieldError("/type", f"no worker has published a type {name!r}", hint)])
        return f"No worker has published a type {name!r} yet ({hint}); the task waits for one."


def _accept(body: Submission, document: Any, known: KnownType | None, origin: Origin, warning: str | None) -> Accepted:
    described = known.described if known else None
    queue = body.queue or (described and described.queue) or DEFAULT_QUEUE
    priority = _priority(body.priority, described.priority if described else None)
    mark = origin.fingerprint(document) if origin.fingerprint else None
    task_id = origin.task_id(queue)
    unique, once = _unique(body.unique) if body.unique else (None, "")
    now_ms = time.time_ns() // 1_000_000
    envelope = Envelope(
        ENVELOPE_VERSION,
        priority,
        task_id,
        unique,
        body.type,
        now_ms,
        body.max_retries,
        mark,
        origin.traceparent,
        body.payload,
        body.tags,
        None if body.expires is None else _expires_ms(body.expires, now_ms),
    )
    delay_ms = math.ceil(body.delay * 1000) if body.delay else 0
    due_ms = None if body.eta is None else _eta_ms(body.eta)
    new = NewTask(task_id, encode_envelope(envelope), priority, delay_ms, due_ms, unique is not None, once)
    size = len(body.payload)
    return Accepted(queue, new, body.type if known else "unknown", size, mark, origin.secret, warning)


def fingerprint(document: Any) -> str:
    """Of what a body says, however it is spaced and ordered."""
    return hashlib.sha256(_DIGEST(document)).hexdigest()[:32]


def _parse(text: bytes | msgspec.Raw) -> Submission:
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        raise InvalidTask("", [explain_shape(str(error), FIELDS)]) from None
    except strict_json.FAILURES as error:
        raise MalformedJson(strict_json.explain(bytes(text), error)) from None


def _wrong(body: Submission, document: Any, known: KnownType | None, max_key_bytes: int) -> Sequence[FieldError]:
    """What is wrong with fields that have the right JSON type. The name of a known type is right."""
    errors = []
    if known is None and not _passes(check_type, body.type):
        errors.append(FieldError("/type", f"{body.type[:80]!r} cannot be one", _TYPE_FORM))
    if body.queue is not None and not _passes(check_queue, body.queue):
        errors.append(FieldError("/queue", f"{body.queue[:80]!r} cannot be one", LABEL_WORDS))
    if type(document.get("payload", _EMPTY)) is not dict:
        errors.append(FieldError("/payload", "is not an object", 'give the arguments by name, as in {"to": "x"}'))
    if body.max_retries is not None and not 0 <= body.max_retries <= MAX_RETRIES:
        errors.append(FieldError("/max_retries", f"is {body.max_retries}", f"give 0 to {MAX_RETRIES}"))
    if body.priority is not None and body.priority not in _PRIORITIES:
        errors += _wrong_priority(body.priority)
    if body.delay is not None or body.eta is not None:
        errors += _wrong_time(body)
    if body.tags or body.expires is not None or body.unique is not None:
        errors += [*_wrong_tags(body.tags), *_wrong_expiry(body), *_wrong_unique(body.unique, max_key_bytes)]
    return errors


def _passes(check: Callable[[str], str], value: str) -> bool:
    try:
        return bool(check(value))
    except ValueError:
        return False


_EMPTY: Final[dict[str, Any]] = {}
_PRIORITIES: Final[dict[int | str, Priority]] = {
    key: each for each in Priority for key in (int(each), each.name.lower())
}
_TYPE_FORM: Final = "a letter or '_', then up to 127 of letters, digits and _ . : -"
_TAG_FORM: Final = "1 to 64 of letters, digits and _ . : / @ -"


def _wrong_priority(given: int | str) -> Sequence[FieldError]:
    try:
        parse_priority(given)
    except ValueError:
        shown = repr(given[:40] if isinstance(given, str) else given)
        meant = nearest(given[:40], [each.name.lower() for each in Priority]) if isinstance(given, str) else None
        hint = f"did you mean {meant!r}?" if meant else "use 3 or 'critical', 2 or 'high', 1 or 'medium', 0 or 'low'"
        return [FieldError("/priority", f"{shown} is no priority", hint)]
    return ()


def _wrong_time(body: Submission) -> Sequence[FieldError]:
    if body.delay is not None and body.eta is not None:
        return [FieldError("/eta", "stands beside a delay", "give one of them")]
    if body.delay is not None and not 0 <= body.delay <= MAX_DELAY_S:
        return [FieldError("/delay", f"is {body.delay:g} seconds", f"give 0 to {MAX_DELAY_S:.0f}")]
    if body.eta is None:
        return ()
    due_ms = _eta_ms(body.eta)
    if due_ms is None:
        return [FieldError("/eta", "is no time with a time zone", "as in 2026-01-15T10:30:00Z")]
    if due_ms > (time.time() + MAX_DELAY_S) * 1000:
        return [FieldError("/eta", "is more than a year away", "give a time within a year")]
    return ()


def _wrong_tags(tags: Sequence[str]) -> Sequence[FieldError]:
    if len(tags) > MAX_TAGS:
        return [FieldError("/tags", f"are {len(tags)}", f"give at most {MAX_TAGS}")]
    wrong = [(index, tag) for index, tag in enumerate(tags) if not _passes(check_tag, tag)]
    return [FieldError(f"/tags/{index}", f"{tag[:80]!r} cannot be one", _TAG_FORM) for index, tag in wrong]


def _wrong_expiry(body: Submission) -> Sequence[FieldError]:
    given = body.expires
    if given is None:
        return ()
    if not isinstance(given, str) and not 0 < given <= MAX_DELAY_S:
        return [FieldError("/expires", f"is {given:g} seconds", f"give more than 0, up to {MAX_DELAY_S:.0f}")]
    now_ms = time.time_ns() // 1_000_000
    expires_ms = _expires_ms(given, now_ms)
    if expires_ms is None:
        return [FieldError("/expires", "is no time with a time zone", "as in 60, or 2026-01-15T10:30:00Z")]
    if expires_ms > now_ms + MAX_DELAY_S * 1000:
        return [FieldError("/expires", "is more than a year away", "give a time within a year")]
    due_ms = now_ms + (body.delay or 0) * 1000 if body.eta is None else _eta_ms(body.eta)
    if due_ms is not None and now_ms < expires_ms <= due_ms:
        return [FieldError("/expires", "is before it may run", "give a time after its delay or eta")]
    return ()


def _expires_ms(given: float | str, now_ms: int) -> int | None:
    return _eta_ms(given) if isinstance(given, str) else now_ms + math.ceil(given * 1000)


def _wrong_unique(unique: UniqueBody | None, max_key_bytes: int) -> Sequence[FieldError]:
    if unique is None:
        return ()
    errors = []
    if not 0 < len(unique.key.encode()) <= max_key_bytes:
        errors.append(FieldError("/unique/key", f"has to have 1 to {max_key_bytes} bytes"))
    until = unique.until
    if until != "finished" and (isinstance(until, str) or not 0 < until <= MAX_UNIQUE_S):
        hint = f"give 'finished', or seconds: more than 0, up to {MAX_UNIQUE_S:.0f}"
        errors.append(FieldError("/unique/until", f"is {until!r:.40}", hint))
    return errors


def _unique(given: UniqueBody) -> tuple[str | None, str]:
    """For the envelope the hash of a key that is held until the end; else `NewTask.once`."""
    hashed = unique_hash(given.key)
    return (hashed, "") if isinstance(given.until, str) else (None, held_for(given.until, hashed))


def _eta_ms(given: str) -> int | None:
    try:
        moment = msgspec.convert(given, datetime)
    except msgspec.ValidationError:
        return None
    return None if moment.tzinfo is None else max(0, math.ceil(moment.timestamp() * 1000))


def _priority(given: int | str | None, default: int | None) -> Priority:
    if given is not None:
        found = _PRIORITIES.get(given)
        return parse_priority(given) if found is None else found
    return Priority(default) if default is not None and 0 <= default <= 3 else Priority.MEDIUM
