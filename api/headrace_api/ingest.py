"""Submissions on their way into one queue: whoever comes while two calls are out goes together in the next one.

There is no timer: a lone request waits for nobody, and the busier the door, the larger the groups. Each call and its
confirmation (fsync, replicas) is paid once per group; each waiter gets its own answer. A call whose answer was lost is
sent once more with the same ids, which stores nothing twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace.broker import durability as durable
from headrace.broker.broker import MAX_SUBMIT, NewTask, Queue, Submitted
from headrace.broker.connection import Connection
from headrace.errors import (
    DurabilityUnconfirmed,
    FieldError,
    HeadraceError,
    InvalidTask,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
)
from headrace.settings import ApiSettings

from .store import Store

MAX_GROUP: Final = 100
"""Single submissions of one call: they hold Redis for less than a millisecond."""
MAX_CALLS: Final = 2
"""Calls that may be out at once: while one is carried out, the next is on its way."""
MAX_WAITING: Final = 64 << 20
"""Bytes of tasks that may wait at one door; more are turned away at once."""

Answers = list[Submitted]


@dataclass(slots=True)
class _Unit:
    """What one request brings: one task or an atomic batch."""

    tasks: Sequence[NewTask]
    size: int
    """Bytes."""
    answer: asyncio.Future[Answers] = field(repr=False)


class Door:
    """The way into one queue, for one event loop."""

    def __init__(self, store: Store, queue: Queue, settings: ApiSettings) -> None:
        self.queue = queue
        self._store = store
        self._settings = settings
        self._durability = settings.durability[queue.name]
        self._waiting: deque[_Unit] = deque()
        self._bytes_waiting = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._known_on: Connection | None = None
        self._making_known = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._wanted = False

    @property
    def busy(self) -> bool:
        """Whether anything waits here or is on its way."""
        return bool(self._waiting or self._calls)

    async def submit(self, tasks: Sequence[NewTask]) -> Answers:
        """One answer a task. Tasks of one call to this method are stored together or not at all.

        Raises StoreUnavailable (and its kinds), DurabilityUnconfirmed, InvalidTask (too many queues).
        """
        size = sum(len(task.envelope) for task in tasks)
        if self._bytes_waiting + size > MAX_WAITING and self._waiting:
            raise StoreTimeout(str(self._store.settings), f"{len(self._waiting)} requests wait already")
        unit = _Unit(tasks, size, self._loop.create_future())
        self._waiting.append(unit)
        self._bytes_waiting += size
        if not self._wanted:
            # Requests that were read in the same turn of the loop go in the same call.
            self._wanted = True
            self._loop.call_soon(self._start)
        return await unit.answer

    def _start(self) -> None:
        self._wanted = False
        while self._waiting and len(self._calls) < MAX_CALLS:
            call = self._loop.create_task(self._carry_out(self._take()))
            self._calls.add(call)
            call.add_done_callback(self._next)

    def _next(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._start()

    def _take(self) -> list[_Unit]:
        group: list[_Unit] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0].tasks) <= MAX_GROUP):
            unit = self._waiting.popleft()
            group.append(unit)
            size += len(unit.tasks)
            self._bytes_waiting -= unit.size
        return group

    async def _carry_out(self, group: list[_Unit]) -> None:
        give_up = self._loop.time() + self._store.patience_s(self._durability)
        try:
            await self._make_known()
            await self._send(group, give_up)
        except StoreUnavailable as error:
            # Those behind would only wait as long for the same news.
            self._refuse([*group, *self._waiting], error)
            self._waiting.clear()
            self._bytes_waiting = 0
        except Exception as error:
            self._refuse(group, error)

    def _refuse(self, group: Sequence[_Unit], error: Exception) -> None:
        for unit in group:
            if not unit.answer.done():
                unit.answer.set_exception(_for(unit, error))

    async def _make_known(self) -> None:
        """Another connection may lead to an empty Redis, where nothing is known of this queue."""
        connection = await self._store.connection()
        if connection is self._known_on:
            return
        async with self._making_known:
            if connection is not self._known_on:
                await self._enlist(connection.run_id)
                self._known_on = connection

    async def _enlist(self, run_id: str) -> None:
        limit = self._settings.max_queues
        if not await self._store.read(self.queue.enlist(max_queues=limit)):
            detail, hint = f"the namespace has its {limit} queues", "use one of them, or raise HEADRACE_MAX_QUEUES"
            raise InvalidTask(self.queue.name, [FieldError("/queue", detail, hint)])
        await self._store.read(self.queue.init(run_id))

    async def _send(self, group: list[_Unit], give_up: float) -> bool:
        """Store a group and answer its waiters. True if the queue is full."""
        answers = await self._ask([task for unit in group for task in unit.tasks], give_up)
        full = any(answer.status == "full" for answer in answers)
        if full and len(group) > 1:
            # The script took nothing new of the group, but a part of it may fit.
            half = len(group) // 2
            full = await self._send(group[:half], give_up)
            if not full:
                return await self._send(group[half:], give_up)
            answers = answers[sum(len(unit.tasks) for unit in group[:half]) :]
            group = group[half:]
        _tell(group, answers)
        return full

    async def _ask(self, tasks: list[NewTask], give_up: float) -> Answers:
        touch = durable.touches(self._durability)
        call = self.queue.submit(tasks, self._settings.max_depth, touch=touch)
        try:
            return await self._store.write(call, self._durability, give_up)
        except StoreUnavailable as error:
            if isinstance(error, StoreFull | StoreTimeout):
                raise
            return await self._store.write(call, self._durability, give_up)

    async def aclose(self) -> None:
        """Wait for the calls that are out."""
        while self._calls:
            await asyncio.gather(*self._calls, return_exceptions=True)


def _tell(group: Sequence[_Unit], answers: Answers) -> None:
    at = 0
    for unit in group:
        size = len(unit.tasks)
        if not unit.answer.done():
            unit.answer.set_result(answers[at : at + size])
        at += size


def _for(unit: _Unit, error: Exception) -> Exception:
    """An error of its own for each waiter: a shared one would collect the stacks of all."""
    if isinstance(error, DurabilityUnconfirmed):
        return DurabilityUnconfirmed([task.id for task in unit.tasks], error.durability)
    return type(error)(*error.args) if isinstance(error, HeadraceError) else error


__all__ = ["MAX_SUBMIT", "Door"]
