"""All queues of a namespace at a glance, for stats and metrics: read once a second at most, however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from headrace.broker.broker import Depth
from headrace.broker.keys import NamespaceKeys
from headrace.errors import HeadraceError

from .store import Store, queue_of_namespace

FRESH_S: Final = 1.0
DEAD_AFTER_S: Final = 10.0
"""Seconds without a new beat after which a worker no longer counts as active."""
AT_ONCE: Final = 100
"""Queues asked for in one go."""


@dataclass(frozen=True, slots=True)
class Overview:
    """A namespace as it was a moment ago."""

    depths: Mapping[str, Depth]
    active: frozenset[str]
    """Workers whose beat changes."""
    memory: tuple[int, int] | None = None
    """Bytes that Redis uses, and its limit (0 = none); None where it does not say."""
    serving: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Queue → the active workers that serve it."""

    def total(self, measure: Callable[[Depth], int]) -> int:
        return sum(measure(depth) for depth in self.depths.values())


@dataclass(slots=True)
class _Heard:
    beat: str
    at: float


@dataclass(slots=True)
class Lookout:
    """Reads overviews of one namespace. For one event loop."""

    store: Store
    namespace: str
    clock: Callable[[], float] = time.monotonic
    _last: Overview | None = None
    _read_at: float = float("-inf")
    _heard: dict[str, _Heard] = field(default_factory=dict)
    _reading: asyncio.Task[Overview] | None = None
    _changes: int = 0
    """How often this process changed something."""
    _reading_since: int = 0
    """The number of changes when the reading began."""

    async def look(self) -> Overview:
        """At most a second old, and no older than `forget`. Raises StoreUnavailable, RedisError."""
        wanted = self._changes
        while self._last is None or self.clock() - self._read_at >= FRESH_S:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read(), name="headrace-overview")
                self._reading_since = self._changes
            since = self._reading_since
            seen = await asyncio.shield(self._reading)
            if since >= wanted:
                return seen
        return self._last

    def forget(self) -> None:
        """This process changed something: whoever looks now must see it."""
        self._changes += 1
        self._read_at = float("-inf")

    async def _read(self) -> Overview:
        begun = self._changes
        names = [
            name.decode() for name in await self.store.command("SMEMBERS", NamespaceKeys(self.namespace)["queues"])
        ]
        depths: dict[str, Depth] = {}
        beats: dict[str, dict[str, str]] = {}
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            depths |= zip(some, await asyncio.gather(*map(self._depth, some)), strict=True)
            beats |= zip(some, await asyncio.gather(*map(self._beats, some)), strict=True)
        active = self._active({worker: beat for found in beats.values() for worker, beat in found.items()})
        serving = {name: active & found.keys() for name, found in beats.items()}
        self._last = Overview(depths, active, await self._memory(), serving)
        if begun == self._changes:
            self._read_at = self.clock()
        return self._last

    async def _depth(self, name: str) -> Depth:
        queue = queue_of_namespace(self.namespace, name)
        try:
            return await self.store.read(queue.depth())
        except ValueError:  # a stream without its group: somebody emptied Redis under us
            await self.store.read(queue.init())
            return await self.store.read(queue.depth())

    async def _beats(self, name: str) -> dict[str, str]:
        flat = await self.store.command("HGETALL", queue_of_namespace(self.namespace, name).keys["w"])
        return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}

    def _active(self, beats: Mapping[str, str]) -> frozenset[str]:
        now = self.clock()
        for name, beat in beats.items():
            heard = self._heard.get(name)
            if heard is None or heard.beat != beat:
                self._heard[name] = _Heard(beat, now)
        self._heard = {name: heard for name, heard in self._heard.items() if name in beats}
        alive = (name for name, heard in self._heard.items() if now - heard.at < DEAD_AFTER_S)
        return frozenset(name for name in alive if not beats[name].startswith("?"))

    async def _memory(self) -> tuple[int, int] | None:
        try:
            text = (await self.store.command("INFO", "memory")).decode()
        except HeadraceError:
            return None
        facts = dict(line.partition(":")[::2] for line in text.splitlines())
        try:
            return int(facts["used_memory"]), int(facts["maxmemory"])
        except (KeyError, ValueError):
            return None

    async def aclose(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
