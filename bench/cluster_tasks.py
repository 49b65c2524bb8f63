"""The library's side: tasks that are submitted at their own times, and what became of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from headrace import App
from headrace.broker.broker import TaskView
from headrace.decorator import Task
from headrace.task import State

HEAD_START_S: Final = 0.2
Views = Mapping[str, TaskView | None]
"""Task id → the task as it is at the end; None: its record is gone."""


class Sender:
    """Submits naps, and reads what became of them."""

    def __init__(self, app: App[None], nap: Task[[float], str]) -> None:
        self._app, self._nap = app, nap

    async def at_once(self, seconds: Iterable[float]) -> list[str]:
        """All in one batch. Returns their ids."""
        batch = await self._app.abatch(self._nap.call(each) for each in seconds)
        return [handle.id for handle in batch]

    async def open_loop(self, work: Sequence[tuple[float, float]]) -> dict[str, float]:
        """(second, seconds of work), each at its time, whatever became of others. Returns id → Unix time it was due."""
        start_s = time.time() + HEAD_START_S
        async with asyncio.TaskGroup() as group:
            sent = [group.create_task(self._at(start_s + at_s, seconds)) for at_s, seconds in work]
        return dict(each.result() for each in sent)

    async def ends(self, ids: Iterable[str], patience_s: float) -> Views:
        """Once all have ended, or as they are when the time is up."""
        return await self._app.connections.wait_all(list(ids), patience_s)

    async def _at(self, due_s: float, seconds: float) -> tuple[str, float]:
        await asyncio.sleep(due_s - time.time())
        return (await self._nap.aenqueue(seconds)).id, due_s


@asynccontextmanager
async def sending(url: str) -> AsyncIterator[Sender]:
    """To the queue of the pools, on this Redis."""
    app = App("cluster", url=url)

    @app.task()
    async def nap(seconds: float = 0.0) -> str:
        """As pods have it."""
        raise NotImplementedError

    try:
        yield Sender(app, nap)
    finally:
        await app.aclose()


def waits(due: Mapping[str, float], views: Views) -> list[float]:
    """Seconds from the moment at which each completed task was due to the first line of its handler, in order."""
    return sorted(
        seen.started_ms / 1_000 - due[task_id]
        for task_id, seen in views.items()
        if seen is not None and seen.state is State.COMPLETED and seen.started_ms is not None
    )


def interrupted(views: Views) -> int:
    """Tasks that were handed back, lost their worker, or began more than once."""
    counters = [seen.counters for seen in views.values() if seen is not None]
    return sum(each.attempts > 1 or each.interruptions + each.crashes > 0 for each in counters)


def stuck(views: Views) -> int:
    """Tasks that are not completed."""
    return sum(seen is None or seen.state is not State.COMPLETED for seen in views.values())
