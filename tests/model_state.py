"""What lies in one queue, in the model's own terms, and how that must look in Redis.

A task knows where it lies; `loc`, `later`, `body`, `u` and `rev` are derived from that and so cannot disagree. Ids of
entries, jittered due times and idle consumers are Redis' to choose: the model takes them over once they fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace import task as tasks
from headrace.broker.keys import STREAMS, QueueKeys
from model_dump import Dump, Stream
from model_task import timeless


@dataclass(slots=True, eq=False)
class Entry:
    """One entry of a stream; `task` is None if something foreign wrote it."""

    digit: str
    fields: list[bytes]
    task: Task | None
    id: str = ""
    """Empty until it was seen in Redis."""
    owner: str | None = None

    @property
    def place(self) -> str:
        assert self.id, "this entry was not seen yet"
        return self.digit + self.id


@dataclass(slots=True, eq=False)
class Task:
    """One life of an id."""

    id: str
    envelope: bytes
    priority: int = 0
    type: str = ""
    unique: str | None = None
    state: str = "pending"
    """`pending` in a stream, else the word of its record."""
    carried: bytes = b""
    entry: Entry | None = None
    due: tuple[int, int] = (0, 0)
    """Range until it was seen in Redis."""
    key: str = ""
    """Under which it is parked."""
    asked: str | None = None
    """Whom a cancellation was asked of."""
    died_ms: int = 0
    completions: int = 0

    @property
    def public_state(self) -> str:
        """The state in the words of the API."""
        running = self.entry is not None and self.entry.owner is not None
        return "processing" if running else self.state

    @property
    def is_live(self) -> bool:
        return self.state not in ENDED

    @property
    def is_delayed(self) -> bool:
        return self.state in DELAYED

    @property
    def place(self) -> str:
        if self.entry is not None:
            return self.entry.place
        return "z" if self.is_delayed else f"p{self.key}"

    @property
    def record(self) -> bytes:
        return tasks.record(self.state, self.envelope, self.carried)

    @property
    def counters(self) -> tasks.Counters:
        return tasks.parse_counters(self.carried)


ENDED = frozenset({"completed", "failed", "cancelled"})
DELAYED = frozenset({"scheduled", "retrying"})


class DifferenceError(AssertionError):
    """Redis holds something else than the model."""


def same(what: str, expected: object, actual: object) -> None:
    """Raises DifferenceError."""
    if expected != actual and timeless(expected) != timeless(actual):
        raise DifferenceError(f"{what}:\n  expected {expected!r}\n  found    {actual!r}")


@dataclass
class State:
    """One queue."""

    keys: QueueKeys
    tasks: dict[str, Task] = field(default_factory=dict)
    streams: dict[str, list[Entry]] = field(default_factory=lambda: {digit: [] for digit in STREAMS})
    groups: set[str] = field(default_factory=set)
    consumers: dict[str, set[str]] = field(default_factory=lambda: {digit: set() for digit in STREAMS})
    newcomers: dict[str, set[str]] = field(default_factory=lambda: {digit: set() for digit in STREAMS})
    """Consumers that the call may have made: versions of Redis differ about readers who found nothing."""
    beats: dict[str, str] = field(default_factory=dict)
    infos: dict[str, bytes] = field(default_factory=dict)
    ctl: dict[str, bytes] = field(default_factory=dict)
    stats: Counter[str] = field(default_factory=Counter)
    journal: list[str] = field(default_factory=list)
    """Lines of the call under way."""
    journal_seen: str = "0-0"
    marker: bool = False

    # -- looks

    @property
    def paused(self) -> bool:
        return "paused" in self.ctl

    def live(self) -> Iterator[Task]:
        return (task for task in self.tasks.values() if task.is_live)

    def delayed(self) -> list[Task]:
        """Earliest first."""
        return sorted((t for t in self.tasks.values() if t.is_delayed), key=lambda task: (task.due, task.id))

    def dead(self) -> list[Task]:
        """Oldest first."""
        failed = (task for task in self.tasks.values() if task.state == "failed")
        return sorted(failed, key=lambda task: (task.died_ms, task.id))

    def next_due(self) -> bytes:
        delayed = self.delayed()
        return b"%d" % delayed[0].due[0] if delayed else b""

    def waiting(self, digit: str) -> list[Entry]:
        """Claimable; nothing is without the group."""
        return [e for e in self.streams[digit] if e.owner is None] if digit in self.groups else []

    def held(self, digit: str, worker: str) -> list[Entry]:
        return [entry for entry in self.streams[digit] if entry.owner == worker]

    def at(self, place: str) -> Entry | None:
        return next((e for e in self.streams.get(place[:1], ()) if e.id == place[1:]), None)

    def forget_idle_consumers(self) -> None:
        """Some versions of Redis do not keep a reader who holds nothing over a restart; nothing depends on it."""
        for digit in STREAMS:
            self.newcomers[digit] |= self.consumers[digit]
            self.consumers[digit] = set()

    # -- against Redis

    def settle(self, dump: Dump) -> None:
        """Compare with what lies in Redis and take over what Redis chose. Raises DifferenceError."""
        for digit in STREAMS:
            self._settle_stream(digit, dump.streams[digit])
        self._settle_due(dump)
        self._settle_hashes(dump)
        self._settle_ended(dump)
        same("wake", int(self.marker), dump.wake)
        lines = [line for _, text in dump.journal for line in text.decode().split("\n")]
        same("journal", self.journal, lines)
        if dump.journal:
            same("journal entries of one call", 1, len(dump.journal))
            self.journal_seen = dump.journal[-1][0]
        self.journal = []

    def _settle_stream(self, digit: str, seen: Stream) -> None:
        mine = self.streams[digit]
        same(f"entries of {digit}", [e.fields for e in mine], [fields for _, fields in seen.entries])
        for entry, (id_, _) in zip(mine, seen.entries, strict=True):
            if not entry.id:
                entry.id = id_
        same(f"ids of {digit}", [entry.id for entry in mine], [id_ for id_, _ in seen.entries])
        same(f"group of {digit}", digit in self.groups, seen.has_group)
        same(f"claims of {digit}", {e.id: e.owner for e in mine if e.owner is not None}, seen.held)
        least = self.consumers[digit] | {entry.owner for entry in mine if entry.owner is not None}
        if not least <= seen.consumers <= least | self.newcomers[digit]:
            raise DifferenceError(f"consumers of {digit}: {seen.consumers}, expected {least}, {self.newcomers[digit]}")
        self.consumers[digit] = seen.consumers
        self.newcomers[digit].clear()

    def _settle_due(self, dump: Dump) -> None:
        delayed = {task.id: task for task in self.tasks.values() if task.is_delayed}
        same("later", delayed.keys(), dump.later.keys())
        for id_, due in dump.later.items():
            low, high = delayed[id_].due
            if not low <= due <= high:
                raise DifferenceError(f"due time of {id_}: {due}, expected {low} to {high}")
            delayed[id_].due = (int(due), int(due))

    def _settle_hashes(self, dump: Dump) -> None:
        live = list(self.live())
        aside = [task for task in live if task.entry is None]
        same("loc", {task.id: task.place.encode() for task in live}, dump.hashes["loc"])
        same("body", {task.id: task.record for task in aside}, dump.hashes["body"])
        same("parked", sorted(f"{t.key}\n{t.id}" for t in aside if not t.is_delayed), sorted(dump.parked))
        same("u", {task.unique: task.id.encode() for task in live if task.unique}, dump.hashes["u"])
        same("rev", {task.id: task.asked.encode() for task in live if task.asked}, dump.hashes["rev"])
        same("w", {name: beat.encode() for name, beat in self.beats.items()}, dump.hashes["w"])
        same("wd", self.infos, dump.hashes["wd"])
        same("ctl", self.ctl, dump.hashes["ctl"])
        same("stats", {name: b"%d" % count for name, count in self.stats.items()}, dump.hashes["stats"])

    def _settle_ended(self, dump: Dump) -> None:
        ended = {task.id: task for task in self.tasks.values() if not task.is_live}
        same("records", {id_: task.record for id_, task in ended.items()}, dump.records)
        failed = {id_: task.died_ms for id_, task in ended.items() if task.state == "failed"}
        same("dead", failed, dump.dead)
        kept = {id_ for id_, ttl in dump.ttl.items() if ttl == -1}
        same("records kept for ever", failed.keys(), kept)
        same("keys", [], sorted(set(dump.others) - {self.keys[suffix] for suffix in _ALL}))


_ALL = (*STREAMS, "loc", "later", "body", "parked", "dead", "u", "rev", "w", "wd", "ctl", "stats", "journal", "wake")
