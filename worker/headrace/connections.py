"""The connections of one App: none until something is asked, one for synchronous callers, one for each event loop.

The clients are imported when the first of them is needed: redis-py takes longer to import than a worker may take to
start, and most workers submit nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from weakref import WeakKeyDictionary

from msgspec import structs

from headrace.broker.broker import NewTask, Submitted, TaskView
from headrace.broker.group_commit import GroupCommit
from headrace.broker.single_flight import SingleFlight
from headrace.client import Client, Enter, Run, Steps, drive, drive_async
from headrace.redis_settings import RedisSettings
from headrace.settings import ClientSettings, Local
from headrace.task import TERMINAL

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.broker.client import AsyncClient
    from headrace.broker.sync_client import SyncClient
    from headrace.journal import JournalWatch
    from headrace.watching import Watchers

R = TypeVar("R")

CHANGES_S: Final = 0.25
"""Seconds between two looks at a task that is watched; its end is told at once."""

Views = dict[str, TaskView | None]
"""Task id → the task as it was seen; None: unknown."""


@dataclass
class _Loop:
    """What belongs to one event loop."""

    client: AsyncClient
    settings: ClientSettings
    watches: dict[str, JournalWatch] = field(default_factory=dict)
    watchers: Watchers | None = None
    _doors: dict[str, GroupCommit] = field(default_factory=dict)
    """By queue."""
    _shared: SingleFlight[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._shared = SingleFlight(str(self.client.settings))

    async def run(self, step: Run) -> Any:
        """Carry out one call."""
        if step.shared:
            # One by one each would wait for the disk in turn, on the one connection that all have.
            return await self._shared.share((step.call.script.name, step.durability), partial(self._call, step))
        return await self._call(step)

    async def _call(self, step: Run) -> Any:
        limit = None if isinstance(step.durability, Local) else self.settings.durability_timeout_s
        return await self.client.call(step.call, step.durability, timeout_s=limit)

    async def enter(self, step: Enter) -> list[Submitted]:
        """Submit, together with whoever else does in this loop."""
        door = self._doors.get(step.queue.name)
        if door is None:
            door = self._doors[step.queue.name] = GroupCommit(partial(self._send, step), str(self.client.settings))
        return await door.submit(step.tasks)

    async def _send(self, like: Enter, tasks: list[NewTask], began: float) -> list[Submitted]:
        answers: list[Submitted] = await self._call(structs.replace(like, tasks=tasks).alone())
        return answers

    def abandon(self) -> None:
        """Its event loop is closed."""
        self.client.abandon()
        for watch in self.watches.values():
            watch.abandon()

    async def aclose(self) -> None:
        """Close the connections, when what was submitted is stored."""
        await self._shared.aclose()
        await asyncio.gather(*(door.aclose() for door in self._doors.values()))
        await asyncio.gather(*(watch.aclose() for watch in self.watches.values()))
        if self.watchers is not None:
            await self.watchers.aclose()
        await self.client.aclose()


class Connections:
    """Finds Redis and the settings when first used; carries out a client's steps for either kind of caller."""

    stand_in: ClassVar[Callable[[App[Any], Connections], Connections] | None] = None
    """What every App of this process uses in place of its own; `headrace.testing` sets it while a test runs."""

    def __init__(
        self,
        url: str | None,
        namespace: str | None,
        environ: Mapping[str, str] = os.environ,
        found: RedisSettings | None = None,
    ) -> None:
        self._url = url
        self._namespace = namespace
        self._environ = environ
        self._redis = found
        self._lock = threading.Lock()
        self._found: tuple[Client, RedisSettings] | None = None
        self._sync: SyncClient | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()

    def client(self) -> Client:
        """The rules and settings. Raises ConfigError."""
        return self._prepare()[0]

    def _prepare(self) -> tuple[Client, RedisSettings]:
        if self._found is None:
            with self._lock:
                if self._found is None:
                    redis = self._redis or RedisSettings.from_env(self._environ, self._url)
                    self._found = Client(ClientSettings.from_env(self._environ, namespace=self._namespace)), redis
        return self._found

    def now_ms(self) -> int:
        """Unix time in ms: when what is submitted now was submitted."""
        return int(time.time() * 1000)

    def run(self, make: Callable[[Client], Steps[R]]) -> R:
        """Carry out steps from synchronous code."""
        from headrace.broker.sync_client import SyncClient

        client, redis = self._prepare()
        with self._lock:
            if self._sync is None:
                self._sync = SyncClient(redis)
        return drive(make(client), self._sync, client.settings)

    async def arun(self, make: Callable[[Client], Steps[R]]) -> R:
        """Carry out steps from asyncio."""
        client, _ = self._prepare()
        return await drive_async(make(client), self._here(), asyncio.sleep)

    async def wait(self, queue: str, task_id: str, timeout_s: float | None) -> TaskView:
        """The task once it has ended, told by the queue's journal. Raises as Client.wait does."""
        from headrace.journal import LOOK_S, news

        client, here = self.client(), self._here()
        async with self._watch(queue).of(task_id, timeout_s) as event:
            steps = client.wait(queue, task_id, timeout_s, first_look_s=LOOK_S, last_look_s=LOOK_S)
            return await drive_async(steps, here, lambda seconds: news(event, seconds))

    def wait_blocking(self, queue: str, task_id: str, timeout_s: float | None) -> TaskView:
        """As `wait`, from synchronous code, which looks now and then."""
        return self.run(lambda client: client.wait(queue, task_id, timeout_s))

    async def changes(self, queue: str, task_id: str) -> AsyncGenerator[TaskView, None]:
        """The task now and whenever it has changed, until it has ended or this loop's connections are closed.

        Raises as Client.look does.
        """
        from headrace.journal import news

        here, before = self._here(), None
        async with self._watch(queue).of(task_id) as event:
            while self._loops.get(asyncio.get_running_loop()) is here:
                seen = await self.arun(lambda client: client.look(queue, task_id))
                if seen != before:
                    yield seen
                if seen.state in TERMINAL:
                    return
                before = seen
                await news(event, CHANGES_S)

    async def wait_all(self, task_ids: Sequence[str], timeout_s: float | None) -> Views:
        """These tasks as they are once all have ended, or when the time is up. Raises StoreUnavailable."""
        from headrace.waiting import until_ended

        async def look(queue: str, ids: Sequence[str], until: float | None) -> Views:
            return await self.arun(lambda client: client.find_all(queue, ids, until))

        return await until_ended(task_ids, timeout_s, self._watch, look)

    def wait_all_blocking(self, task_ids: Sequence[str], timeout_s: float | None) -> Views:
        """As `wait_all`, from synchronous code: by the journal too, in an event loop of its own."""

        return self.apart(lambda: self.wait_all(task_ids, timeout_s))

    def apart(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Carry out what is written for asyncio from synchronous code, in an event loop of its own."""

        async def whole() -> R:
            try:
                return await work()
            finally:
                await self._leave()

        return asyncio.run(whole())

    def reach(self) -> tuple[AsyncClient, ClientSettings]:
        """This event loop's own way to Redis, and the rules, for whoever manages queues and many tasks.

        Raises ConfigError.
        """
        here = self._here()
        return here.client, here.settings

    def watchers(self) -> Watchers:
        """What follows the tasks that end, for this event loop. Raises ConfigError."""
        from headrace.watching import Watchers

        here = self._here()
        if here.watchers is None:
            here.watchers = Watchers(here.client, here.settings.namespace)
        return here.watchers

    def _watch(self, queue: str) -> JournalWatch:
        from headrace.journal import JournalWatch

        client, redis = self._prepare()
        here = self._here()
        if queue not in here.watches:
            here.watches[queue] = JournalWatch(redis, client.queue(queue).keys)
        return here.watches[queue]

    def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            from headrace.broker.client import AsyncClient

            client, redis = self._prepare()
            self._forget_closed()
            with self._lock:
                here = self._loops[loop] = _Loop(AsyncClient(redis), client.settings)
        return here

    def _forget_closed(self) -> None:
        """Programs that enter a new event loop now and then, by asyncio.run, seldom leave it by `aclose`. What belongs
        to a loop holds it, so nothing else would ever close those connections.
        """
        with self._lock:
            gone = [self._loops.pop(loop) for loop in list(self._loops) if loop.is_closed()]
        for each in gone:
            each.abandon()

    def close(self) -> None:
        """Close the connection of synchronous callers; a later call opens another."""
        self._forget_closed()
        with self._lock:
            sync, self._sync = self._sync, None
        if sync is not None:
            sync.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and that of synchronous callers."""
        await self._leave()
        self.close()

    async def _leave(self) -> None:
        with self._lock:
            here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.aclose()
