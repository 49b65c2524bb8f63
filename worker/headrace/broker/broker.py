"""One method per transition. Each is pure: it builds a `Call`, which a connection carries out (`await client.call(…)`).

So the same method serves the worker's raw connection, the API, and synchronous programs, and a test can look at a call
before it is sent. What each script takes and returns is described on top of its Lua file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec

from headrace import task as tasks

from .demand import Demand, parse_demand
from .keys import STREAMS, NamespaceKeys, QueueKeys
from .reclaiming import Buried, Reclaim, Reclaimed, parse_reclaimed
from .replies import (
    MAX_ITEMS,
    Beat,
    Claim,
    Cycle,
    Depth,
    Found,
    Held,
    NewTask,
    Report,
    StreamDepth,
    Submitted,
    TaskView,
    WorkerSeen,
    number,
    parse_beat,
    parse_cycle,
    parse_depth,
    parse_found,
    parse_held,
    parse_submitted,
    parse_workers,
    report_args,
    view,
)
from .scanning import Scan, Scanned, parse_scanned
from .scripts import Head, Script, all_scripts
from .words import Column, Command, Word, flat

__all__ = [
    "MAX_ITEMS",
    "Beat",
    "Buried",
    "Call",
    "Claim",
    "Cycle",
    "Depth",
    "Found",
    "Held",
    "NewTask",
    "Queue",
    "Reclaim",
    "Reclaimed",
    "Report",
    "StreamDepth",
    "Submitted",
    "TaskView",
    "WorkerSeen",
    "parse_cycle",
    "parse_held",
    "view",
]

R = TypeVar("R")

JOURNAL_CAP: Final = 10_000
"""Entries (report calls) that the journal of a queue keeps, approximately."""
RETENTION_S: Final = 86_400
MAX_SUBMIT: Final = 1_000
"""Tasks a submit call takes: Lua's unpack ends at about 8,000 values, and 1,000 hold Redis for about 3 ms."""
MAX_REPORTS: Final = 1_000
"""Reports a cycle takes, for the same reason."""


_FORGOTTEN: Final = {"d": "deleted", "u": "unknown", "l": "live", "o": "other"}


class Call(msgspec.Struct, Generic[R], frozen=True):
    """A script call that is not sent yet."""

    head: Head
    """Of its script, for its queue or namespace."""
    args: Sequence[Word | Column]
    parse: Callable[[Any], R]
    writes_tasks: bool = False
    """True for submit, cycle, replay and secret, whose answer may have to be confirmed (`fsync`, `replicated`)."""

    @property
    def script(self) -> Script:
        return self.head.script

    @property
    def words(self) -> Command:
        """The command that carries it out."""
        return (*self.head.words, *flat(self.args))

    @property
    def words_with_source(self) -> Command:
        """The same for a server that does not know the script."""
        return (b"EVAL", self.script.source.encode(), *self.head.words[2:], *flat(self.args))


class Queue:
    """The transitions of one queue."""

    def __init__(self, name: str, namespace: str = "default", *, journal_cap: int = JOURNAL_CAP) -> None:
        self.name = tasks.check_queue(name)
        self.namespace = tasks.check_queue(namespace)
        self.keys = QueueKeys(namespace, name)
        self.journal_cap = journal_cap
        self._heads: dict[str, Head] = {}
        """Made when first used: an operator looks at a thousand queues."""

    def _call(
        self,
        name: str,
        args: Sequence[Word | Column],
        parse: Callable[[Any], R],
        writes_tasks: bool = False,
    ) -> Call[R]:
        return Call(self._heads.get(name) or self._head(name), args, parse, writes_tasks)

    def _head(self, name: str) -> Head:
        keys = NamespaceKeys(self.namespace) if name == "enlist" else self.keys
        head = self._heads[name] = all_scripts()[name].head(keys.prefix)
        return head

    def init(self, run_id: str = "", now_ms: int | None = None) -> Call[tuple[int, bool]]:
        """Streams and groups exist after it. Returns the epoch and whether the queue is paused."""
        return self._call("init", (run_id, _time(now_ms)), lambda reply: (int(reply[0]), bool(reply[1])))

    def submit(
        self, batch: Sequence[NewTask], max_depth: int = 0, *, touch: bool = False, now_ms: int | None = None
    ) -> Call[list[Submitted]]:
        """Tasks enter, all or (at max_depth, 0 = none) none of the new ones; known ids are told, not added again.

        A queue's own max_depth in Redis goes before the one given.

        At most `MAX_SUBMIT`, else ValueError: the script would fail half-way. Send the highest priority first.
        `touch` makes a call that adds nothing write all the same, so that WAIT and WAITAOF confirm something.
        """
        if len(batch) > MAX_SUBMIT:
            raise ValueError(f"A submission takes {MAX_SUBMIT:,} tasks, not {len(batch):,}: send several.")
        ids = [new.id for new in batch]
        wheres = [new.where() for new in batch]
        alike = len(batch) == 1 or (len(set(wheres)) == 1 and len(set(ids)) == len(batch))
        where = wheres[0] if alike else ""
        args: list[Word | Column] = [_time(now_ms), max_depth, int(touch), where]
        # A column of one costs more to be written than the word.
        args += (ids[0], batch[0].envelope) if len(batch) == 1 else (ids, [new.envelope for new in batch])
        if not alike:
            args.append(wheres)
        return self._call("submit", args, partial(parse_submitted, ids), writes_tasks=True)

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
        args: list[Word | Column] = [
            worker,
            slots,
            order,
            _time(now_ms),
            int(touch),
            _ttl(retention_s),
            self.journal_cap,
        ]
        args += report_args(reports)
        return self._call("cycle", args, parse_cycle, writes_tasks=bool(reports))

    def promote(
        self, ids: Sequence[str] = (), *, limit: int = MAX_ITEMS, now_ms: int | None = None
    ) -> Call[tuple[int, int | None]]:
        """Due tasks (or these, due or not) become pending. Returns how many, and when the next one is due."""
        return self._call("promote", (_time(now_ms), limit, *ids), lambda reply: (int(reply[0]), number(reply[1])))

    def reclaim(
        self, order: Reclaim, *, retention_s: float = RETENTION_S, now_ms: int | None = None
    ) -> Call[Reclaimed]:
        """Hand on what a dead worker held, at most `order.limit`; `moved` in the answer asks for another call."""
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
        return self._call("reclaim", args, parse_reclaimed)

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
        self,
        task_id: str,
        *,
        force: bool = False,
        if_waiting: bool = False,
        retention_s: float = RETENTION_S,
        now_ms: int | None = None,
    ) -> Call[str]:
        """End a waiting task, ask for the end of a running one (`force`: end it under its worker).

        Returns cancelled, asked, unknown, or the terminal state it already has; with `if_waiting` also processing,
        and then the task goes on.
        """
        mode = "w" if if_waiting else int(force)
        args = (_time(now_ms), task_id, mode, _ttl(retention_s), self.journal_cap)
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

    def forget(self, ended: Sequence[tuple[str, str]]) -> Call[list[str]]:
        """Delete records of ended tasks, given as id and place of the last attempt ('' = whichever).

        Returns a word a task: deleted, unknown, live, or other (it has ended again since).
        """
        args = [part for task in ended for part in task]
        return self._call("forget", args, lambda reply: [_FORGOTTEN[letter] for letter in reply.decode()])

    def release(self, keys: Sequence[str], *, limit: int = MAX_ITEMS) -> Call[int]:
        """Parked tasks of these types (or `!v<version>`) become pending. Returns how many."""
        return self._call("release", (limit, *keys), int)

    def pause(self, paused: bool, now_ms: int | None = None) -> Call[bool]:
        """Stop or resume claims. Returns whether that changed anything."""
        return self._call("pause", (int(paused), _time(now_ms)), bool)

    def beat(self, worker: str, counter: int | str, info: bytes = b"") -> Call[Beat]:
        """Show that the worker lives; `counter` is its own and grows, and what `WorkerBeat` tells may follow it."""
        return self._call("beat", (worker, counter, info), parse_beat)

    def progress(self, worker: str, rows: Sequence[bytes | str], *, ttl_s: int = 60) -> Call[bool]:
        """How far tasks of this worker are. `rows` is flat: id, JSON of its `Progress` (b"" = its attempt ended), …."""
        return self._call("progress", (worker, ttl_s, *rows), bool)

    def reconcile(self, worker: str, known: Iterable[bytes] = (), *, limit: int = 10_000) -> Call[Held]:
        """All that the worker holds; of the places that it knows already, no more than that."""
        return self._call("reconcile", (worker, limit, *known), parse_held)

    def get(self, task_id: str) -> Call[Found | None]:
        """Where the task lies and what lies there; `view` makes it readable."""
        return self._call("get", (task_id,), parse_found)

    def find(self, task_ids: Sequence[str]) -> Call[list[Found | None]]:
        """As `get`, for many: at most MAX_ITEMS, for records are large."""
        return self._call("find", task_ids, lambda reply: [parse_found(each) for each in reply])

    def scan(self, scan: Scan) -> Call[Scanned]:
        """Look through the tasks; how `headrace.listing` makes pages of it."""
        return self._call("scan", scan.args(), parse_scanned)

    def depth(self) -> Call[Depth]:
        """How much lies where. ValueError if a stream has no group: that is an error, never zero."""
        return self._call("depth", (), parse_depth)

    def demand(self, due_within_s: float) -> Call[Demand]:
        """What a scaler looks at. The reply raises GroupMissingError if a stream has no group: an error, never zero."""
        return self._call("demand", (round(due_within_s * 1_000),), parse_demand)

    def ask_to_drain(self, workers: Sequence[str], *, now_ms: int | None = None) -> Call[int]:
        """These workers shall claim no more. Returns how many of them beat and were not asked before."""
        return self._call("drain", ("ask", _time(now_ms), *workers), int)

    def release_from_drain(self, workers: Sequence[str]) -> Call[int]:
        """These workers may claim again. Returns how many were asked."""
        return self._call("drain", ("release", "", *workers), int)

    def workers(self) -> Call[list[WorkerSeen]]:
        """Whoever beats or holds something."""
        return self._call("workers", (), parse_workers)

    def enlist(self, *, max_queues: int = 1_000) -> Call[bool]:
        """List this queue. False if the namespace has too many queues."""
        return self._call("enlist", (self.name, max_queues), bool)


def _time(now_ms: int | None) -> str:
    return "" if now_ms is None else str(now_ms)


def _ttl(retention_s: float) -> int:
    """Whole seconds, at least one: Redis takes no others, and a record that is gone at once tells no resend."""
    return max(1, math.ceil(retention_s))


def _text(reply: bytes) -> str:
    return reply.decode()
