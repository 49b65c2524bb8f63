"""What the routes work with: the settings, Redis, and per namespace the doors, the types and the waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiohttp import web

from headrace.broker.broker import Queue, Submitted, TaskView
from headrace.broker.safety import Safety
from headrace.errors import UnknownTask
from headrace.journal import JournalWatch
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings, ApiToken
from headrace.task import queue_of

from .auditing import Auditor
from .auth import Guard, require_queue
from .bulk_driver import Bulks
from .connections import Connections
from .follow import Follow, Sight, sight
from .hub import Hub
from .idempotency import Keys
from .ingest import Door
from .limits import Limits
from .metrics import Metrics
from .overview import Lookout
from .registry import Types
from .store import Store, queue_of_namespace
from .submissions import Accepted, Desk


class Request(msgspec.Struct, frozen=True):
    """A request that was let in."""

    http: web.Request
    caller: ApiToken
    id: str

    @property
    def sees_all(self) -> bool:
        """Whether its token is limited to no queues."""
        return self.caller.sees_all

    def may(self, queue: str) -> bool:
        """Whether its token covers this queue: lists leave out the others."""
        return self.caller.may(queue)

    def require_queue(self, queue: str) -> str:
        """The queue, to be asked before Redis is, so that the answer tells nothing of what exists.

        Raises HttpProblem (403) if the token does not cover it.
        """
        return require_queue(self.caller, queue)

    def require_id(self, task_id: str) -> str:
        """The queue that an id names. Raises UnknownTask for a text that is no id, HttpProblem (403)."""
        name = queue_of(task_id)
        if name is None:
            raise UnknownTask(task_id[:100])
        return require_queue(self.caller, name)


class Namespace:
    """One tenant's part of the API."""

    def __init__(self, name: str, services: Services) -> None:
        self.name = name
        self.settings = services.settings
        self._services = services
        self.types = Types(services.store, name)
        self.desk = Desk(services.settings, self.types)
        self.keys = Keys(services.store, name)
        self.lookout = Lookout(services.store, name)
        self.hub = Hub(services.redis, services.store, name, self.lookout)
        self.follow = Follow(services.store, name)
        self._doors: dict[str, Door] = {}
        self._watches: dict[str, JournalWatch] = {}
        self._waits: Counter[str] = Counter()

    def queue(self, name: str) -> Queue:
        """The transitions of a queue. Raises UnknownQueue for what can be no queue's name."""
        return queue_of_namespace(self.name, name)

    def door(self, queue: str) -> Door:
        """The way into a queue; as many as a namespace may have queues are kept."""
        door = self._doors.get(queue)
        if door is None:
            services = self._services
            if len(self._doors) >= services.settings.max_queues:
                self._forget_idle_doors()
            door = self._doors[queue] = Door(services.store, self.queue(queue), services.settings)
        return door

    def store(self, queue: str, tasks: Sequence[Accepted]) -> Awaitable[list[Submitted]]:
        """Store tasks of one queue, all or none; one answer a task. Raises as `Door.submit` does."""
        secret = tasks[0].secret  # of one request: all have an id of its key, or none
        if secret is not None:
            return self._store_under_key(secret, queue, tasks)
        return self.door(queue).submit([each.new for each in tasks])

    async def _store_under_key(self, secret: bytes, queue: str, tasks: Sequence[Accepted]) -> list[Submitted]:
        await self.keys.confirm(secret, self.settings.durability[queue])
        return await self.door(queue).submit([each.new for each in tasks])

    def _forget_idle_doors(self) -> None:
        self._doors = {name: door for name, door in self._doors.items() if door.busy}

    def watch(self, queue: str) -> JournalWatch:
        """Who waits for tasks of a queue that exists."""
        if queue not in self._watches:
            self._watches[queue] = JournalWatch(self._services.redis, self.queue(queue).keys)
        return self._watches[queue]

    def queue_with(self, task_id: str) -> Queue:
        """The queue that an id belongs to. Raises UnknownTask for a text that is no id."""
        name = queue_of(task_id)
        if name is None:
            raise UnknownTask(task_id[:100])
        return self.queue(name)

    @asynccontextmanager
    async def waiting_for(self, task: TaskView) -> AsyncIterator[asyncio.Event]:
        """An event that is set when this task ends. Of the queues nobody waits for only some stay watched."""
        watch = self.watch(task.queue)
        self._waits[task.queue] += 1
        try:
            async with watch.of(task.id) as event:
                yield event
        finally:
            self._waits[task.queue] -= 1
            if len(self._watches) > MAX_IDLE_WATCHES and not self._waits[task.queue]:
                del self._waits[task.queue], self._watches[task.queue]
                await watch.aclose()

    async def look(self, task_id: str) -> TaskView:
        """The task as it is now. Raises UnknownTask, StoreUnavailable."""
        return (await self.sight(task_id)).task

    async def sight(self, task_id: str) -> Sight:
        """As `look`, with what tells whether it has changed."""
        queue = self.queue_with(task_id)
        found = await self._services.store.read(queue.get(task_id))
        if found is None:
            raise UnknownTask(task_id)
        return sight(task_id, queue.name, found)

    async def let_go(self) -> None:
        """Wake all who wait for the end of a task, or follow tasks."""
        self.follow.let_go()
        self.hub.let_go()
        for watch in self._watches.values():
            await watch.aclose()

    async def aclose(self) -> None:
        """Finish what is on its way."""
        await self.let_go()
        for door in self._doors.values():
            await door.aclose()
        await self.keys.aclose()
        await self.types.aclose()
        await self.follow.aclose()
        await self.hub.aclose()
        await self.lookout.aclose()


MAX_IDLE_WATCHES: Final = 32
"""Queues of a namespace whose journal keeps its connection although nobody waits."""


LOOKS_AT_ONCE: Final = 2


@dataclass(slots=True)
class Services:
    """One API process. Made within the event loop that it serves."""

    settings: ApiSettings
    redis: RedisSettings
    store: Store = field(init=False)
    safety: Safety = field(init=False)
    guard: Guard = field(init=False)
    limits: Limits = field(init=False)
    auditor: Auditor = field(init=False)
    bulks: Bulks = field(init=False)
    metrics: Metrics = field(init=False)
    connections: Connections = field(init=False)
    closing: bool = False
    """Set when the process is about to stop."""
    looks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS_AT_ONCE))
    """Of lists: each holds Redis for some milliseconds at a time."""
    _namespaces: dict[str, Namespace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.redis, self.settings.durability_timeout_s)
        self.safety = Safety(self.store.command)
        self.guard = Guard(self.settings)
        self.limits = Limits(self.store)
        self.auditor = Auditor(self.store, self.settings.audit_length)
        self.bulks = Bulks(self)
        self.connections = Connections(self.settings.max_connections, self.settings.max_connections_per_address)
        self.metrics = Metrics(self.store, self.settings.max_depth, self.connections)

    def namespace(self, name: str) -> Namespace:
        """Only of names that a token is bound to, so there are as many as the settings name."""
        found = self._namespaces.get(name)
        if found is None:
            found = self._namespaces[name] = Namespace(name, self)
        return found

    async def let_go(self) -> None:
        """The process stops: waits are answered with what is known, and no longer begun."""
        self.closing = True
        for namespace in self._namespaces.values():
            await namespace.let_go()

    async def aclose(self) -> None:
        """Finish what was accepted, close the connections."""
        self.closing = True
        for namespace in self._namespaces.values():
            await namespace.aclose()
        await self.limits.aclose()
        await self.bulks.aclose()
        await self.auditor.aclose()
        await self.store.aclose()


SERVICES: Final = web.AppKey("headrace_services", Services)
