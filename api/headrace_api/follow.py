"""Tasks that somebody follows: looked at together, four times a second, however many follow them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from headrace.broker.broker import MAX_ITEMS, Found, TaskView, view
from headrace.errors import HeadraceError, UnknownTask
from headrace.task import queue_of

from .store import Store, queue_of_namespace

EVERY_S: Final = 0.25
AGAIN_S: Final = 1.0
"""Seconds until Redis is asked again that was away."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A task as it was seen."""

    task: TaskView
    version: str
    """Another one when its place, its state or its attempts have changed."""
    tag: str
    """As `version`, and another one when its progress has changed."""


def sight(task_id: str, queue: str, found: Found) -> Sight:
    """What `get` found, readable. When an attempt began is no part of the version: it is measured anew each time."""
    digest = blake2b(f"{found.place} {found.worker} {found.due_ms} ".encode(), digest_size=12)
    digest.update(found.carried or found.text)
    version = digest.hexdigest()
    tag = f"{version}.{zlib.crc32(found.progress):x}" if found.progress else version
    return Sight(view(task_id, queue, found), version, tag)


@dataclass(eq=False, slots=True)
class Follower:
    """Somebody who follows one task."""

    seen: Sight | None
    """None = it is no longer known."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, seen: Sight | None) -> None:
        """It is so now."""
        before, self.seen = self.seen, seen
        if (before and before.tag) != (seen and seen.tag):
            self.news.set()


class Follow:
    """Who follows which task of one namespace. For one event loop; it looks only while somebody follows."""

    def __init__(self, store: Store, namespace: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._store = store
        self._namespace = namespace
        self._sleep = sleep
        self._followers: dict[str, list[Follower]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def task(self, seen: Sight) -> Iterator[Follower]:
        """Be told when this task is no longer as it was seen."""
        task_id, follower = seen.task.id, Follower(seen)
        self._followers.setdefault(task_id, []).append(follower)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="headrace-follow")
        try:
            yield follower
        finally:
            self._followers[task_id].remove(follower)
            if not self._followers[task_id]:
                del self._followers[task_id]

    async def _look(self) -> None:
        await self._sleep(EVERY_S)
        while self._followers:
            try:
                async for task_id, seen in self._sights():
                    for follower in self._followers.get(task_id, ()):
                        follower.tell(seen)
            except HeadraceError:
                await self._sleep(AGAIN_S)  # the store counts and logs it
            await self._sleep(EVERY_S)

    async def _sights(self) -> AsyncIterator[tuple[str, Sight | None]]:
        queues: dict[str, list[str]] = {}
        for task_id in self._followers:
            queues.setdefault(_queue(task_id), []).append(task_id)
        for name, ids in queues.items():
            for start in range(0, len(ids), MAX_ITEMS):
                some = ids[start : start + MAX_ITEMS]
                found = await self._store.read(queue_of_namespace(self._namespace, name).find(some))
                for task_id, each in zip(some, found, strict=True):
                    yield task_id, sight(task_id, name, each) if each else None

    def let_go(self) -> None:
        """Wake all who follow a task."""
        for followers in self._followers.values():
            for follower in followers:
                follower.news.set()

    async def aclose(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


def _queue(task_id: str) -> str:
    name = queue_of(task_id)
    if name is None:
        raise UnknownTask(task_id[:100])
    return name
