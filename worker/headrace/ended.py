"""Following the tasks of a namespace that end: one reader of all journals for all who listen, and what was missed.

All journals are read by one command, so what it returns is all that was there at one moment. That makes the place of
one line a place in all of them: whoever has seen it has seen everything before it, in whatever queue. (A queue that is
new is noticed within a second.)
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from headrace.broker.client import AsyncClient
from headrace.broker.keys import QueueKeys
from headrace.errors import HeadraceError, StoreUnavailable
from headrace.queues import Caller, names
from headrace.redis_settings import RedisSettings
from headrace.task import DEFAULT_QUEUE, TERMINAL, State

logger = logging.getLogger(__name__)

BLOCK_MS: Final = 1_000
NAMES_S: Final = 1.0
"""Seconds after which queues that are new are looked for."""
PAUSE_S: Final = 0.05
"""Seconds between two reads: Redis looks at the journals of all queues for each."""
AGAIN_S: Final = 1.0
"""Seconds until Redis is asked again that was away, or refused."""
ENTRIES: Final = 500
"""Entries of one journal a read takes."""
MAX_PAST: Final = 10_000
"""Tasks that somebody may have missed; who missed more is told so."""

_PLACE: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})/([a-z0-9-]{1,63})")
_LARGEST: Final = 2**64 - 1
"""Redis refuses ids with larger numbers."""
Entries = Sequence[tuple[bytes, list[bytes]]]


class Place(NamedTuple):
    """A place in all journals: an entry of one of them. Places are ordered as they are read."""

    ms: int
    seq: int
    queue: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The place that `str` made; None for another text."""
        found = _PLACE.fullmatch(text)
        place = cls(int(found[1]), int(found[2]), found[3]) if found else None
        return place if place and max(place.ms, place.seq) <= _LARGEST else None

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}/{self.queue}"


class Ended(NamedTuple):
    """One task that ended."""

    place: Place
    id: str
    type: str
    """Empty where something foreign wrote the task."""
    state: State

    def is_of(self, types: Sequence[str]) -> bool:
        """Whether its type is one of these, of which one with a `*` at its end is many; none are all."""
        return not types or any(
            self.type.startswith(each[:-1]) if each.endswith("*") else self.type == each for each in types
        )


Listen = Callable[[Sequence[Ended]], None]


@dataclass(frozen=True, slots=True)
class Missed:
    """What ended after a place."""

    ended: list[Ended]
    cut: bool
    """There may have been more: a journal was cut, or they are too many."""


@dataclass
class EndedTasks:
    """The tasks of a namespace as they end. For one event loop; it reads only while somebody listens."""

    redis: RedisSettings
    caller: Caller
    """For what does not wait."""
    namespace: str
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _client: AsyncClient = field(init=False)
    _reader: asyncio.Task[None] | None = None
    _listeners: list[Listen] = field(default_factory=list)
    _last: dict[str, bytes] = field(default_factory=dict)
    """Queue → the last entry that was read."""
    _names_at: float | None = None
    """When queues were looked for; None = not yet."""
    _ready: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._client = AsyncClient(self.redis, "headrace-ended")

    @contextmanager
    def listening(self, listen: Listen) -> Iterator[None]:
        """`listen` is told of what ends from now on, in order and each once; it must not wait."""
        self._listeners.append(listen)
        try:
            if self._reader is None or self._reader.done():
                self._ready.clear()
                self._reader = asyncio.create_task(self._read(), name="headrace-ended")
            yield
        finally:
            self._listeners.remove(listen)

    async def ready(self, wanted: Callable[[str], bool]) -> Place:
        """Until listeners are told of what ends; the place of the last task that ended in the wanted queues before.

        Waits while Redis is away, until `aclose`.
        """
        await self._ready.wait()
        places = (Place(*_key(last), queue) for queue, last in self._last.items() if wanted(queue))
        return max(places, default=Place(0, 0, DEFAULT_QUEUE))

    async def missed(self, since: Place, wanted: Callable[[str], bool]) -> Missed:
        """What ended in the wanted queues after a place, up to what listeners are told from now on. To be asked while
        listening, when it is ready. Raises StoreUnavailable, RedisError.
        """
        # Where nothing had ended by then there may be no journal yet, which is not to be taken for one that was lost.
        first = max((since.ms, 0), (0, 1))
        behind = {queue: last for queue, last in self._last.items() if wanted(queue) and _key(last) >= first}
        found: list[Ended] = []
        cut = False
        for queue, last in behind.items():
            rows, more = await self._past(queue, since, last, MAX_PAST - len(found))
            found += rows
            cut = cut or more
        return Missed(sorted(found, key=lambda each: each.place), cut)

    async def _past(self, queue: str, since: Place, last: bytes, room: int) -> tuple[list[Ended], bool]:
        key = QueueKeys(self.namespace, queue)["journal"]
        # Of another queue's entries of the same millisecond nobody knows which came before.
        after = f"({since.ms}-{since.seq}" if queue == since.queue else f"{since.ms}-0"
        if not await self.caller.command("EXISTS", key):
            return [], True
        cut = _was_cut(await self.caller.command("XINFO", "STREAM", key), since)
        found: list[Ended] = []
        while len(found) < room:
            entries: Entries = await self.caller.command("XRANGE", key, after, last, "COUNT", ENTRIES)
            found += _tasks(queue, entries)
            if len(entries) < ENTRIES:
                return found, cut
            after = f"({entries[-1][0].decode()}"
        return found, True

    async def _read(self) -> None:
        self._last.clear()
        self._names_at = None
        while self._listeners:
            try:
                await self._know()
                self._ready.set()
                more = await self._read_once()
            except HeadraceError as error:
                if not isinstance(error, StoreUnavailable):
                    logger.warning("Journals cannot be read, so nobody is told of tasks that end. %s", error)
                await self.sleep(AGAIN_S)
            else:
                await self.sleep(0 if more else PAUSE_S)

    async def _know(self) -> None:
        """Begin with queues that are new: at the end of their journals; at the beginning, if they came since."""
        now = time.monotonic()
        if self._names_at is not None and now - self._names_at < NAMES_S:
            return
        new = [name for name in await names(self.caller, self.namespace) if name not in self._last]
        if self._names_at is not None:
            self._last |= dict.fromkeys(new, b"0-0")
        else:
            ends = (self.caller.command("XREVRANGE", self._journal(name), "+", "-", "COUNT", 1) for name in new)
            for name, newest in zip(new, await asyncio.gather(*ends), strict=True):
                self._last[name] = newest[0][0] if newest else b"0-0"
        self._names_at = now

    def _journal(self, queue: str) -> str:
        return QueueKeys(self.namespace, queue)["journal"]

    async def _read_once(self) -> bool:
        """Whether there is more at once."""
        if not self._last:
            await asyncio.sleep(BLOCK_MS / 1000)
            return False
        keys = {self._journal(queue).encode(): queue for queue in self._last}
        limit = ("BLOCK", BLOCK_MS, "COUNT", ENTRIES)
        patience_s = self.redis.timeout_s + BLOCK_MS / 1000
        reply = await self._client.command(
            "XREAD", *limit, "STREAMS", *keys, *self._last.values(), timeout_s=patience_s
        )
        rows = {keys[key]: entries for key, entries in reply or ()}
        taken, more = _of_one_moment(rows)
        told: list[Ended] = []
        for queue, entries in taken.items():
            self._last[queue] = entries[-1][0]
            told += _tasks(queue, entries)
        told.sort(key=lambda each: each.place)
        if told:
            for listen in tuple(self._listeners):
                listen(told)
        return more

    async def aclose(self) -> None:
        """Stop reading and close the connection. Who waits until it reads, waits no longer."""
        if self._reader is not None:
            self._reader.cancel()
            self._ready.set()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._client.aclose()


def _of_one_moment(rows: Mapping[str, Entries]) -> tuple[dict[str, Entries], bool]:
    """What was read, without what is newer than a journal that was not read to its end; and whether one was not."""
    full = [_key(entries[-1][0]) for entries in rows.values() if len(entries) >= ENTRIES]
    if not full:
        return dict(rows), False
    newest = min(full)
    kept = {queue: [each for each in entries if _key(each[0]) <= newest] for queue, entries in rows.items()}
    return {queue: entries for queue, entries in kept.items() if entries}, True


def _tasks(queue: str, entries: Entries) -> list[Ended]:
    """The tasks that entries of a queue's journal name. What something foreign wrote there is none."""
    found: list[Ended] = []
    for entry_id, fields in entries:
        place = Place(*_key(entry_id), queue)
        lines = [line.split(" ") for line in fields[1].decode("utf-8", "replace").split("\n")]
        found += [
            Ended(place, line[0], line[3] if len(line) == 4 else "", State(line[2]))
            for line in lines
            if len(line) in {3, 4} and line[2] in TERMINAL
        ]
    return found


def _key(entry_id: bytes) -> tuple[int, int]:
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq)


def _was_cut(info: list[Any], since: Place) -> bool:
    """Whether a journal may have had entries after a place that it has no more."""
    facts = dict(zip(info[::2], info[1::2], strict=True))
    first = facts[b"first-entry"]
    was_cut = facts[b"entries-added"] > facts[b"length"]
    return bool(was_cut and (first is None or _key(first[0]) > (since.ms, since.seq)))


__all__ = ["MAX_PAST", "Ended", "EndedTasks", "Missed", "Place"]
