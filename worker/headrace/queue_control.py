"""`app.queues`: what programs do to queues; each word for async and for sync callers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, Unpack

from msgspec import UNSET, UnsetType

from headrace import audit, queues
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.bulk import BulkJob, Purged, purge_order
from headrace.bulk_order import Ordered, Watched, carry_out, record
from headrace.connections import Connections
from headrace.errors import FieldError, InvalidRequest
from headrace.handle import forbid_running_loop
from headrace.queues import QueueState, QueueView

R = TypeVar("R")
Views = list[QueueView]
Depth = int | None | UnsetType
Rate = str | None | UnsetType


class QueueControl:
    """The queues of an App's namespace: what is in them, pausing, limits of their own, emptying.

    Everything here raises StoreUnavailable and RedisError, whatever names a queue UnknownQueue, and the sync methods
    WrongCaller in a running event loop. Each change is written into the audit log, as `USER (app NAME)`.
    """

    def __init__(self, connections: Connections, app: str) -> None:
        self._connections = connections
        self._app = app

    async def list(self) -> Views:
        """All queues, by name, as they are now."""
        client, settings = self._connections.reach()
        found = []
        for name in await queues.names(client, settings.namespace):
            queue = Queue(name, settings.namespace)
            seen = await queues.depth(client, queue)
            found.append(queues.describe(name, seen, await queues.serving(client, queue)))
        return found

    def list_sync(self) -> Views:
        """As `list`."""
        return self._apart("list", self.list)

    async def get(self, name: str) -> QueueView:
        """One queue as it is now. Raises UnknownQueue."""
        client, queue = self._of(name)
        return await _look(client, queue)

    def get_sync(self, name: str) -> QueueView:
        """As `get`."""
        return self._apart("get", lambda: self.get(name))

    async def pause(self, name: str) -> QueueState:
        """Nothing more is claimed; running tasks go on, submissions are taken. Raises UnknownQueue."""
        client, queue = self._of(name)
        changed = await queues.pause(client, queue)
        await self._record(client, queue, "queue.pause")
        return QueueState(name, True, changed)

    def pause_sync(self, name: str) -> QueueState:
        """As `pause`."""
        return self._apart("pause", lambda: self.pause(name))

    async def resume(self, name: str) -> QueueState:
        """Tasks are claimed again. Raises UnknownQueue."""
        client, queue = self._of(name)
        changed = await queues.resume(client, queue)
        await self._record(client, queue, "queue.resume")
        return QueueState(name, False, changed)

    def resume_sync(self, name: str) -> QueueState:
        """As `resume`."""
        return self._apart("resume", lambda: self.resume(name))

    async def limit(self, name: str, *, max_depth: Depth = UNSET, rate: Rate = UNSET) -> QueueView:
        """Set how many live tasks it may hold, and the rate of submissions over HTTP, as `100/s`. Returns the queue.

        None takes a limit away, what is not named stays. Raises UnknownQueue, InvalidRequest.
        """
        given = {"max_depth": max_depth, "rate": rate}
        limits = {each: value for each, value in given.items() if not isinstance(value, UnsetType)}
        if not limits:
            raise InvalidRequest([FieldError("", "it names no limit", "give max_depth or rate")])
        client, queue = self._of(name)
        await queues.limit(client, queue, **limits)
        await self._record(client, queue, "queue.limit", **limits)
        return await _look(client, queue)

    def limit_sync(self, name: str, *, max_depth: Depth = UNSET, rate: Rate = UNSET) -> QueueView:
        """As `limit`."""
        return self._apart("limit", lambda: self.limit(name, max_depth=max_depth, rate=rate))

    async def purge(self, name: str, tasks: Purged, **how: Unpack[Watched]) -> BulkJob:
        """Cancel all that waits in it (`waiting`), or delete its dead letters (`dead`); running tasks go on.

        It is a job as those of `app.bulk`, with `expected_count` and `tell`. Raises as they do, and UnknownQueue.
        """
        client, queue = self._of(name)
        await queues.require(client, queue)
        order = purge_order(name, tasks, self._who())
        entry = audit.Entry(order.who, "queue.purge", name, name, detail={"tasks": tasks})
        return await carry_out(self._connections, Ordered(order, entry, how.get("expected_count"), how.get("tell")))

    def purge_sync(self, name: str, tasks: Purged, **how: Unpack[Watched]) -> BulkJob:
        """As `purge`."""
        return self._apart("purge", lambda: self.purge(name, tasks, **how))

    def _who(self) -> str:
        return audit.person(f"app {self._app}")

    def _of(self, name: str) -> tuple[AsyncClient, Queue]:
        client, settings = self._connections.reach()
        return client, queues.named(name, settings.namespace)

    async def _record(self, client: AsyncClient, queue: Queue, action: str, **detail: int | str | None) -> None:
        entry = audit.Entry(self._who(), action, queue.name, queue.name, detail={**detail})
        await record(client, queue.namespace, entry)

    def _apart(self, word: str, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        forbid_running_loop(f"queues.{word}_sync()", f"await queues.{word}()")
        return self._connections.apart(work)


async def _look(client: AsyncClient, queue: Queue) -> QueueView:
    return await queues.look(client, queue, await queues.serving(client, queue))
