"""From a claimed entry to its handler, or to the reason why it cannot run here. Nothing in an entry is trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from headrace import task as tasks
from headrace.errors import InvalidPayload
from headrace.runtime.attempt import MESSAGE_CHARS, Ending, Running, clean, failure_of
from headrace.task import ENVELOPE_VERSION, EXPIRED, Envelope, Failure, State, decode_envelope
from headrace.taskdef import TaskDef


class _Head(msgspec.Struct, rename={"version": "v", "id": "i"}):
    """What envelopes of every version begin with."""

    version: int
    id: str


_WAITS_FOR: Final = {
    "no_handler": "this worker does not know the type; the task waits for one that does",
    "newer_version": "a newer version of headrace wrote it; the task waits for a worker of that version",
}
_decode_head: Final = msgspec.json.Decoder(_Head).decode


def resolve(run: Running, registry: Mapping[str, TaskDef], clock: Callable[[], float] = time.time) -> Ending | None:
    """Give the run its envelope, definition and arguments; or the ending that it gets without having started."""
    try:
        run.envelope = envelope = decode_envelope(run.envelope_bytes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _unreadable(run)
    if envelope.version > ENVELOPE_VERSION:
        return _park(run, f"!v{envelope.version}", "newer_version")
    if len(envelope.id) != run.claims.id_length:
        return _foreign(run, "The entry's id does not belong to this queue.")
    run.definition = definition = registry.get(envelope.type)
    late = envelope.expires_ms is not None and clock() * 1000 > envelope.expires_ms
    if late or definition is None:
        return _expired() if late else _unknown(run)
    try:
        run.arguments = definition.decode(envelope.payload)
    except BaseException as error:  # a payload type may have code of the application's
        return _unfit(error)
    return None


def _expired() -> Ending:
    return Ending(State.CANCELLED, Failure("Expired", "Its `expires` passed before it began.", reason=EXPIRED))


def _unfit(error: BaseException) -> Ending:
    if isinstance(error, InvalidPayload):
        return _dead("invalid_payload", clean(str(error)[:MESSAGE_CHARS]))
    # A check of the application's own, on one of its payload types.
    failure = failure_of(error)
    return _dead("invalid_payload", f"{failure.type}: {failure.message}", failure.trace)


def _unreadable(run: Running) -> Ending:
    """A newer version's envelope may have any form; anything else that cannot be read is foreign."""
    try:
        head = _decode_head(run.envelope_bytes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        head = None
    if head is not None and head.version > ENVELOPE_VERSION and tasks.queue_of(head.id) is not None:
        run.envelope = Envelope(version=head.version, priority=0, id=head.id)
        return _park(run, f"!v{head.version}", "newer_version")
    return _foreign(run, "The entry holds no envelope that headrace wrote.")


def _unknown(run: Running) -> Ending:
    try:
        tasks.check_type(run.envelope.type)
    except ValueError as error:
        return _dead("malformed", clean(str(error)))
    return _park(run, run.envelope.type, "no_handler")


def _foreign(run: Running, why: str) -> Ending:
    run.envelope = Envelope(version=0, priority=0, id=foreign_id(run.place, run.claims.queue.name))
    return _dead("malformed", why)


def _park(run: Running, key: str, reason: str) -> Ending:
    """The task waits for a worker that knows its type, or its envelope's version; nothing is charged."""
    return Ending(
        State.PARKED, Failure(reason, _WAITS_FOR[reason], reason=reason), argument=key, counts_as="interruption"
    )


def _dead(reason: str, message: str, trace: str = "") -> Ending:
    """To the dead letter without a retry: it would be refused again."""
    return Ending(State.FAILED, Failure(reason, message, trace, reason), counts_as="failure")


def foreign_id(place: bytes, queue: str) -> str:
    """The id of an entry without a readable one: made of its place, as in lua/lib/carry.lua."""
    text = place.decode()
    ms, _, seq = text[1:].partition("-")
    stream = {"r": "a", "s": "b"}.get(text[0], text[0])
    digits = f"{stream}{int(ms):013d}{seq:0>18}"
    uuid = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
    return uuid if queue == tasks.DEFAULT_QUEUE else f"{queue}.{uuid}"
