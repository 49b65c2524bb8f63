"""A submitted task, from the side of who submitted it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from headrace import actions
from headrace.broker.broker import TaskView
from headrace.errors import InvalidResult, TaskCancelled, TaskExpired, TaskFailed, UnknownTask, WrongCaller
from headrace.task import EXPIRED, Progress, State, queue_of

if TYPE_CHECKING:
    from headrace.connections import Connections

R = TypeVar("R")


class Handle(Generic[R]):
    """The task with this id. It holds no connection and no state: every question asks Redis."""

    __slots__ = ("_connections", "_decode", "_queue", "id")

    def __init__(self, task_id: str, connections: Connections, decode: Callable[[Any], Any]) -> None:
        queue = queue_of(task_id)
        if queue is None:
            raise UnknownTask(task_id)
        self.id = task_id
        self._queue = queue
        self._connections = connections
        self._decode = decode

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def get(self, timeout: float | None = None) -> R:
        """Wait for the result, `timeout` seconds at most (None: as long as it takes).

        Raises TaskFailed, TaskCancelled (TaskExpired if nobody began it in time), ResultTimeout, UnknownTask,
        InvalidResult, StoreUnavailable, and WrongCaller in a loop.
        """
        forbid_running_loop("Handle.get()", "await handle.aget()")
        return self._result_of(self._connections.wait_blocking(self._queue, self.id, timeout))

    async def aget(self, timeout: float | None = None) -> R:
        """As `get`, from asyncio."""
        return self._result_of(await self._connections.wait(self._queue, self.id, timeout))

    def state(self) -> State:
        """What the task's state is now. Raises UnknownTask, StoreUnavailable, and WrongCaller in a loop."""
        forbid_running_loop("Handle.state()", "await handle.astate()")
        return self._connections.run(lambda client: client.look(self._queue, self.id)).state

    async def astate(self) -> State:
        """As `state`, from asyncio."""
        return (await self._connections.arun(lambda client: client.look(self._queue, self.id))).state

    def progress(self) -> Progress | None:
        """How far the attempt that runs says it is; None if it said nothing, or none runs.

        Raises UnknownTask, StoreUnavailable, and WrongCaller in a loop.
        """
        forbid_running_loop("Handle.progress()", "await handle.aprogress()")
        return self._connections.run(lambda client: client.look(self._queue, self.id)).progress

    async def aprogress(self) -> Progress | None:
        """As `progress`, from asyncio."""
        return (await self._connections.arun(lambda client: client.look(self._queue, self.id))).progress

    async def awatch(self) -> AsyncGenerator[TaskView, None]:
        """All of the task, now and whenever its state, its attempts or its progress have changed, until it has ended or
        the App is closed: `async for seen in handle.awatch()`. It is looked at four times a second, from asyncio only.

        Raises UnknownTask, also when its record is kept no longer, and StoreUnavailable.
        """
        async with aclosing(self._connections.changes(self._queue, self.id)) as changes:
            async for seen in changes:
                yield seen

    def cancel(self, force: bool = False) -> State:
        """End a task that waits: CANCELLED. Ask the worker of one that runs to end it: PROCESSING; a coroutine gets
        CancelledError, a thread sees `ctx.cancelled`, a process too and is killed 2 s later. With `force` it is
        CANCELLED at once, and whatever its worker still does counts for nothing.

        Raises UnknownTask, WrongState for one that has ended otherwise, StoreUnavailable, and WrongCaller in a loop.
        """
        forbid_running_loop("Handle.cancel()", "await handle.acancel()")
        return self._connections.run(lambda client: actions.cancel(client, self._queue, self.id, force))

    async def acancel(self, force: bool = False) -> State:
        """As `cancel`, from asyncio."""
        return await self._connections.arun(lambda client: actions.cancel(client, self._queue, self.id, force))

    def retry(self) -> State:
        """A failed task starts over with all its retries, one that is due later is due now. Returns PENDING.

        Raises UnknownTask, WrongState for one that runs or has ended otherwise, StoreUnavailable,
        DurabilityUnconfirmed, and WrongCaller in a loop.
        """
        forbid_running_loop("Handle.retry()", "await handle.aretry()")
        return self._connections.run(lambda client: actions.retry(client, self._queue, self.id))

    async def aretry(self) -> State:
        """As `retry`, from asyncio."""
        return await self._connections.arun(lambda client: actions.retry(client, self._queue, self.id))

    def _result_of(self, seen: TaskView) -> R:
        """The result of this task, which has ended as seen. Raises TaskFailed, TaskCancelled, TaskExpired,
        InvalidResult.
        """
        if seen.state is not State.COMPLETED:
            _raise_end(seen)
        value: R = read_result(seen.id, self._decode, seen.result)
        return value


def read_result(task_id: str, decode: Callable[[Any], Any], result: Any) -> Any:
    """A stored result as what its function promises. Raises InvalidResult."""
    try:
        return decode(result or b"null")
    except Exception as error:  # of msgspec, or of a class of the application's that checks itself
        raise InvalidResult(task_id, str(error) or type(error).__name__) from error


def _raise_end(seen: TaskView) -> NoReturn:
    last = seen.attempts[-1] if seen.attempts else None
    if seen.state is State.CANCELLED:
        expired = last is not None and last.error is not None and last.error.reason == EXPIRED
        raise TaskExpired(seen.id) if expired else TaskCancelled(seen.id)
    if last is not None and last.error is not None:
        raise TaskFailed(seen.id, last.error.type, last.error.message)
    raise TaskFailed(seen.id, last.outcome if last else "unknown", (last and last.cause) or "no error was recorded")


def forbid_running_loop(name: str, instead: str) -> None:
    """Raise WrongCaller inside a running event loop, which a blocking call would stop for everybody."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongCaller(name, "it blocks, and an event loop is running in this thread", instead)
