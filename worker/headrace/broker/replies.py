"""What goes into a transition and what comes out of it, as records; and how Redis' replies become them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from headrace import task as tasks
from headrace.broker.keys import STREAMS
from headrace.broker.words import Column, Word
from headrace.task import TERMINAL, Attempt, Counters, Envelope, Progress, State

MAX_ITEMS: Final = 100
"""Items of the passes (promote, reclaim, hand back, release, purge) a call."""


_DIGITS: Final = "0123"
"""Of the priorities. To write a number costs more than all else of `where`."""


class NewTask(msgspec.Struct, frozen=True, gc=False):
    """A submission. `envelope` is `encode_envelope(Envelope(…))`; a delay counts from the arrival in Redis."""

    id: str
    envelope: bytes
    priority: int
    delay_ms: int = 0
    due_ms: int | None = None
    """Unix time; wins over `delay_ms`."""
    unique: bool = False
    """True when the envelope holds the hash of a unique key."""
    once: str = ""
    """`<ms>:<hash of the key>` when the unique key is held for a time; its envelope holds none then."""

    def where(self) -> str:
        if not (self.unique or self.once or self.delay_ms or self.due_ms is not None):
            return _DIGITS[self.priority]
        mark = "u" if self.unique else f"o{self.once}" if self.once else ""
        if self.due_ms is not None:
            return f"{self.priority}{mark}@{self.due_ms}"
        return f"{self.priority}{mark}+{self.delay_ms}" if self.delay_ms > 0 else f"{self.priority}{mark}"


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """What became of one submission: new, known (live), finished (known and ended), unique (held by `holder`), full."""

    id: str
    status: str
    holder: str | None = None
    limit: int = 0
    """Of a call that is refused because the queue is full: how many live tasks it may hold."""


_STATUS: Final = {"n": "new", "k": "known", "t": "finished", "u": "unique", "f": "full"}


def parse_submitted(ids: Sequence[str], reply: list[bytes]) -> list[Submitted]:
    """The answer to a submission of these ids."""
    letters = reply[0].decode()
    if letters == "n" * len(ids):  # nearly always
        return [Submitted(id_, "new") for id_ in ids]
    holders = iter(reply[1:])
    limit = int(reply[-1]) if "f" in letters else 0
    return [
        Submitted(id_, _STATUS[letter], next(holders).decode() if letter == "u" else None, limit)
        for id_, letter in zip(ids, letters, strict=True)
    ]


class Report(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ended."""

    place: bytes
    id: str
    outcome: str
    argument: str | int
    """retrying: delay in ms; parked: index key (a type, or `!v<version>`); completed: seconds to keep the record, or
    empty for the retention of the call; else empty."""
    type: str
    record: bytes
    """`task.record(outcome, envelope, N)`."""


Claim = tuple[bytes, bytes, bytes]
"""A task that a worker holds: place, envelope, N. What something foreign wrote has an empty envelope."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """The answer to a cycle."""

    verdicts: dict[bytes, bytes]
    """Place of a report → b"dup" | b"stale" | b"gone"; reports not listed were accepted."""
    paused: bool
    missing: bool
    """A stream or group is gone: call `init`, then go on."""
    next_due_ms: int | None
    claims: list[Claim]


@dataclass(frozen=True, slots=True)
class Held:
    """The answer to a reconcile: all that the worker holds."""

    known: list[bytes]
    """Places that it had named."""
    others: list[Claim]


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a beat."""

    paused: bool
    next_due_ms: int | None
    asked: list[str]
    """Ids of this worker that shall be cancelled."""
    oldest: dict[str, int]
    """Stream digit → ms at which its oldest waiting entry came."""
    now_ms: int
    drain: bool = False
    """It shall claim no more, until it is told otherwise."""


@dataclass(frozen=True, slots=True)
class StreamDepth:
    length: int
    pending: int
    """Claimed, not reported."""
    oldest_ms: int | None

    @property
    def waiting(self) -> int:
        return self.length - self.pending


@dataclass(frozen=True, slots=True)
class Depth:
    """How much lies where in one queue."""

    streams: dict[str, StreamDepth]
    live: int
    delayed: int
    parked: int
    dead: int
    workers: int
    paused: bool
    now_ms: int
    next_due_ms: int | None
    counters: dict[str, int]
    """`<outcome>:<type>` or `<outcome>` → accepted reports."""
    paused_ms: int | None = None
    """Since when it is paused."""
    max_depth: int | None = None
    """Its own limit of live tasks; None = that of the settings."""
    rate: str | None = None
    """How fast the API lets tasks in, as `100/s`; None = as fast as they come."""

    @property
    def waiting(self) -> int:
        return sum(stream.waiting for stream in self.streams.values())

    @property
    def processing(self) -> int:
        return sum(stream.pending for stream in self.streams.values())

    def ended(self, outcome: str) -> int:
        return sum(n for name, n in self.counters.items() if name.partition(":")[0] == outcome)


@dataclass(frozen=True, slots=True)
class Found:
    """Where `get` found a task: 't' ended, 'z' delayed, 'p' parked, else its place in a stream."""

    place: str
    text: bytes
    carried: bytes = b""
    worker: str | None = None
    claimed_ms: int | None = None
    due_ms: int | None = None
    progress: bytes = b""


@dataclass(frozen=True, slots=True)
class TaskView:
    """All that is known of a task."""

    id: str
    queue: str
    state: State
    envelope: Envelope | None
    """None if something foreign wrote an entry that cannot be read."""
    counters: Counters
    attempts: list[Attempt]
    worker: str | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    due_ms: int | None = None
    progress: Progress | None = None
    """What the attempt that runs says of it."""

    @property
    def result(self) -> msgspec.Raw | None:
        if self.state is not State.COMPLETED or not self.attempts:
            return None
        result = self.attempts[-1].result
        return result if bytes(result) else None

    @property
    def last_place(self) -> str:
        return self.attempts[-1].place if self.attempts else ""


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    name: str
    beat: str
    """'' = it never beat."""
    info: bytes
    held: int


def view(task_id: str, queue: str, found: Found) -> TaskView:
    """The readable form of what `get` found."""
    if found.place[:1] not in STREAMS:
        return _view_record(task_id, queue, found)
    state = State.PROCESSING if found.worker else State.PENDING
    counters = tasks.parse_counters(found.carried)
    return TaskView(
        task_id,
        queue,
        state,
        _envelope(found.text),
        counters,
        tasks.parse_attempts(found.carried),
        worker=found.worker,
        started_ms=found.claimed_ms,
        progress=parse_progress(found.progress, counters.attempts + 1),
    )


_progress: Final = msgspec.json.Decoder(Progress).decode


def parse_progress(text: bytes, attempt: int) -> Progress | None:
    """What a worker wrote of this attempt's progress; None if it wrote nothing of it."""
    try:
        found = _progress(text) if text else None
    except msgspec.DecodeError:
        return None
    return found if found is not None and found.attempt == attempt else None


def _view_record(task_id: str, queue: str, found: Found) -> TaskView:
    state, envelope, carried = _cut_record(found)
    attempts = tasks.parse_attempts(carried)
    last = attempts[-1] if attempts else None
    ended = last if last and state in TERMINAL else None
    return TaskView(
        task_id,
        queue,
        state,
        _envelope(envelope),
        tasks.parse_counters(carried),
        attempts,
        worker=(last.worker or None) if last else None,
        started_ms=(last.started_ms or None) if last else None,
        ended_ms=ended.ended_ms if ended else None,
        due_ms=found.due_ms,
    )


_FOREIGN: Final = {"t": State.FAILED, "z": State.SCHEDULED, "p": State.PARKED}


def _cut_record(found: Found) -> tuple[State, bytes, bytes]:
    """What cannot be read (something foreign wrote it) has the state that its place says, and nothing else."""
    try:
        name, envelope, carried = tasks.cut(found.text)
        return State(name), envelope, carried
    except ValueError:
        return _FOREIGN.get(found.place, State.PENDING), b"", b""


def _envelope(text: bytes) -> Envelope | None:
    try:
        return tasks.decode_envelope(text)
    except msgspec.DecodeError:
        return None


def number(text: bytes | None) -> int | None:
    return int(float(text)) if text else None


def report_args(reports: Sequence[Report]) -> list[Word | Column]:
    """Reports as the script takes them: what they have in common, then columns of entry ids, ids, and records."""
    groups: dict[tuple[bytes, str, str | int, str], list[Report]] = {}
    last, alike = None, list[Report]()
    for report in reports:
        # Nearly always as the one before, which is cheaper to see than to look for its group.
        if last is None or not (
            report.type == last.type
            and report.outcome == last.outcome
            and report.argument == last.argument
            and report.place[0] == last.place[0]
        ):
            last = report
            alike = groups.setdefault((report.place[:1], report.outcome, report.argument, report.type), [])
        alike.append(report)
    args: list[Word | Column] = []
    for group, alike in groups.items():
        args += (*group, len(alike))
        args.append([report.place[1:] for report in alike])
        args.append([report.id for report in alike])
        args.append([report.record for report in alike])
    return args


def parse_cycle(reply: list[Any]) -> Cycle:
    """The answer to a cycle."""
    verdicts, flags, due, streams, carried = reply
    claims: list[Claim] = []
    for rows in streams:
        digit = rows[0]
        claims += [(digit + entry, envelope, b"") for entry, envelope in zip(rows[1::2], rows[2::2], strict=True)]
    if carried:
        past = _pairs(carried)
        claims = [(place, envelope, past.get(place, b"")) for place, envelope, _ in claims]
    return Cycle(_pairs(verdicts), bool(flags & 1), bool(flags & 2), number(due), claims)


def parse_held(reply: list[Any]) -> Held:
    known, others = reply
    return Held(known, list(zip(others[::3], others[1::3], others[2::3], strict=True)))


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def parse_beat(reply: list[Any]) -> Beat:
    paused, due, asked, oldest, now, drain = reply
    ages = {oldest[i].decode(): int(oldest[i + 1].partition(b"-")[0]) for i in range(0, len(oldest), 2)}
    ids = [id_.decode(errors="replace") for id_ in asked]
    return Beat(bool(paused), number(due), ids, ages, int(now), bool(drain))


def parse_found(reply: list[bytes]) -> Found | None:
    if not reply:
        return None
    place = reply[0].decode()
    if place == "z":
        return Found(place, reply[1], due_ms=number(reply[2]))
    if place in "tp":
        return Found(place, reply[1])
    if len(reply) < 5:
        return Found(place, reply[1], reply[2])
    return Found(place, reply[1], reply[2], reply[3].decode(errors="replace"), int(reply[4]), progress=reply[5])


def parse_depth(reply: list[Any]) -> Depth:
    rows, live, delayed, parked, dead, workers, paused, now, due, counters, ctl = reply
    streams = {}
    for i in range(0, len(rows), 4):
        digit, length, pending, oldest = rows[i : i + 4]
        if pending == b"" and length:
            raise ValueError(
                f"Stream {digit.decode()!r} has no consumer group: its depth is unknown, not zero. Call init first."
            )
        if (pending or 0) > length:
            raise ValueError(
                f"Stream {digit.decode()!r} has more claimed than there is ({pending} of {length}): its depth is "
                "unknown, not zero. Something deleted entries that workers hold; it passes when they end."
            )
        age = int(oldest.partition(b"-")[0]) if oldest else None
        streams[digit.decode()] = StreamDepth(length, pending or 0, age)
    names = {counters[i].decode(): int(counters[i + 1]) for i in range(0, len(counters), 2)}
    since, max_depth, rate = ctl
    return Depth(
        streams, live, delayed, parked, dead, workers, bool(paused), int(now), number(due), names,
        number(since), number(max_depth), rate.decode() if rate else None,
    )  # fmt: skip


def parse_workers(reply: list[Any]) -> list[WorkerSeen]:
    rows = (reply[i : i + 4] for i in range(0, len(reply), 4))
    return [
        WorkerSeen(name.decode(errors="replace"), beat.decode(errors="replace"), info, held)
        for name, beat, info, held in rows
    ]
