"""`app.watch()`: the tasks that end, as they end, for any number of watches of one event loop at the cost of one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from headrace.broker.client import AsyncClient
from headrace.connections import Connections
from headrace.ended import Ended, EndedTasks, Place
from headrace.errors import FieldError, InvalidRequest
from headrace.queues import at, names
from headrace.task import State

MAX_WAITING: Final = 10_000
"""Tasks that may wait for one watch; what ends beyond them is read from the journals when it gets there."""


class EndedTask(msgspec.Struct, frozen=True):
    """A task that ended, as the API's events and `headrace watch` tell of it."""

    id: str
    queue: str
    type: str
    """Empty where something foreign wrote the task."""
    status: State
    """COMPLETED, FAILED or CANCELLED."""
    at: str | None
    """RFC 3339: when Redis heard of it."""
    last_id: str
    """Where another watch goes on after this task. Some that ended in the same moment may be told again."""
    gap: bool = False
    """Others may have ended, about before this one, that are not told: the journals hold them no more."""


class Watchers:
    """All watches of one event loop in one namespace."""

    def __init__(self, client: AsyncClient, namespace: str, most: int = MAX_WAITING) -> None:
        self._ended = EndedTasks(client.settings, client, namespace)
        self._client = client
        self._namespace = namespace
        self._most = most
        self._open: set[_Watch] = set()
        self._closed = False

    async def follow(
        self, queues: Sequence[str], types: Sequence[str], since: Place | None
    ) -> AsyncGenerator[EndedTask, None]:
        """What ends after that place, or from now on, until `aclose`. Raises StoreUnavailable, RedisError."""
        await names(self._client, self._namespace)  # says at once that Redis is away; what follows would wait
        if self._closed:
            return
        watch = _Watch(queues, types, self._most)
        self._open.add(watch)
        try:
            async with aclosing(watch.tasks(self._ended, since)) as tasks:
                async for task in tasks:
                    yield task
        finally:
            self._open.discard(watch)

    async def aclose(self) -> None:
        """End all watches, after what waits for them, and stop reading."""
        self._closed = True
        for watch in self._open:
            watch.end()
        await self._ended.aclose()


class _Watch:
    def __init__(self, queues: Sequence[str], types: Sequence[str], most: int) -> None:
        self._queues = queues
        self._types = types
        self._most = most
        self._waiting: deque[Sequence[Ended]] = deque()
        self._size = 0
        self._behind = True
        """What is told now is read from the journals later."""
        self._over = False
        self._news = asyncio.Event()

    def _covers(self, queue: str) -> bool:
        return not self._queues or queue in self._queues

    def _wanted(self, ended: Sequence[Ended]) -> list[Ended]:
        return [each for each in ended if self._covers(each.place.queue) and each.is_of(self._types)]

    def hear(self, ended: Sequence[Ended]) -> None:
        """Called with all that ends."""
        wanted = self._wanted(ended)
        if not wanted or self._behind:
            return
        if self._size and self._size + len(wanted) > self._most:
            self._behind = True
            return
        self._waiting.append(wanted)
        self._size += len(wanted)
        self._news.set()

    def end(self) -> None:
        """No more after what waits."""
        self._over = True
        self._news.set()

    async def tasks(self, ended: EndedTasks, since: Place | None) -> AsyncGenerator[EndedTask, None]:
        """What ends after `since`, or from now on."""
        with ended.listening(self.hear):
            now = await ended.ready(self._covers)
            # Nothing is awaited from here to where it listens, or to where what was missed ends.
            last, self._behind, gap = since or now, since is not None, False
            while True:
                if self._waiting:
                    rows = self._waiting.popleft()
                    self._size -= len(rows)
                elif self._over:
                    return
                elif self._behind:
                    self._behind = False
                    missed = await ended.missed(last, self._covers)
                    rows, gap = self._wanted(missed.ended), gap or missed.cut
                else:
                    self._news.clear()
                    await self._news.wait()
                    continue
                for task in _told(rows, last, gap):
                    yield task
                if rows:
                    last, gap = rows[-1].place, False


def _told(rows: Sequence[Ended], before: Place, gap: bool) -> Iterator[EndedTask]:
    """As records. Only behind the last task of a place one can go on: who has seen less is told all of it again."""
    closing = {each.place: each for each in rows}
    for each in rows:
        if closing[each.place] is each:
            before = each.place
        yield EndedTask(each.id, each.place.queue, each.type, each.state, at(each.place.ms), str(before), gap)
        gap = False


def watch(
    connections: Connections, queues: Sequence[str], types: Sequence[str], last_id: str
) -> AsyncGenerator[EndedTask, None]:
    """What `App.watch` gives. Raises InvalidRequest."""
    since = Place.parse(last_id) if last_id else None
    if last_id and since is None:
        detail = f"{last_id[:64]!r} is none of a watch"
        raise InvalidRequest([FieldError("/last_id", detail, "give the last_id of a task that a watch gave")])
    return _follow(connections, _several(queues), _several(types), since)


async def _follow(
    connections: Connections, queues: Sequence[str], types: Sequence[str], since: Place | None
) -> AsyncGenerator[EndedTask, None]:
    async with aclosing(connections.watchers().follow(queues, types, since)) as tasks:
        async for task in tasks:
            yield task


def _several(given: Sequence[str]) -> tuple[str, ...]:
    """A single name that was not put into a tuple is meant as one, and not as its letters."""
    return (given,) if isinstance(given, str) else tuple(given)
