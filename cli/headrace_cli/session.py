"""One namespace of one Redis, for commands that ask it or tell it something, by the same rules as the API.

It is made of the parts of the API that know nothing of HTTP, whose library would double the time a command takes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Final, TypeVar

import click

from headrace import audit
from headrace.broker.broker import Queue, TaskView, view
from headrace.broker.client import AsyncClient
from headrace.connections import Connections
from headrace.errors import UnknownTask
from headrace.journal import JournalWatch
from headrace.queues import named
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace.task import queue_of
from headrace_api.ingest import Door
from headrace_api.overview import Lookout
from headrace_api.registry import Types
from headrace_api.store import Store
from headrace_api.submissions import Desk

from .progress import Waiting

R = TypeVar("R")

PATIENCE_S: Final = 5.0
"""Seconds for an answer of Redis: its machine may be busy with other things. Where none runs, that is told at once."""


class Session:
    """What a command works with. For one event loop."""

    def __init__(self, settings: ApiSettings, redis: RedisSettings) -> None:
        self.settings = settings
        self.store = Store(redis, settings.durability_timeout_s, redis.timeout_s)
        self.types = Types(self.store, settings.namespace)
        self.desk = Desk(settings, self.types)
        self.lookout = Lookout(self.store, settings.namespace)
        self.client = AsyncClient(redis, "headrace-cli")
        """For what the library offers."""
        self.connections = Connections(None, settings.namespace, found=redis)
        """What the library does to single tasks, with its durability."""
        self.redis = redis
        self._doors: dict[str, Door] = {}

    def queue(self, name: str) -> Queue:
        """The transitions of a queue. Raises UnknownQueue for what can be no queue's name."""
        return named(name, self.settings.namespace)

    def door(self, queue: str) -> Door:
        """The way into a queue."""
        if queue not in self._doors:
            self._doors[queue] = Door(self.store, self.queue(queue), self.settings)
        return self._doors[queue]

    def watch(self, queue: str) -> JournalWatch:
        """Tells when tasks of a queue end. To be closed."""
        return JournalWatch(self.redis, self.queue(queue).keys)

    async def look(self, task_id: str) -> TaskView:
        """The task as it is now. Raises UnknownTask, StoreUnavailable."""
        name = queue_of(task_id)
        found = await self.store.read(self.queue(name).get(task_id)) if name is not None else None
        if name is None or found is None:
            raise UnknownTask(task_id)
        return view(task_id, name, found)

    async def record(self, action: str, target: str, queue: str, **detail: str | int | bool | None) -> None:
        """Write into the audit log what this command did."""
        entry = audit.Entry(audit.person(), action, target, queue, detail=dict(detail))
        await audit.record(self.client, self.settings.namespace, entry)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.types.aclose()
        await self.lookout.aclose()
        await self.client.aclose()
        await self.connections.aclose()
        await self.store.aclose()


@asynccontextmanager
async def _open(url: str | None, namespace: str | None, patience_s: float) -> AsyncIterator[Session]:
    # The address is of no interest here, but settings of an API that lets in everyone would be refused.
    settings = ApiSettings.from_env(os.environ, host="127.0.0.1", namespace=namespace)
    found = RedisSettings.from_env(os.environ, url)
    # What a connection that fails says is heard before all that waits for it gives up.
    session = Session(settings, replace(found, connect_timeout_s=0.9 * patience_s, timeout_s=patience_s))
    try:
        # Its errors name the server and the setting that it came from.
        await session.store.connection()
        yield session
    finally:
        await session.aclose()


def run(work: Callable[[Session], Awaitable[R]], patience_s: float = PATIENCE_S) -> R:
    """Carry out a command's work with what its options say."""
    with opened(patience_s) as (session, runner):
        return runner.run(_awaited(work(session)))


async def _awaited(work: Awaitable[R]) -> R:
    return await work


@contextmanager
def opened(patience_s: float = PATIENCE_S) -> Iterator[tuple[Session, asyncio.Runner]]:
    """A session with the loop it belongs to, for a command that waits for something else (its input) in between."""
    # What it would log of an error, the command says.
    logging.getLogger("headrace_api").setLevel(logging.CRITICAL)
    options = click.get_current_context().params
    with asyncio.Runner() as runner:
        opening = _open(options.get("url"), options.get("namespace"), patience_s)
        with Waiting("connecting to Redis"):
            session = runner.run(opening.__aenter__())
        try:
            yield session, runner
        finally:
            runner.run(opening.__aexit__(None, None, None))
