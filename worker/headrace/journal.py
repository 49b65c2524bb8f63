"""Waiting for the end of tasks without asking again and again: one reader of a queue's journal for all who wait.

The journal is history and may be cut, so a wait never rests on it alone: whoever waits looks at the task first, is told
of news here, looks again, and looks now and then even without news.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headrace.broker.client import AsyncClient
from headrace.broker.keys import QueueKeys
from headrace.errors import HeadraceError, StoreUnavailable
from headrace.redis_settings import RedisSettings

logger = logging.getLogger(__name__)

BLOCK_MS: Final = 1_000
LOOK_S: Final = 5.0
"""Seconds without news after which a waiting caller looks by itself."""


class Listener(Protocol):
    """Who is told of one task's end."""

    def set(self) -> None: ...


class Ends:
    """Which of many tasks ended since it was last asked."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._ids: set[str] = set()

    def add(self, task_id: str) -> None:
        self._ids.add(task_id)
        self.news.set()

    def take(self) -> set[str]:
        """Those told since the last call."""
        taken, self._ids = self._ids, set()
        return taken


@dataclass(frozen=True, eq=False, slots=True)
class _End:
    """One of many tasks that somebody waits for."""

    ends: Ends
    task_id: str

    def set(self) -> None:
        self.ends.add(self.task_id)


class JournalWatch:
    """Who waits for which task of one queue. For one event loop; it reads only while somebody waits."""

    def __init__(self, redis: RedisSettings, keys: QueueKeys) -> None:
        self._client = AsyncClient(redis, "headrace-journal")
        self._key = keys["journal"]
        self._waiting: dict[str, list[Listener]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._positioned = asyncio.Event()
        self._last: bytes | str = "0-0"

    @asynccontextmanager
    async def of(self, task_id: str, patience_s: float | None = None) -> AsyncGenerator[asyncio.Event, None]:
        """An event that is set when this task ends. What ended before this began is not told: look first.

        Who has no patience to wait until it listens has to look now and then.
        """
        event = asyncio.Event()
        async with self._listening({task_id: event}, patience_s):
            yield event

    @asynccontextmanager
    async def of_each(self, task_ids: Iterable[str], patience_s: float | None = None) -> AsyncGenerator[Ends, None]:
        """As `of`, for many: which of these tasks end, as it becomes known."""
        ends = Ends()
        async with self._listening({task_id: _End(ends, task_id) for task_id in task_ids}, patience_s):
            yield ends

    @asynccontextmanager
    async def _listening(
        self, listeners: Mapping[str, Listener], patience_s: float | None = None
    ) -> AsyncGenerator[None, None]:
        for task_id, listener in listeners.items():
            self._waiting.setdefault(task_id, []).append(listener)
        try:
            if self._reader is None or self._reader.done():
                self._positioned.clear()
                self._reader = asyncio.create_task(self._read(), name="headrace-journal")
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._positioned.wait()
            yield
        finally:
            for task_id, listener in listeners.items():
                self._waiting[task_id].remove(listener)
                if not self._waiting[task_id]:
                    del self._waiting[task_id]

    async def _read(self) -> None:
        try:
            await self._take_position()
            self._positioned.set()
            while self._waiting:
                await self._read_once()
        except HeadraceError as error:
            logger.warning("The journal cannot be read, so waits look every %g s instead. %s", LOOK_S, error)
        finally:
            self._positioned.set()
            self._tell_all()

    async def _take_position(self) -> None:
        newest = await self._patiently("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        self._last = newest[0][0] if newest else "0-0"

    async def _read_once(self) -> None:
        limit = ("BLOCK", BLOCK_MS, "COUNT", 1_000)
        reply = await self._patiently("XREAD", *limit, "STREAMS", self._key, self._last)
        for _, entries in reply or ():
            for entry_id, fields in entries:
                self._last = entry_id
                self._tell(fields)

    async def _patiently(self, *command: bytes | str | int) -> Any:
        """A command's reply; while Redis is away those who wait look for themselves, and so learn of it."""
        limit = self._client.settings.timeout_s + BLOCK_MS / 1000
        while self._waiting:
            try:
                return await self._client.command(*command, timeout_s=limit)
            except StoreUnavailable:
                self._positioned.set()
                await asyncio.sleep(0.5)
        return None

    def _tell(self, fields: list[bytes]) -> None:
        for line in fields[1].split(b"\n") if fields else ():
            for listener in self._waiting.get(line.partition(b" ")[0].decode("ascii", "replace"), ()):
                listener.set()

    def _tell_all(self) -> None:
        for listeners in self._waiting.values():
            for listener in listeners:
                listener.set()

    def abandon(self) -> None:
        """Its event loop is closed."""
        self._client.abandon()

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._client.aclose()


async def news(event: asyncio.Event, fallback_s: float = LOOK_S) -> None:
    """Wait until the event is set, or so long; clears it."""
    try:
        async with asyncio.timeout(fallback_s):
            await event.wait()
    except TimeoutError:
        return
    event.clear()


__all__ = ["BLOCK_MS", "LOOK_S", "Ends", "JournalWatch", "news"]
