"""Looking at queues and managing them: the same for programs, for commands and for the API.

A caller here is whatever carries out calls and commands: `AsyncClient`, or the API's store.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta

from headrace.broker.broker import Call, Depth, Queue, StreamDepth
from headrace.broker.keys import NamespaceKeys
from headrace.errors import FieldError, InvalidRequest, UnknownQueue, nearest
from headrace.rates import Rate
from headrace.task import MAX_LABEL

R = TypeVar("R")

MAX_MAX_DEPTH: Final = 1_000_000_000
PRIORITIES: Final = {"3": "critical", "2": "high", "1": "medium", "0": "low", "r": "recovered", "s": "suspect"}
"""Stream → what it holds: a priority, what was handed back, what was running when its worker died."""


class Caller(Protocol):
    """Carries out calls and commands. Both raise StoreUnavailable and RedisError."""

    async def call(self, call: Call[R]) -> R: ...

    async def command(self, *args: bytes | str | int) -> Any: ...


class QueueLimits(msgspec.Struct, frozen=True):
    """Limits of one queue, kept in Redis; None = none of its own."""

    max_depth: int | None = None
    """Live tasks: waiting, running and delayed. Without it HEADRACE_MAX_DEPTH holds."""
    rate: str | None = None
    """Submissions over HTTP, as `100/s`."""


class PriorityView(msgspec.Struct, frozen=True):
    """One of the streams of a queue."""

    pending: int
    processing: int
    oldest_s: float | None
    """Seconds since the oldest task that waits came; None = none waits."""


class QueueView(msgspec.Struct, frozen=True):
    """One queue as it is now."""

    queue: str
    pending: int
    processing: int
    scheduled: int
    """Due later: scheduled and retrying."""
    parked: int
    dead_letters: int
    live: int
    """All that are not ended, which `max_depth` bounds."""
    completed: int
    """Ended so since the queue was made, as `failed` and `cancelled`."""
    failed: int
    cancelled: int
    oldest_s: float | None
    """Seconds since the oldest task that waits came; None = none waits."""
    paused: bool
    paused_at: str | None
    """RFC 3339: since when."""
    next_due_at: str | None
    """RFC 3339: when the next scheduled task is due."""
    workers: tuple[str, ...]
    """Those that serve it now."""
    priorities: dict[str, PriorityView]
    limits: QueueLimits


class QueueState(msgspec.Struct, frozen=True):
    """What pausing or resuming made of a queue."""

    queue: str
    paused: bool
    changed: Annotated[bool, Meta(description="false: it was so before")]


def at(ms: int | None) -> str | None:
    """Unix ms as RFC 3339 in UTC; None for no time, and for a number that is none."""
    if ms is None:
        return None
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def describe(name: str, depth: Depth, workers: Iterable[str] = ()) -> QueueView:
    """A queue as its depth shows it."""
    priorities = {label: _priority(depth.streams[digit], depth.now_ms) for digit, label in PRIORITIES.items()}
    ages = [each.oldest_s for each in priorities.values() if each.oldest_s is not None]
    return QueueView(
        queue=name,
        pending=depth.waiting,
        processing=depth.processing,
        scheduled=depth.delayed,
        parked=depth.parked,
        dead_letters=depth.dead,
        live=depth.live,
        completed=depth.ended("completed"),
        failed=depth.ended("failed"),
        cancelled=depth.ended("cancelled"),
        oldest_s=max(ages, default=None),
        paused=depth.paused,
        paused_at=at(depth.paused_ms),
        next_due_at=at(depth.next_due_ms),
        workers=tuple(sorted(workers)),
        priorities=priorities,
        limits=QueueLimits(depth.max_depth, depth.rate),
    )


def _priority(stream: StreamDepth, now_ms: int) -> PriorityView:
    oldest = None if stream.oldest_ms is None else round(max(0, now_ms - stream.oldest_ms) / 1000, 1)
    return PriorityView(stream.waiting, stream.pending, oldest)


def named(name: str, namespace: str) -> Queue:
    """The queue of this name, whether it is there or not. Raises UnknownQueue for what can be no queue's name."""
    try:
        return Queue(name, namespace)
    except ValueError:
        raise UnknownQueue(name[: MAX_LABEL + 1]) from None


async def names(client: Caller, namespace: str) -> list[str]:
    """The queues of a namespace, sorted."""
    return sorted(name.decode() for name in await client.command("SMEMBERS", NamespaceKeys(namespace)["queues"]))


async def require(client: Caller, queue: Queue) -> None:
    """Raises UnknownQueue unless the namespace has this queue: managing one must not make it."""
    if not await client.command("SISMEMBER", NamespaceKeys(queue.namespace)["queues"], queue.name):
        raise UnknownQueue(queue.name, nearest(queue.name, await names(client, queue.namespace)))


async def depth(client: Caller, queue: Queue) -> Depth:
    """How much lies where. A queue that somebody emptied under us is made again."""
    try:
        return await client.call(queue.depth())
    except ValueError:
        await client.call(queue.init())
        return await client.call(queue.depth())


async def look(client: Caller, queue: Queue, workers: Iterable[str] = ()) -> QueueView:
    """The queue as it is now. Raises UnknownQueue."""
    await require(client, queue)
    return describe(queue.name, await depth(client, queue), workers)


async def serving(client: Caller, queue: Queue) -> list[str]:
    """The workers that beat, also if nobody knows for how long they have not any more."""
    seen = await client.call(queue.workers())
    return [each.name for each in seen if each.beat and not each.beat.startswith("?")]


async def pause(client: Caller, queue: Queue) -> bool:
    """Nothing more is claimed; running tasks go on, submissions are taken. Whether that changed anything.

    Raises UnknownQueue.
    """
    await require(client, queue)
    return await client.call(queue.pause(True))


async def resume(client: Caller, queue: Queue) -> bool:
    """Tasks are claimed again. Whether that changed anything. Raises UnknownQueue."""
    await require(client, queue)
    return await client.call(queue.pause(False))


async def limit(client: Caller, queue: Queue, **limits: int | str | None) -> None:
    """Set `max_depth` (tasks) and `rate` (as `100/s`); None clears one, and what is not named stays.

    Raises UnknownQueue, InvalidRequest.
    """
    if errors := [error for name, value in limits.items() if (error := _wrong_limit(name, value))]:
        raise InvalidRequest(errors)
    await require(client, queue)
    given = [part for name, value in limits.items() if value is not None for part in (name, value)]
    cleared = [name for name, value in limits.items() if value is None]
    if given:
        await client.command("HSET", queue.keys["ctl"], *given)
    if cleared:
        await client.command("HDEL", queue.keys["ctl"], *cleared)


def _wrong_limit(name: str, value: int | str | None) -> FieldError | None:
    if value is None:
        return None
    if name == "rate":
        try:
            Rate.parse(str(value))
        except ValueError as error:
            return FieldError("/rate", str(error))
        return None
    if name != "max_depth":
        return FieldError(f"/{name}", "is no limit of a queue", "known are max_depth and rate")
    if isinstance(value, int) and 0 < value <= MAX_MAX_DEPTH:
        return None
    return FieldError("/max_depth", f"is {value}", f"give 1 to {MAX_MAX_DEPTH:,} tasks, or null for HEADRACE_MAX_DEPTH")
