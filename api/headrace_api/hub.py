"""The events of one namespace, for all who watch it: tasks that end, and once a second how many are where.

Redis is asked once for everybody, and what those who see the same are told is written once, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from headrace.ended import Ended, EndedTasks, Place
from headrace.errors import HeadraceError, StoreTimeout
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiToken
from headrace.task import State

from .overview import Lookout, Overview
from .sse import event
from .stats import stats_of
from .store import Store
from .task_body import Moment, rfc3339

MAX_WAITING: Final = 256 * 1024
"""Bytes that may wait for one client, beside one batch of events and what the operating system takes."""
OVERVIEW_S: Final = 1.0
READY_S: Final = 2.0
"""Seconds until a new stream is refused because Redis is away."""
_encode: Final = msgspec.json.Encoder().encode


class EndedEvent(msgspec.Struct, frozen=True):
    """A task that ended."""

    id: str
    queue: str
    type: Annotated[str, Meta(description="Empty where something foreign wrote the task.")]
    status: Annotated[State, Meta(description="`completed`, `failed` or `cancelled`.")]
    at: Annotated[Moment | None, Meta(description="When Redis heard of it.")]


class GapEvent(msgspec.Struct, frozen=True):
    """Tasks may have ended that are not told."""

    detail: str


class LaggedEvent(msgspec.Struct, frozen=True):
    """The client reads too slowly; the stream ends."""

    detail: str


class UnavailableEvent(msgspec.Struct, frozen=True):
    """Redis is away; what is told is late. The next `overview` says that it is back."""

    code: str


LAGGED: Final = event("lagged", _encode(LaggedEvent("You read too slowly. Come again with the last id that you saw.")))
_CUT: Final = (
    "More ended since then than the journal holds. What it holds follows; lists have what is kept of the rest."
)
_NO_PLACE: Final = "The Last-Event-ID is none of this stream. What ends from now on follows."
_GAP: Final = event("gap", _encode(GapEvent(_CUT)))
NO_PLACE: Final = event("gap", _encode(GapEvent(_NO_PLACE)))


@dataclass(frozen=True, slots=True)
class View:
    """What somebody sees. Those who see the same have equal ones."""

    patterns: tuple[str, ...]
    """Of the token's queues."""
    queues: tuple[str, ...]
    types: tuple[str, ...]
    token: ApiToken = field(compare=False, repr=False)

    def covers(self, queue: str) -> bool:
        """Whether this queue is seen."""
        return self.token.may(queue) and (not self.queues or queue in self.queues)

    def wants(self, ended: Ended) -> bool:
        """Whether this task is told."""
        return self.covers(ended.place.queue) and ended.is_of(self.types)


class Outbox:
    """What waits to be sent to one client. Too much of it is thrown away, and the client is told to come again."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.over = False
        """Nothing will come after what waits."""
        self.overview: bytes | None = None
        """The last one that was told, and is told again only when it has changed; None = the first is still to come."""
        self._waiting: list[bytes] = []
        self._size = 0

    def put(self, data: bytes) -> None:
        """Send it after what waits already."""
        if self.over or not data:
            return
        if self._size and self._size + len(data) > MAX_WAITING:
            self._waiting, self.over = [LAGGED], True
        else:
            self._waiting.append(data)
            self._size += len(data)
        self.news.set()

    def tell_overview(self, data: bytes) -> None:
        """Send it if it is another one than the last."""
        if self.overview not in {None, data}:
            self.overview = data
            self.put(data)

    def end(self) -> None:
        """Send what waits, and no more."""
        self.over = True
        self.news.set()

    def take(self) -> bytes:
        """What waits; it does not wait any longer."""
        data = b"".join(self._waiting)
        self._waiting, self._size = [], 0
        return data


class Hub:
    """Who watches one namespace. For one event loop; it asks Redis only while somebody does."""

    def __init__(
        self,
        redis: RedisSettings,
        store: Store,
        namespace: str,
        lookout: Lookout,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ended = EndedTasks(redis, store, namespace, sleep)
        self._lookout = lookout
        self._sleep = sleep
        self._outboxes: dict[View, list[Outbox]] = {}
        self._away = False
        self._ticking: asyncio.Task[None] | None = None
        self._watching = 0
        self._reading = ExitStack()

    @asynccontextmanager
    async def joined(self, view: View, since: Place | None) -> AsyncIterator[tuple[bytes, Outbox]]:
        """What to send first: what ended since that place, and an overview; and where the rest comes.

        Raises StoreUnavailable, RedisError.
        """
        outbox = Outbox()
        with self._watched():
            now = await self._ready(view)
            # What was missed ends where the outbox begins, for nothing is awaited between the two.
            self._outboxes.setdefault(view, []).append(outbox)
            try:
                missed = b"" if since is None else await self._missed(view, since)
                seen = await self._lookout.look()
                outbox.overview = _overview(view, seen)
                yield missed + _overview(view, seen, now), outbox
            finally:
                self._leave(view, outbox)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._watching += 1
        if self._watching == 1:
            self._reading.enter_context(self._ended.listening(self._tell))
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick(), name="headrace-hub")
        try:
            yield
        finally:
            self._watching -= 1
            if not self._watching:
                self._reading.close()

    async def _ready(self, view: View) -> Place:
        try:
            async with asyncio.timeout(READY_S):
                return await self._ended.ready(view.covers)
        except TimeoutError:
            raise StoreTimeout(str(self._ended.redis), f"the journals were not read within {READY_S:g} s") from None

    def _leave(self, view: View, outbox: Outbox) -> None:
        self._outboxes[view].remove(outbox)
        if not self._outboxes[view]:
            del self._outboxes[view]

    async def _missed(self, view: View, since: Place) -> bytes:
        missed = await self._ended.missed(since, view.covers)
        return (_GAP if missed.cut else b"") + _told(view, missed.ended)

    def _tell(self, ended: Sequence[Ended]) -> None:
        for view, outboxes in self._outboxes.items():
            data = _told(view, ended)
            for outbox in outboxes:
                outbox.put(data)

    async def _tick(self) -> None:
        while self._watching:
            await self._sleep(OVERVIEW_S)
            try:
                seen = await self._lookout.look()
            except HeadraceError as error:
                self._say_unavailable(error)
                continue
            self._away = False
            for view, outboxes in self._outboxes.items():
                data = _overview(view, seen)
                for outbox in outboxes:
                    outbox.tell_overview(data)

    def _say_unavailable(self, error: HeadraceError) -> None:
        """Once, until it is back; then an overview must come, also if it is the same as before."""
        if not self._away:
            self._away = True
            data = event("unavailable", _encode(UnavailableEvent(error.code)))
            for outbox in self._all():
                outbox.overview = b""
                outbox.put(data)

    def _all(self) -> list[Outbox]:
        return [outbox for outboxes in self._outboxes.values() for outbox in outboxes]

    def let_go(self) -> None:
        """End all streams."""
        for outbox in self._all():
            outbox.end()

    async def aclose(self) -> None:
        """Stop reading."""
        self.let_go()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self._ended.aclose()


def _told(view: View, ended: Iterable[Ended]) -> bytes:
    """As events. Only the last task of one place has an id: who has seen less of it is told all of it again."""
    wanted = [each for each in ended if view.wants(each)]
    places = {each.place: each for each in wanted}
    return b"".join(
        event("ended", _encode(_body(each)), str(each.place) if places[each.place] is each else "") for each in wanted
    )


def _body(each: Ended) -> EndedEvent:
    return EndedEvent(each.id, each.place.queue, each.type, each.state, rfc3339(each.place.ms))


def _overview(view: View, seen: Overview, place: Place | None = None) -> bytes:
    return event("overview", _encode(stats_of(seen, view.covers)), str(place) if place else "")
