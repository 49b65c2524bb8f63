"""Long-lived coroutines that run async handlers, so that one that does not suspend costs no trip through the loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from contextvars import Context
from typing import Any, Final, Protocol

from headrace.context import current_ctx
from headrace.runtime.attempt import Running

logger = logging.getLogger("headrace.worker")

MAX_WAKING: Final = 2
"""Each woken slot wakes up to so many others, so handlers that suspend fill all slots in a few turns of the loop."""
CLOSE_S: Final = 2.0
"""Cancelled handlers have so long to end; who is still there then is left behind."""


class Handling(Protocol):
    """How a slot begins an attempt and tells its end. No coroutine of ours stands around the handler's: one more, that
    only passes on what is awaited, costs a thirtieth of a no-op task."""

    def begin_in_slot(self, run: Running, slot: asyncio.Task[Any]) -> Awaitable[Any]:
        """What is to be awaited for its result. Raises CancelledError if it was stopped while it waited."""

    def completed(self, run: Running, result: Any) -> None: ...

    def failed(self, run: Running, error: BaseException) -> None: ...


class CoroutineSlots:
    """`number` coroutines that take turns at what is submitted. To be used from the event loop."""

    def __init__(self, number: int, handling: Handling) -> None:
        self.closing = False
        """What runs is cancelled, and left behind if that does not end it."""
        self._handling = handling
        self._ready: deque[Running] = deque()
        self._sleepers: list[asyncio.Future[None]] = []
        self._waking = 0
        """Slots that were woken and have not run since."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        for _ in range(number):
            self._start_one()

    def submit(self, run: Running) -> None:
        """Run it as soon as a slot is free."""
        self._ready.append(run)
        if not self._waking:
            self._wake()

    def _wake(self) -> None:
        """Wake a sleeping slot. Few at a time: one whose handlers do not suspend runs all that is ready by itself,
        and those woken with it would find nothing."""
        while self._sleepers:
            sleeper = self._sleepers.pop()
            if not sleeper.done():
                self._waking += 1
                sleeper.set_result(None)
                return

    async def close(self) -> None:
        """Cancel what runs, and wait a little for its end."""
        self.closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CLOSE_S)
            if stuck:
                logger.warning("%d handlers go on although they were cancelled; they are left behind", len(stuck))

    def _start_one(self) -> None:
        # An empty context, as a thread's: whatever a handler sets in it makes it longer.
        context = Context()
        task = self._loop.create_task(self._slot(context), context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _slot(self, context: Context) -> None:
        current_ctx.set(None)
        clean = len(context)
        ready, handling = self._ready, self._handling
        # Asked once: asyncio.current_task costs a fifth of a no-op task.
        me = asyncio.current_task()
        assert me is not None
        while not self.closing:
            while ready and not self.closing:
                run = ready.popleft()
                if ready and self._waking < MAX_WAKING:
                    self._wake()  # this handler may suspend
                try:
                    try:
                        result = await handling.begin_in_slot(run, me)
                    except GeneratorExit:  # this coroutine is closed
                        raise
                    except BaseException as error:  # it ends the attempt, never the slot
                        if not self._gives_up(run):
                            handling.failed(run, error)
                    else:
                        handling.completed(run, result)
                except Exception:  # a bug of ours, which must not cost the slot as well
                    logger.exception("an attempt could not be told")
                if (me.cancelling() or len(context) != clean) and not self.closing:
                    # The next handler must not see what this one set, nor get what is left of a cancellation.
                    self._start_one()
                    return
                del run
                result = None  # they may be large, and the next attempt far
            if self.closing or not await self._slept():
                return

    async def _slept(self) -> bool:
        """Sleep until there may be something to run. False if the slot was cancelled: another one is there then."""
        sleeper = self._loop.create_future()
        self._sleepers.append(sleeper)
        try:
            await sleeper
        except asyncio.CancelledError:
            # By the end of the slots, or by what a handler left behind: a watchdog that nobody called off.
            if not self.closing:
                self._start_one()
            return False
        finally:
            if not sleeper.cancelled():
                self._waking -= 1
        return True

    def _gives_up(self, run: Running) -> bool:
        """Whether it ends because the slots close, which is no end of the attempt."""
        return self.closing and not run.is_stopped()
