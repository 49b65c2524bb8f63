"""Short ways to make what tests submit and report."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from headrace import task
from headrace.broker.broker import NewTask, Report
from headrace.task import Attempt, Counters, Envelope, Failure, Priority

QUEUE: Final = "orders"


def task_id(number: int) -> str:
    """A fixed id of the test queue."""
    return task.queue_id(QUEUE, uuid.UUID(int=number))


def envelope(
    id_: str, priority: int = Priority.MEDIUM, type_: str = "noop", unique: str | None = None, payload: bytes = b"{}"
) -> bytes:
    """What a client said."""
    made = Envelope(1, int(priority), id_, unique, type_, 1_700_000_000_000, payload=msgspec.Raw(payload))
    return task.encode_envelope(made)


def new(
    id_: str,
    priority: int = Priority.MEDIUM,
    *,
    type_: str = "noop",
    unique: str | None = None,
    delay_ms: int = 0,
    due_ms: int | None = None,
    payload: bytes = b"{}",
) -> NewTask:
    """A submission."""
    said = envelope(id_, priority, type_, unique, payload)
    return NewTask(id_, said, int(priority), delay_ms, due_ms, unique is not None)


@dataclass(frozen=True)
class Claim:
    """One attempt, as the worker that claimed it knows it."""

    place: str
    envelope: bytes
    carried: bytes

    @property
    def id(self) -> str:
        return task.decode_envelope(self.envelope).id

    @property
    def counters(self) -> Counters:
        return task.parse_counters(self.carried)

    def report(self, outcome: str, argument: str | int = "", *, worker: str = "w", message: str = "") -> Report:
        """What its worker says at the end, with counters as the runtime charges them."""
        c = self.counters
        charged = Counters(
            c.attempts + 1,
            c.failures + (outcome in {"retrying", "failed"}),
            c.crashes,
            c.interruptions + (outcome == "parked"),
        )
        error = Failure("Boom", message) if outcome in {"retrying", "failed"} else None
        line = task.encode_attempt(Attempt(self.place, outcome, worker, 1, 2, error))
        carried = task.extend(self.carried, charged, line)
        known = task.decode_envelope(self.envelope)
        text = task.record(outcome, self.envelope, carried)
        return Report(self.place.encode(), known.id, outcome, argument, known.type, text)


def claims_of(rows: Sequence[tuple[bytes, bytes, bytes]]) -> list[Claim]:
    """The claims of a `Cycle`, or of a reconcile."""
    return [Claim(place.decode(), text, carried) for place, text, carried in rows]


def foreign_id(place: str) -> str:
    """The id of an entry without one: a UUID made of its place, as in lua/lib/carry.lua."""
    ms, _, seq = place[1:].partition("-")
    text = {"r": "a", "s": "b"}.get(place[0], place[0]) + ms.zfill(13) + seq.zfill(18)[-18:]
    return task.queue_id(QUEUE, uuid.UUID(text[:32]))


_TYPE = re.compile(rb'{"v":\d+,"p":[0-3],"i":"[\w.-]+"(?:,"u":"[^"]+")?,"t":"([\w.:-]+)"', re.ASCII)


def type_of(envelope: bytes) -> str:
    """The type that a script reads in an envelope; '' where something foreign wrote it."""
    found = _TYPE.match(envelope)
    return found[1].decode() if found else ""


_STARTED = re.compile(rb'("o":"(?:crashed|interrupted)","w":"[^"]*","e":\d+),"s":\d+')


def timeless(found: Any) -> Any:
    """Without when an attempt began that its worker did not report: Redis' own clock tells that, which no test sets."""
    match found:
        case bytes():
            return _STARTED.sub(rb"\1", found)
        case dict():
            return {key: timeless(value) for key, value in found.items()}
        case list() | tuple():
            return [timeless(each) for each in found]
        case _:
            return found
