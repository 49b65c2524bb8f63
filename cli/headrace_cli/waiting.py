"""Waiting until tasks have ended: one by its queue's journal, many by asking for some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from headrace.errors import ResultTimeout, TaskCancelled, TaskFailed, UnknownTask
from headrace.journal import news
from headrace.task import TERMINAL, queue_of

from .progress import Waiting

if TYPE_CHECKING:
    from headrace.broker.broker import TaskView

    from .progress import Bar
    from .session import Session

__all__ = ["end_of", "ends_of", "result_of"]

AT_ONCE: Final = 200
"""Tasks asked for in one go."""
PAUSE_S: Final = 0.2
"""Seconds until those are asked for again of whom none had ended."""


async def end_of(session: Session, task_id: str, timeout_s: float) -> TaskView:
    """The task when it has ended. Raises ResultTimeout, UnknownTask."""
    watch = session.watch(queue_of(task_id) or "default")
    try:
        with Waiting(f"waiting for {task_id}"):
            async with asyncio.timeout(timeout_s), watch.of(task_id) as event:
                while (seen := await session.look(task_id)).state not in TERMINAL:
                    await news(event)
                return seen
    except TimeoutError:
        seen = await session.look(task_id)
        raise ResultTimeout(task_id, timeout_s, seen.state) from None
    finally:
        await watch.aclose()


async def ends_of(
    session: Session, ids: Sequence[str], timeout_s: float, told: Callable[[str, TaskView | None], None], bar: Bar
) -> list[str]:
    """Call `told` with each task as it ends (None: no longer known). Returns the ids that have not ended by then.
    `told` moves the bar on; here it is told that time passes.

    Those that were submitted first are asked for first, since they mostly end first.
    """
    left = list(dict.fromkeys(ids))
    clock = asyncio.get_running_loop().time
    give_up = clock() + timeout_s
    while left and clock() < give_up:
        some, rest = left[:AT_ONCE], left[AT_ONCE:]
        seen = await asyncio.gather(*(_look(session, name) for name in some))
        waiting = []
        for name, task in zip(some, seen, strict=True):
            if task is None or task.state in TERMINAL:
                told(name, task)
            else:
                waiting.append(name)
        bar.beat()
        left = [*rest, *waiting] if len(waiting) == len(some) else [*waiting, *rest]
        if len(waiting) == len(some):
            await asyncio.sleep(min(PAUSE_S, max(0.0, give_up - clock())))
    return left


async def _look(session: Session, task_id: str) -> TaskView | None:
    try:
        return await session.look(task_id)
    except UnknownTask:
        return None


def result_of(seen: TaskView) -> str:
    """The result of an ended task as JSON. Raises TaskFailed, TaskCancelled."""
    if seen.state == "completed":
        return "null" if seen.result is None else bytes(seen.result).decode()
    if seen.state == "cancelled":
        raise TaskCancelled(seen.id)
    last = seen.attempts[-1] if seen.attempts else None
    if last is not None and last.error is not None:
        raise TaskFailed(seen.id, last.error.type, last.error.message)
    raise TaskFailed(seen.id, last.outcome if last else "unknown", (last and last.cause) or "no error was recorded")
