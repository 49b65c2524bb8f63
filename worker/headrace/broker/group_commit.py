"""Submissions on their way into one queue: whoever comes while two calls are out goes together in the next one.

There is no timer: a lone submission waits for nobody, and the busier the way, the larger the groups. Who comes after a
group waits for the end of this turn of the loop, for others will come in it too. A call and its confirmation (fsync,
replicas) are paid once per group; each caller gets its own answers, or an error of its own.

A group takes half of all that waits or is out, and leaves the rest to the other call. If it took all, its callers would
come back together: then Redis has nothing to do while they prepare what comes next, nor they while it stores that.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec

from headrace.errors import DurabilityUnconfirmed, HeadraceError, StoreTimeout, StoreUnavailable

from .broker import NewTask, Submitted

MAX_GROUP: Final = 100
"""Single submissions of one call: they hold Redis for less than a millisecond."""
LEAST_GROUP: Final = 8
"""Of them, if so many wait: a call costs as much as they do."""
MAX_CALLS: Final = 2
"""Calls that may be out at once: while one is carried out, the next is on its way."""
MAX_WAITING: Final = 64 << 20
"""Bytes of tasks that may wait; more are turned away at once."""

Answers = list[Submitted]
Send = Callable[[list[NewTask], float], Awaitable[Answers]]
"""Store tasks by one call, all new ones or none; told the loop's time at which their group set out."""


class _Unit(msgspec.Struct, frozen=True, eq=False):
    """What one caller brings: one task or an atomic batch."""

    tasks: Sequence[NewTask]
    size: int
    """Bytes."""
    answer: asyncio.Future[Answers]


class GroupCommit:
    """The way into one queue of the Redis at `where`, for one event loop."""

    def __init__(self, send: Send, where: str) -> None:
        self._send = send
        self._where = where
        self._waiting: deque[_Unit] = deque()
        self._tasks_waiting = self._bytes_waiting = 0
        self._calls: dict[asyncio.Future[None], int] = {}
        """That are out → tasks of each."""
        self._loop = asyncio.get_running_loop()
        self._wanted = False
        self._crowded = False
        """Whether the last call was of more than one."""

    @property
    def busy(self) -> bool:
        """Whether anything waits here or is on its way."""
        return bool(self._waiting or self._calls)

    async def submit(self, tasks: Sequence[NewTask]) -> Answers:
        """One answer a task. Tasks of one call to this method are stored together or not at all.

        Raises whatever `send` raises, to every caller of that group; StoreTimeout if too much waits already.
        """
        if not self.busy and not self._crowded:
            return await self._submit_alone(tasks)
        size = sum([len(task.envelope) for task in tasks])
        if self._bytes_waiting + size > MAX_WAITING and self._waiting:
            raise StoreTimeout(self._where, f"{len(self._waiting)} requests wait already")
        unit = _Unit(tasks, size, self._loop.create_future())
        self._waiting.append(unit)
        self._tasks_waiting += len(tasks)
        self._bytes_waiting += size
        if not self._wanted:
            # What is submitted in the same turn of the loop goes in the same call.
            self._wanted = True
            self._loop.call_soon(self._start)
        return await unit.answer

    async def _submit_alone(self, tasks: Sequence[NewTask]) -> Answers:
        """Who finds nobody here goes at once: the turns of the loop that it takes to gather a group cost it a third."""
        done = self._loop.create_future()
        self._calls[done] = len(tasks)
        try:
            return await self._send(list(tasks), self._loop.time())
        except HeadraceError as error:
            if isinstance(error, StoreUnavailable):
                self._refuse_waiting(error)
            raise error_for(tasks, error) from error
        finally:
            done.cancel()  # for those who wait for its end it is over, whatever became of it
            self._next(done)

    def _start(self) -> None:
        self._wanted = False
        while self._waiting and len(self._calls) < MAX_CALLS:
            before = self._tasks_waiting
            call = self._loop.create_task(self._carry_out(self._take()))
            self._calls[call] = before - self._tasks_waiting
            call.add_done_callback(self._next)

    def _next(self, call: asyncio.Future[None]) -> None:
        del self._calls[call]
        self._start()

    def _take(self) -> list[_Unit]:
        share = math.ceil((self._tasks_waiting + sum(self._calls.values())) / MAX_CALLS)
        limit = min(max(share, LEAST_GROUP), MAX_GROUP)
        group: list[_Unit] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0].tasks) <= limit):
            unit = self._waiting.popleft()
            group.append(unit)
            size += len(unit.tasks)
            self._bytes_waiting -= unit.size
        self._tasks_waiting -= size
        self._crowded = len(group) > 1
        return group

    async def _carry_out(self, group: list[_Unit]) -> None:
        try:
            await self._settle(group, self._loop.time())
        except StoreUnavailable as error:
            _refuse(group, error)
            self._refuse_waiting(error)
        except Exception as error:
            _refuse(group, error)

    def _refuse_waiting(self, error: Exception) -> None:
        """They would only wait as long for the same news."""
        _refuse(self._waiting, error)
        self._waiting.clear()
        self._tasks_waiting = self._bytes_waiting = 0

    async def _settle(self, group: list[_Unit], began: float) -> bool:
        """Store a group and answer its callers. True if the queue has not room for one task."""
        answers = await self._send([task for unit in group for task in unit.tasks], began)
        full = answers[0].limit > 0  # of a whole call
        if full and len(group) > 1:
            # The script took nothing new of the group, but a part of it may fit.
            half = len(group) // 2
            if not await self._settle(group[:half], began):
                return await self._settle(group[half:], began)
            _tell(group[half:], answers[sum(len(unit.tasks) for unit in group[:half]) :])
            return True
        _tell(group, answers)
        return full and len(group[0].tasks) == 1

    async def aclose(self) -> None:
        """Wait for the calls that are out, and for what has not set out yet."""
        while self.busy:
            await asyncio.gather(*self._calls, asyncio.sleep(0), return_exceptions=True)


def _tell(group: Sequence[_Unit], answers: Answers) -> None:
    at = 0
    for unit in group:
        size = len(unit.tasks)
        if not unit.answer.done():
            unit.answer.set_result(answers[at : at + size])
        at += size


def _refuse(group: Iterable[_Unit], error: Exception) -> None:
    for unit in group:
        if not unit.answer.done():
            unit.answer.set_exception(error_for(unit.tasks, error))


def error_for(tasks: Sequence[NewTask], error: BaseException) -> BaseException:
    """An error of its own for each caller: a shared one would collect the stacks of all."""
    if isinstance(error, DurabilityUnconfirmed):
        return DurabilityUnconfirmed([task.id for task in tasks], error.durability)
    return type(error)(*error.args) if isinstance(error, HeadraceError) else error
