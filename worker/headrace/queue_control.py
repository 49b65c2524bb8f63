"""`app.queues`: what programs do to queues; each word for async and for sync callers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from headrace import audit, queues
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.connections import Connections
from headrace.errors import FieldError, HeadraceError, InvalidRequest, UnknownQueue
from headrace.handle import forbid_running_loop
from headrace.queues import QueueState, QueueView

logger = logging.getLogger(__name__)

R = TypeVar("R")
Views = list[QueueView]
Depth = int | None | UnsetType
Rate = str | None | UnsetType


class QueueControl:
    """The queues of an App's namespace: what is in them, pausing, limits of their own.

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

    async def show(self, name: str) -> QueueView:
        """One queue as it is now. Raises UnknownQueue."""
        client, queue = self._of(name)
        return await _look(client, queue)

    def show_sync(self, name: str) -> QueueView:
        """As `show`."""
        return self._apart("show", lambda: self.show(name))

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

    def _of(self, name: str) -> tuple[AsyncClient, Queue]:
        client, settings = self._connections.reach()
        try:
            return client, Queue(name, settings.namespace)
        except ValueError:  # no queue can have this name
            raise UnknownQueue(name[:63]) from None

    async def _record(self, client: AsyncClient, queue: Queue, action: str, **detail: int | str | None) -> None:
        entry = audit.Entry(audit.person(f"app {self._app}"), action, queue.name, queue.name, detail={**detail})
        try:
            await audit.record(client, queue.namespace, entry)
        except HeadraceError as error:  # the change is made, and to call it refused would be a lie
            logger.error("The audit log could not be written: %s of %s. %s", action, queue.name, error)

    def _apart(self, word: str, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        forbid_running_loop(f"queues.{word}_sync()", f"await queues.{word}()")
        return self._connections.apart(work)


async def _look(client: AsyncClient, queue: Queue) -> QueueView:
    return await queues.look(client, queue, await queues.serving(client, queue))
