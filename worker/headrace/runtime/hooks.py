"""`on_failure`: what an application wants done when a task of its own has ended in the dead letter."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.broker.broker import Report
from headrace.context import Ctx, current_ctx
from headrace.errors import TaskFailed
from headrace.runtime import attempt as attempts
from headrace.runtime.attempt import Ending, Running
from headrace.runtime.threads import ThreadSlots

if TYPE_CHECKING:
    from headrace.taskdef import OnFailure

logger = logging.getLogger("headrace.attempt")

THREADS: Final = 16
"""Synchronous hooks that run at once; the others wait."""
LEAVE_S: Final = 5.0
"""A worker that stops waits so long for hooks that still run."""


class FailureHooks:
    """Of one worker, in its event loop. A hook runs once Redis has accepted the report; its own errors are logged."""

    def __init__(self) -> None:
        self.deps: Any = None
        self._expected: dict[str, tuple[Running, BaseException]] = {}
        """By task: reports of final failures that are on their way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: ThreadSlots | None = None

    def expect(self, run: Running, ending: Ending, error: BaseException | None) -> None:
        """The final failure of a task is about to be reported."""
        if run.definition is None or run.definition.on_failure is None:
            return
        failure = ending.failure
        if error is None:  # it never began: its payload does not fit
            error = TaskFailed(run.envelope.id, failure.type if failure else "", failure.message if failure else "")
        self._expected[run.envelope.id] = (run, error)

    def answered(self, reports: Sequence[Report], verdicts: dict[bytes, bytes]) -> None:
        """Reports were answered; those without a verdict, or with `dup`, were accepted."""
        if not self._expected:
            return
        for report in reports:
            told = self._expected.pop(report.id, None)
            if told is not None and verdicts.get(report.place, b"dup") == b"dup":
                task = asyncio.get_running_loop().create_task(self._call(*told))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _call(self, run: Running, error: BaseException) -> None:
        definition = run.definition
        assert definition is not None and definition.on_failure is not None
        ctx = run.ctx or msgspec.structs.replace(attempts.unstarted(run), deps=self.deps)
        current_ctx.set(ctx)
        try:
            async with asyncio.timeout(definition.soft_timeout_s):
                await self._tell(definition.on_failure, ctx, error)
        except GeneratorExit:  # this coroutine is closed
            raise
        except BaseException as raised:  # it is the application's, and the task has ended
            if isinstance(raised, asyncio.CancelledError) and _is_cancelled():
                logger.warning("on_failure of %s was still running when the worker ended", ctx.type, extra={"ctx": ctx})
                raise
            logger.exception("on_failure of %s raised; the task stays failed", ctx.type, extra={"ctx": ctx})

    async def _tell(self, hook: OnFailure, ctx: Ctx[Any], error: BaseException) -> None:
        if inspect.iscoroutinefunction(hook):
            await hook(ctx, error)
            return
        given = await self._in_thread(partial(hook, ctx, error))
        if inspect.isawaitable(given):  # of an object, a lambda or a decorator, which do not look like one
            await given

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Not one of asyncio's, which are few: hooks that hang would leave none to look up Redis' name by."""
        self._threads = self._threads or ThreadSlots(asyncio.get_running_loop(), THREADS, "headrace-hook")
        result, error = await self._threads.outcome(partial(copy_context().run, work))
        if error is not None:
            raise error
        return result

    async def settle(self) -> None:
        """Wait for those that run."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Wait a little for those that run, then cancel them."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVE_S)
        for task in self._tasks:
            task.cancel()
        if self._threads is not None:
            self._threads.close()


def _is_cancelled() -> bool:
    """Whether somebody asked for it: a hook may raise CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
