"""Waiting for the end of many tasks: each is looked at once before, and once after the journal told of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from headrace.broker.broker import MAX_ITEMS, TaskView
from headrace.connections import Views
from headrace.errors import UnknownTask
from headrace.journal import LOOK_S, Ends, JournalWatch
from headrace.task import TERMINAL, queue_of

Look = Callable[[str, Sequence[str], float | None], Awaitable[Views]]
"""(queue, ids, when to give up by the monotonic clock, or None) → these tasks as they are now."""


async def until_ended(
    task_ids: Sequence[str],
    timeout_s: float | None,
    watch: Callable[[str], JournalWatch],
    look: Look,
) -> Views:
    """These tasks, once all have ended or after `timeout_s` seconds (None: as long as it takes).

    Raises UnknownTask for a text that is no id, and what `look` raises.
    """
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    found = await asyncio.gather(
        *(_of_queue(queue, ids, give_up, watch(queue), look) for queue, ids in by_queue(task_ids).items())
    )
    return {task_id: seen for views in found for task_id, seen in views.items()}


def by_queue(task_ids: Iterable[str]) -> Mapping[str, list[str]]:
    """Queue → which of these ids belong to it, each once. Raises UnknownTask."""
    queues: dict[str, dict[str, None]] = {}
    for task_id in task_ids:
        queue = queue_of(task_id)
        if queue is None:
            raise UnknownTask(task_id)
        queues.setdefault(queue, {})[task_id] = None
    return {queue: list(ids) for queue, ids in queues.items()}


async def _of_queue(queue: str, ids: Sequence[str], give_up: float | None, watch: JournalWatch, look: Look) -> Views:
    async with watch.of_each(ids, _left(give_up)) as ends:
        views = await _look_at(queue, ids, give_up, look)
        while open_ids := [task_id for task_id in ids if not _is_over(views[task_id])]:
            left = _left(give_up)
            if left is not None and left <= 0:
                break
            told = await _told(ends, LOOK_S if left is None else min(LOOK_S, left))
            # Without news all are looked at, since the journal is history that may be cut.
            news = [task_id for task_id in open_ids if task_id in told] if told else open_ids
            views |= await _look_at(queue, news, give_up, look)
        return views


async def _look_at(queue: str, ids: Sequence[str], give_up: float | None, look: Look) -> Views:
    """In slices, for a script holds Redis, and a reply waits in its memory until it was read."""
    views: Views = {}
    for start in range(0, len(ids), MAX_ITEMS):
        views |= await look(queue, ids[start : start + MAX_ITEMS], give_up)
    return views


def _left(give_up: float | None) -> float | None:
    """Seconds."""
    return None if give_up is None else give_up - time.monotonic()


def _is_over(seen: TaskView | None) -> bool:
    return seen is None or seen.state in TERMINAL


async def _told(ends: Ends, patience_s: float) -> set[str]:
    """Who ended, as soon as somebody did; nobody after so many seconds."""
    try:
        async with asyncio.timeout(patience_s):
            await ends.news.wait()
    except TimeoutError:
        return set()
    ends.news.clear()
    return ends.take()
