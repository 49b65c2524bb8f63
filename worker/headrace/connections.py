"""The connections of one App: none until something is asked, one for synchronous callers, one for each event loop.

The clients are imported when the first of them is needed: redis-py takes longer to import than a worker may take to
start, and most workers submit nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from headrace.broker.broker import TaskView
from headrace.client import Client, Steps, drive, drive_async
from headrace.redis_settings import RedisSettings
from headrace.settings import ClientSettings

if TYPE_CHECKING:
    from headrace.broker.client import AsyncClient
    from headrace.broker.sync_client import SyncClient
    from headrace.journal import JournalWatch

R = TypeVar("R")


@dataclass
class _Loop:
    """What belongs to one event loop."""

    client: AsyncClient
    watches: dict[str, JournalWatch] = field(default_factory=dict)


class Connections:
    """Finds Redis and the settings when first used; carries out a client's steps for either kind of caller."""

    def __init__(self, url: str | None, namespace: str | None, environ: Mapping[str, str] = os.environ) -> None:
        self._url = url
        self._namespace = namespace
        self._environ = environ
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._redis: RedisSettings | None = None
        self._sync: SyncClient | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()

    def client(self) -> Client:
        """The rules and settings. Raises ConfigError."""
        return self._prepare()[0]

    def _prepare(self) -> tuple[Client, RedisSettings]:
        with self._lock:
            if self._client is None or self._redis is None:
                self._redis = RedisSettings.from_env(self._environ, self._url)
                self._client = Client(ClientSettings.from_env(self._environ, namespace=self._namespace))
            return self._client, self._redis

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
        return await drive_async(make(client), self._here().client, client.settings, asyncio.sleep)

    async def wait(self, queue: str, task_id: str, timeout_s: float | None) -> TaskView:
        """The task once it has ended, told by the queue's journal. Raises as Client.wait does."""
        from headrace.journal import LOOK_S, JournalWatch, news

        client, redis = self._prepare()
        here = self._here()
        if queue not in here.watches:
            here.watches[queue] = JournalWatch(redis, client.queue(queue).keys)
        async with here.watches[queue].of(task_id) as event:
            steps = client.wait(queue, task_id, timeout_s, first_look_s=LOOK_S, last_look_s=LOOK_S)
            return await drive_async(steps, here.client, client.settings, lambda seconds: news(event, seconds))

    def _here(self) -> _Loop:
        from headrace.broker.client import AsyncClient

        _, redis = self._prepare()
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            self._loops[loop] = _Loop(AsyncClient(redis))
        return self._loops[loop]

    def close(self) -> None:
        """Close the connection of synchronous callers; a later call opens another."""
        with self._lock:
            sync, self._sync = self._sync, None
        if sync is not None:
            sync.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and that of synchronous callers."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await asyncio.gather(*(watch.aclose() for watch in here.watches.values()))
            await here.client.aclose()
        self.close()
