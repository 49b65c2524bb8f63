"""One method per transition. Each is pure: it builds a `Call`, which a connection carries out (`await client.call(…)`).

So the same method serves the worker's raw connection, the API, and synchronous programs, and a test can look at a call
before it is sent. What each script takes and returns is described on top of its Lua file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from headrace import task as tasks
from headrace.task import TERMINAL, Attempt, Counters, Envelope, State

from .keys import STREAMS, NamespaceKeys, QueueKeys
from .scripts import Script, all_scripts

R = TypeVar("R")

JOURNAL_CAP: Final = 10_000
"""Entries (report calls) that the journal of a queue keeps, approximately."""
RETENTION_S: Final = 86_400
MAX_SUBMIT: Final = 1_000
"""Tasks a submit call takes: Lua's unpack ends at about 8,000 values, and 1,000 hold Redis for about 3 ms."""
MAX_REPORTS: Final = 1_000
"""Reports a cycle takes, for the same reason."""
MAX_ITEMS: Final = 100
"""Items of the passes (promote, reclaim, hand back, release, purge) a call."""


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A script call that is not sent yet."""

    script: Script
    head: tuple[bytes | str, ...]
    """EVALSHA, sha, number of keys, keys."""
    args: Sequence[bytes | str | int]
    parse: Callable[[Any], R]
    writes_tasks: bool = False
    """True for submit, cycle and replay, whose answer may have to be confirmed (durability `fsync`, `replicated`)."""


@dataclass(frozen=True, slots=True)
class NewTask:
    """A submission. `envelope` is `encode_envelope(Envelope(…))`; a delay counts from the arrival in Redis."""

    id: str
    envelope: bytes
    priority: int
    delay_ms: int = 0
    due_ms: int | None = None
    """Unix time; wins over `delay_ms`."""
    unique: bool = False
    """True when the envelope holds the hash of a unique key."""

    def where(self) -> str:
        mark = "u" if self.unique else ""
        if self.due_ms is not None:
            return f"{self.priority}{mark}@{self.due_ms}"
        return f"{self.priority}{mark}+{self.delay_ms}" if self.delay_ms > 0 else f"{self.priority}{mark}"


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one submission: new, known (live), finished (known and ended), unique (held by `holder`), full."""

    id: str
    status: str
    holder: str | None = None


_STATUS: Final = {"n": "new", "k": "known", "t": "finished", "u": "unique", "f": "full"}


class Report(NamedTuple):
    """How an attempt ended, in the order in which the script takes it."""

    place: bytes
    id: str
    outcome: str
    argument: str | int
    """retrying: delay in ms; parked: index key (a type, or `!v<version>`); else empty."""
    type: str
    record: bytes
    """`task.record(outcome, envelope, N)`."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """The answer to a cycle. `claims` is flat: digit, entry id, envelope, N, …"""

    verdicts: list[Any]
    """Flat: index of the report, b"dup" | b"stale" | b"gone", …; reports not listed were accepted."""
    paused: bool
    missing: bool
    """A stream or group is gone: call `init`, then go on."""
    next_due_ms: int | None
    claims: list[bytes]


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


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Whose tasks to take, and how far."""

    worker: str
    seen: str
    """The beat that did not change for the TTL; '' = none was seen; '*' = the worker is proven dead."""
    nonce: str
    cause: str = "its worker stopped beating"
    max_crashes: int = 3
    backoff_ms: int = 5_000
    limit: int = MAX_ITEMS


class Queue:
    """The transitions of one queue."""

    def __init__(self, name: str, namespace: str = "default", *, journal_cap: int = JOURNAL_CAP) -> None:
        self.name = tasks.check_queue(name)
        self.namespace = tasks.check_queue(namespace)
        self.keys = QueueKeys(namespace, name)
        self.journal_cap = journal_cap
        shared = NamespaceKeys(namespace)
        self._heads: dict[str, tuple[bytes | str, ...]] = {}
        for script in all_scripts().values():
            keys = shared if script.name == "enlist" else self.keys
            names = tuple(keys[suffix].encode() for suffix in script.keys)
            self._heads[script.name] = (b"EVALSHA", script.sha.encode(), b"%d" % len(names), *names)

    def _call(
        self,
        name: str,
        args: Sequence[bytes | str | int],
        parse: Callable[[Any], R],
        writes_tasks: bool = False,
    ) -> Call[R]:
        return Call(all_scripts()[name], self._heads[name], args, parse, writes_tasks)

    def init(self, run_id: str = "", now_ms: int | None = None) -> Call[tuple[int, bool]]:
        """Streams and groups exist after it. Returns the epoch and whether the queue is paused."""
        return self._call("init", (run_id, _time(now_ms)), lambda reply: (int(reply[0]), bool(reply[1])))

    def submit(
        self, batch: Sequence[NewTask], max_depth: int = 0, *, touch: bool = False, now_ms: int | None = None
    ) -> Call[list[Submitted]]:
        """Tasks enter, all or (at max_depth, 0 = none) none of the new ones; known ids are told, not added again.

        At most `MAX_SUBMIT`. Send the highest priority first. `touch` makes a call that adds nothing write
        all the same, so that WAIT and WAITAOF confirm something.
        """
        args: list[bytes | str | int] = [_time(now_ms), max_depth, int(touch)]
        for new in batch:
            args += (new.id, new.where(), new.envelope)
        ids = [new.id for new in batch]

        def parse(reply: list[bytes]) -> list[Submitted]:
            holders = iter(reply[1:])
            letters = reply[0].decode()
            return [
                Submitted(id_, _STATUS[letter], next(holders).decode() if letter == "u" else None)
                for id_, letter in zip(ids, letters, strict=True)
            ]

        return self._call("submit", args, parse, writes_tasks=True)

    def cycle(
        self,
        worker: str,
        slots: int,
        reports: Sequence[Report] = (),
        *,
        order: str = STREAMS,
        retention_s: float = RETENTION_S,
        touch: bool = False,
        now_ms: int | None = None,
    ) -> Call[Cycle]:
        """Report what ended and claim up to `slots` tasks, in the order of the streams given.

        At most `MAX_REPORTS`, else ValueError: the script would fail half-way.
        """
        if len(reports) > MAX_REPORTS:
            raise ValueError(f"A cycle takes {MAX_REPORTS:,} reports, not {len(reports):,}: send several.")
        args: list[bytes | str | int] = [
            worker,
            slots,
            order,
            _time(now_ms),
            int(touch),
            _ttl(retention_s),
            self.journal_cap,
        ]
        for report in reports:
            args += report
        return self._call("cycle", args, parse_cycle, writes_tasks=bool(reports))

    def promote(
        self, ids: Sequence[str] = (), *, limit: int = MAX_ITEMS, now_ms: int | None = None
    ) -> Call[tuple[int, int | None]]:
        """Due tasks (or these, due or not) become pending. Returns how many, and when the next one is due."""
        return self._call("promote", (_time(now_ms), limit, *ids), lambda reply: (int(reply[0]), _number(reply[1])))

    def reclaim(
        self, order: Reclaim, *, retention_s: float = RETENTION_S, now_ms: int | None = None
    ) -> Call[tuple[str, int]]:
        """Hand on what a dead worker held: (alive | marked | moved | done, tasks). `moved` asks for another call."""
        args = (
            _time(now_ms),
            order.worker,
            order.seen,
            order.limit,
            order.nonce,
            msgspec.json.encode(order.cause),
            order.max_crashes,
            order.backoff_ms,
            _ttl(retention_s),
            self.journal_cap,
        )
        return self._call("reclaim", args, lambda reply: (reply[0].decode(), int(reply[1])))

    def hand_back(
        self,
        worker: str,
        places: Sequence[bytes | str] = (b"*",),
        *,
        leave: bool = False,
        retention_s: float = RETENTION_S,
        now_ms: int | None = None,
    ) -> Call[tuple[int, bool]]:
        """Return tasks unfinished, free of charge. Returns how many, and whether the worker still holds some.

        `leave` signs the worker off once it holds nothing.
        """
        args = (
            _time(now_ms),
            worker,
            "leave" if leave else "",
            _ttl(retention_s),
            self.journal_cap,
            MAX_ITEMS,
            *places,
        )
        return self._call("hand_back", args, lambda reply: (int(reply[0]), bool(reply[1])))

    def cancel(
        self, task_id: str, *, force: bool = False, retention_s: float = RETENTION_S, now_ms: int | None = None
    ) -> Call[str]:
        """End a waiting task, ask for the end of a running one (`force`: end it under its worker).

        Returns cancelled, asked, unknown, or the terminal state it already has.
        """
        args = (_time(now_ms), task_id, int(force), _ttl(retention_s), self.journal_cap)
        return self._call("cancel", args, _text)

    def replay(self, task_id: str, last_place: str = "", *, touch: bool = False) -> Call[str]:
        """A dead task starts over. Returns replayed, unknown, other, unique, foreign, or the state it has.

        With the place of the last attempt that the caller saw, a repeated request replays once. `touch` as in submit.
        """
        return self._call("replay", (task_id, last_place, int(touch)), _text, writes_tasks=True)

    def purge(
        self, ids: Sequence[str] = (), *, before_ms: int = 0, keep: int = 1_000_000, limit: int = MAX_ITEMS
    ) -> Call[int]:
        """Delete dead letters: these, or the oldest beyond an age or a number. Returns how many."""
        return self._call("purge", (before_ms, keep, limit, *ids), int)

    def release(self, keys: Sequence[str], *, limit: int = MAX_ITEMS) -> Call[int]:
        """Parked tasks of these types (or `!v<version>`) become pending. Returns how many."""
        return self._call("release", (limit, *keys), int)

    def pause(self, paused: bool) -> Call[bool]:
        """Stop or resume claims. Returns whether that changed anything."""
        return self._call("pause", (int(paused),), bool)

    def beat(self, worker: str, counter: int, info: bytes = b"") -> Call[Beat]:
        """Show that the worker lives; `counter` is its own and grows."""
        return self._call("beat", (worker, counter, info), _parse_beat)

    def reconcile(self, worker: str, *, limit: int = 10_000) -> Call[list[bytes]]:
        """All that the worker holds, flat like `Cycle.claims`."""
        return self._call("reconcile", (worker, limit), lambda reply: reply)

    def get(self, task_id: str) -> Call[Found | None]:
        """Where the task lies and what lies there; `view` makes it readable."""
        return self._call("get", (task_id,), _parse_found)

    def depth(self) -> Call[Depth]:
        """How much lies where. ValueError if a stream has no group: that is an error, never zero."""
        return self._call("depth", (), _parse_depth)

    def workers(self) -> Call[list[WorkerSeen]]:
        """Whoever beats or holds something."""
        return self._call("workers", (), _parse_workers)

    def enlist(self, *, max_queues: int = 1_000, types: dict[str, bytes] | None = None) -> Call[bool]:
        """List this queue, publish types. False if the namespace has too many queues."""
        pairs = [part for pair in (types or {}).items() for part in pair]
        return self._call("enlist", (self.name, max_queues, *pairs), bool)


def view(task_id: str, queue: str, found: Found) -> TaskView:
    """The readable form of what `get` found."""
    if found.place[:1] not in STREAMS:
        return _view_record(task_id, queue, found)
    state = State.PROCESSING if found.worker else State.PENDING
    return TaskView(
        task_id,
        queue,
        state,
        _envelope(found.text),
        tasks.parse_counters(found.carried),
        tasks.parse_attempts(found.carried),
        worker=found.worker,
        started_ms=found.claimed_ms,
    )


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


def _time(now_ms: int | None) -> str:
    return "" if now_ms is None else str(now_ms)


def _ttl(retention_s: float) -> int:
    """Whole seconds, at least one: Redis takes no others, and a record that is gone at once tells no resend."""
    return max(1, math.ceil(retention_s))


def _text(reply: bytes) -> str:
    return reply.decode()


def _number(text: bytes) -> int | None:
    return int(float(text)) if text else None


def parse_cycle(reply: list[Any]) -> Cycle:
    """The answer to a cycle."""
    verdicts, flags, due, claims = reply
    return Cycle(verdicts, bool(flags & 1), bool(flags & 2), _number(due), claims)


def _parse_beat(reply: list[Any]) -> Beat:
    paused, due, asked, oldest, now = reply
    ages = {oldest[i].decode(): int(oldest[i + 1].partition(b"-")[0]) for i in range(0, len(oldest), 2)}
    return Beat(bool(paused), _number(due), [id_.decode() for id_ in asked], ages, int(now))


def _parse_found(reply: list[bytes]) -> Found | None:
    if not reply:
        return None
    place = reply[0].decode()
    if place == "z":
        return Found(place, reply[1], due_ms=_number(reply[2]))
    if place in "tp":
        return Found(place, reply[1])
    if len(reply) < 5:
        return Found(place, reply[1], reply[2])
    return Found(place, reply[1], reply[2], reply[3].decode(), int(reply[4]))


def _parse_depth(reply: list[Any]) -> Depth:
    rows, live, delayed, parked, dead, workers, paused, now, due, counters = reply
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
    return Depth(streams, live, delayed, parked, dead, workers, bool(paused), int(now), _number(due), names)


def _parse_workers(reply: list[Any]) -> list[WorkerSeen]:
    rows = (reply[i : i + 4] for i in range(0, len(reply), 4))
    return [WorkerSeen(name.decode(), beat.decode(), info, held) for name, beat, info, held in rows]
