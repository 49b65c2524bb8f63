"""Pages of tasks without an index per task: a bounded look at where tasks lie, told honestly.

A list goes queue by queue, by name; within a queue: scheduled and retrying (soonest first), parked (by type), pending
(by stream, newest first), processing (longest first), failed, then completed and cancelled (both newest first; of these
only what the journal still names). A task that stays where it is comes exactly once, whatever enters and leaves
meanwhile; one that moves on may come again in its new state.
"""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

import msgspec

from headrace.blame import NOWHERE
from headrace.broker.broker import Call, Queue, TaskView, view
from headrace.broker.keys import STREAMS, NamespaceKeys
from headrace.broker.scanning import Scan, Scanned
from headrace.client import Run, Steps
from headrace.filters import EVERY_TASK, Argument, Filter
from headrace.task import State

R = TypeVar("R")

LIMIT: Final = 50
"""Tasks of a page."""
MAX_LIMIT: Final = 1_000
BUDGET: Final = 10_000
"""Tasks that are looked at for a page; one over 4 KiB counts as several."""
CALL_BUDGET: Final = 1_000
"""Tasks that are looked at in one call: it holds Redis for about 2 ms."""
QUEUE_COST: Final = 10
"""What a queue costs in which there is nothing."""


class Caller(Protocol):
    """Carries out calls: `AsyncClient`, or the API's store. Raises StoreUnavailable, RedisError."""

    async def call(self, call: Call[R]) -> R: ...


class Commander(Protocol):
    """Carries out plain commands: the same."""

    async def command(self, *args: bytes | str | int) -> Any: ...


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a list goes on."""

    queue: str
    source: str
    """'' = at the queue's beginning."""
    at: bytes
    as_of_ms: int | None
    now_ms: int
    """When the list began: what `since:2h` counts back from."""

    def text(self) -> str:
        """As a word without blanks. It is not signed: do not take it from strangers."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Position:
        """What `text` gave. ValueError for anything else."""
        try:
            return msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=cls)
        except ValueError as error:  # msgspec's and base64's are
            raise ValueError(f"{text[:40]!r} is no position in a list") from error


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    items: list[TaskView]
    """Without results and past attempts; without large payloads unless they were asked for."""
    next: Position | None
    """None = the list ends here."""
    scanned: int
    """Tasks that were looked at for it."""
    truncated: bool
    """The budget or the time was used up before the page was full: there may be more behind `next`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a page is made of."""

    filter: Filter = EVERY_TASK
    cursor: Position | None = None
    limit: int = LIMIT
    budget: int = BUDGET
    payloads: bool = False
    """Whether `items` have their payloads whole."""
    seconds: float = math.inf
    """No call is begun that would end later, except for the first one."""
    clock: Callable[[], float] = time.monotonic


async def page(client: Caller, queues: Sequence[Queue], ask: Ask) -> Page:
    """The tasks of these queues that match, from the cursor on. Raises StoreUnavailable, RedisError."""
    return await carry_out(look_through(queues, ask), client)


async def carry_out(steps: Steps[R], client: Caller) -> R:
    """The result of steps that only look."""
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Run)
            step = steps.send(await client.call(step.call))
    except StopIteration as done:
        found: R = done.value
        return found


class _Purse:
    """What a page may still cost, in tasks and in time."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._tasks = ask.budget
        self._began = self._last = ask.clock()
        self._longest_s = 0.0

    @property
    def next_call(self) -> int:
        """Tasks that the next call may look at; 0 = there may be none. One takes as long as the longest before."""
        over = self._last + self._longest_s > self._began + self._ask.seconds
        return 0 if over else max(0, min(CALL_BUDGET, self._tasks))

    def called(self, tasks: int) -> None:
        """A call has come back, and cost so many tasks."""
        now = self._ask.clock()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now
        self._tasks -= tasks

    def passed(self, tasks: int) -> None:
        """So many tasks' worth was used up beside the calls."""
        self._tasks -= tasks


def look_through(queues: Sequence[Queue], ask: Ask) -> Steps[Page]:
    """The steps that make a page. It knows nothing of sockets, so it serves every kind of caller."""
    if not (1 <= ask.limit <= MAX_LIMIT and ask.budget >= 1):
        raise ValueError(f"A page takes 1 to {MAX_LIMIT} tasks and a budget from 1 up, not {ask.limit}, {ask.budget}.")
    now_ms = ask.cursor.now_ms if ask.cursor else time.time_ns() // 1_000_000
    filter = ask.filter.at(now_ms) if ask.cursor else ask.filter
    items: list[TaskView] = []
    purse, scanned = _Purse(ask), 0
    for queue, start in _remaining(queues, filter, ask.cursor, now_ms):
        scan = _scan(filter, ask.payloads, start)
        while scan.sources:
            left = purse.next_call
            if len(items) >= ask.limit or not left:
                here = Position(queue.name, scan.source, scan.position, scan.as_of_ms, now_ms)
                return Page(items, here, scanned, len(items) < ask.limit)
            got: Scanned = yield Run(queue.scan(replace(scan, want=ask.limit - len(items), cost=left)))
            views = (view(id_, queue.name, where) for id_, where in got.found)
            items += [seen for seen in views if filter.matches(seen)]
            scanned += got.looked
            purse.called(got.cost)
            if not got.source:
                break
            scan = replace(scan, source=got.source, position=got.position, as_of_ms=got.as_of_ms)
        purse.passed(QUEUE_COST)
    return Page(items, None, scanned, False)


def _remaining(
    queues: Sequence[Queue], filter: Filter, cursor: Position | None, now_ms: int
) -> list[tuple[Queue, Position]]:
    """The queues that are still to be looked through, and where each begins."""
    wanted = sorted((each for each in queues if not filter.queues or each.name in filter.queues), key=lambda q: q.name)
    rest = [each for each in wanted if cursor is None or each.name >= cursor.queue]
    starts = (
        cursor if cursor and each.name == cursor.queue else Position(each.name, "", b"", None, now_ms) for each in rest
    )
    return list(zip(rest, starts, strict=True))


def _scan(filter: Filter, payloads: bool, start: Position) -> Scan:
    return Scan(
        sources=sources_of(filter),
        source=start.source,
        position=start.at,
        as_of_ms=start.as_of_ms,
        since_ms=filter.since.ms if filter.since else 0,
        until_ms=filter.until.ms if filter.until else None,
        states=tuple(filter.states or State),
        payloads=payloads or bool(filter.args),
        words=_words(filter),
        values=_values(filter),
        signs=tuple(sign.lower() for text in _error_texts(filter) if (sign := _sure(text, _UNSURE_SIGN))),
    )


_WAITING: Final = tuple(f"w{digit}" for digit in STREAMS)
_CLAIMED: Final = tuple(f"c{digit}" for digit in STREAMS)
_LIES: Final[dict[State, tuple[str, ...]]] = {
    State.SCHEDULED: ("z",),
    State.RETRYING: ("z",),
    State.PARKED: ("p",),
    State.PENDING: _WAITING,
    State.PROCESSING: _CLAIMED,
    State.FAILED: ("d",),
    State.COMPLETED: ("j",),
    State.CANCELLED: ("j",),
}
_ORDER: Final = ("z", "p", *_WAITING, *_CLAIMED, "d", "j")


def sources_of(filter: Filter) -> tuple[str, ...]:
    """Where tasks of these states lie, in the order of the list."""
    places = {place for state in filter.states or State for place in _LIES[state]}
    return tuple(place for place in _ORDER if place in places)


_UNSURE: Final = re.compile(r'[\x00-\x1f\x7f"\\/]')
"""What JSON may write in several ways, apart from \\u, which the script knows."""
_UNSURE_SIGN: Final = re.compile(r'[^\x20-\x7e]|["\\/:]')
"""Of case, the script knows only that of ASCII; and `class: message` are two texts there."""


def _sure(text: str, unsure: re.Pattern[str]) -> str:
    """The longest part of a text that every JSON of it holds as it is; '' if there is none."""
    return max((part.strip() for part in unsure.split(text)), key=len)


def _words(filter: Filter) -> tuple[str, ...]:
    alone = len(filter.types) == 1 and not filter.types[0].endswith("*")
    types = [f'"t":"{filter.types[0]}"'] if alone else []
    return (*types, *(f'"{tag}"' for tag in filter.tags))


def _values(filter: Filter) -> tuple[str, ...]:
    texts = [text for each in filter.args for text in (_key(each), each.value)]
    return tuple(sure for text in texts if (sure := _sure(text, _UNSURE)))


def _error_texts(filter: Filter) -> Iterator[str]:
    """What a wanted task says of its last error. (A crash says nothing, which the script knows.)"""
    yield from filter.errors
    if len(filter.exceptions) == 1:
        yield filter.exceptions[0]
    if len(filter.places) == 1 and filter.places[0] != NOWHERE:
        path, _, function = filter.places[0].rpartition(":")
        yield from (path.rpartition("/")[2], f"in {function}")


def _key(argument: Argument) -> str:
    """The innermost key; what is a number may be a place in a list instead."""
    return "" if argument.path[-1].lstrip("-").isdigit() else argument.path[-1]


async def queues_of(client: Commander, namespace: str) -> list[Queue]:
    """All queues of a namespace, by name. Raises StoreUnavailable, RedisError."""
    names = await client.command("SMEMBERS", NamespaceKeys(namespace)["queues"])
    return [Queue(name, namespace) for name in sorted(each.decode() for each in names)]
