"""What handlers say of their progress, on its way to Redis: the latest of each task, all of a queue in one call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from headrace.context import Ctx
from headrace.runtime.attempt import Running
from headrace.task import Progress

FLUSH_S: Final = 0.2
"""Between two calls."""
KEEP_S: Final = 60
"""What nobody writes again for so long is forgotten by Redis; what still runs is written again in half of it."""
ENDED: Final = b""
"""Written in the place of an attempt that has ended."""

Rows = list[bytes | str]
"""Flat: id, JSON of its Progress or ENDED, …"""
_encode: Final = msgspec.json.Encoder().encode


class ProgressNotes:
    """Of one worker. `note` may be called from any thread, `due` belongs to the event loop."""

    def __init__(self) -> None:
        self._new: dict[str, tuple[Ctx[Any], Progress]] = {}
        self._known: dict[str, tuple[Ctx[Any], Progress]] = {}
        """What Redis was told last of what runs."""
        self._flushed = -KEEP_S * 1.0
        self._renewed = 0.0

    def note(self, ctx: Ctx[Any], progress: Progress) -> None:
        """This attempt is so far."""
        self._new[ctx.id] = (ctx, progress)

    def due(self, now: float, running: Iterable[Running]) -> dict[str, Rows]:
        """What to write now, by queue; nothing most of the time. `now` is a monotonic time in seconds."""
        if not (self._new or self._known) or now - self._flushed < FLUSH_S:
            return {}
        self._flushed = now
        running_now = {id(run.ctx) for run in running}
        rows: dict[str, Rows] = {}
        for task_id, (ctx, progress) in self._changes(now):
            if id(ctx) in running_now:  # else it has ended, or is another worker's
                self._known[task_id] = (ctx, progress)
                rows.setdefault(ctx.queue, []).extend((task_id, _encode(progress)))
        for task_id, (ctx, _) in list(self._known.items()):
            if id(ctx) not in running_now:
                del self._known[task_id]
                rows.setdefault(ctx.queue, []).extend((task_id, ENDED))
        return rows

    def _changes(self, now: float) -> Iterable[tuple[str, tuple[Ctx[Any], Progress]]]:
        changes: dict[str, tuple[Ctx[Any], Progress]] = {}
        if now - self._renewed >= KEEP_S / 2:
            self._renewed = now
            changes.update(self._known)
        while self._new:  # popped one by one, for threads go on writing
            task_id, change = self._new.popitem()
            changes[task_id] = change
        return changes.items()
