"""When due tasks become pending: a promotion as soon as the next one is due by Redis' clock, one at a time a queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.errors import HeadraceError
from headrace.runtime.promoter import promote

AGAIN_S: Final = 0.02
"""Between two promotions of a queue; it bounds what a clock that jumps can cost."""
LATE_MS: Final = 2_000.0
"""A beat that was handed on late shows a clock that lags by less than that; a clock that was set, by more."""


class Promotions:
    """Plans the next promotion of each queue, and carries it out. Everything here runs in the event loop."""

    def __init__(self, client: AsyncClient, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._client = client
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._offset_ms = time.time() * 1000 - self._loop.time() * 1000
        """Redis' clock minus the loop's."""
        self._planned: dict[str, asyncio.TimerHandle] = {}
        self._running: dict[str, int | None] = {}
        """Queues whose promotion is out, with the earliest due time that was told meanwhile."""
        self._rests: dict[str, float] = {}
        """Loop time before which a queue is not promoted again."""

    def now_ms(self) -> int:
        """Redis' time, as far as it is known here."""
        return int(self._offset_ms + self._loop.time() * 1000)

    def learn(self, now_ms: int) -> None:
        """Redis said that it was so late. The answer may have waited for the loop, so the clock seems to lag."""
        seen = now_ms - self._loop.time() * 1000
        lag = self._offset_ms - seen
        self._offset_ms = self._offset_ms - 1 if 1 < lag < LATE_MS else seen

    def plan(self, queue: Queue, due_ms: int) -> None:
        """Promote at that time of Redis' clock, unless an earlier promotion is planned."""
        name = queue.name
        if name in self._running:
            told = self._running[name]
            self._running[name] = due_ms if told is None else min(told, due_ms)
            return
        when = max(self._loop.time(), self._rests.get(name, 0.0), (due_ms - self._offset_ms) / 1000 + 0.001)
        planned = self._planned.get(name)
        if planned is not None:
            if planned.when() <= when:
                return
            planned.cancel()
        self._planned[name] = self._loop.call_at(when, self._start, queue)

    def close(self) -> None:
        """Promote no more."""
        for handle in self._planned.values():
            handle.cancel()
        self._planned.clear()

    def _start(self, queue: Queue) -> None:
        del self._planned[queue.name]
        self._running[queue.name] = None
        self._spawn(self._promote(queue))

    async def _promote(self, queue: Queue) -> None:
        try:
            next_due = await promote(self._client, queue)
        except HeadraceError:
            next_due = None  # the next beat tells the due time again
        finally:
            told = self._running.pop(queue.name)
            self._rests[queue.name] = self._loop.time() + AGAIN_S
        due = min((each for each in (next_due, told) if each is not None), default=None)
        if due is not None:
            self.plan(queue, due)
