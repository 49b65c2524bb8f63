"""`Testing`: the `headrace` fixture."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakKeyDictionary

from headrace.app import App
from headrace.broker.broker import Call, Queue, Submitted, view
from headrace.connections import Connections
from headrace.decorator import Task
from headrace.errors import WrongCaller
from headrace.handle import Handle, forbid_running_loop
from headrace.task import Progress, queue_of
from headrace.testing.crew import Attempted, Crew
from headrace.testing.enqueued import Enqueued, find, not_found
from headrace.testing.standin import StandIn
from headrace.testing.store import Clock, Store

R = TypeVar("R")

LIMIT: Final = 1_000
"""Attempts after which it is taken that tasks submit each other without end."""


class Testing:
    """One test without a server, from entering it to leaving it: every App of the process submits to it meanwhile.

    Nothing runs by itself: `work()` runs what is due, and a wait for a result runs what has to be run for it. The clock
    stands still until `advance()`, `work(delayed=True)` or such a wait moves it; nothing ever sleeps.
    """

    __test__ = False  # for pytest, which else takes it for a class of tests

    def __init__(self) -> None:
        self.clock = Clock()
        self.enqueued: list[Enqueued] = []
        """What was submitted so far, in order, also what has run since; a submission under a key or an id that is
        taken is no further one. Clear the list to forget it."""
        self._progress: dict[str, list[Progress]] = {}
        self._store = Store(self.clock)
        self._stand_ins: dict[App[Any], StandIn] = {}
        self._queues: dict[tuple[str, str], Queue] = {}
        self._crews: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()

    def __enter__(self) -> Self:
        """From here on every App uses it. Raises WrongCaller inside another one."""
        if Connections.stand_in is not None:
            raise WrongCaller("Testing()", "another one is in use in this process", "one of them at a time")
        Connections.stand_in = self._stand_in
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Connections.stand_in = None
        self._store.close()

    # assertions

    def assert_enqueued(self, task: Task[..., Any], /, **arguments: Any) -> Enqueued:
        """The first submitted task of this type whose arguments have these values; those not named may be anything.

        Returns it, so that its queue, priority, delay and tags can be looked at. Raises AssertionError with what there
        is instead.
        """
        __tracebackhide__ = True
        found = find(self.enqueued, task, arguments)
        if found is None:
            raise AssertionError(not_found(self.enqueued, task, arguments))
        return found

    def assert_not_enqueued(self, task: Task[..., Any], /, **arguments: Any) -> None:
        """No task of this type with such arguments was submitted. Raises AssertionError with the first one."""
        __tracebackhide__ = True
        found = find(self.enqueued, task, arguments)
        if found is not None:
            raise AssertionError(f"{found} was enqueued, as task {found.id}.")

    def progress_of(self, task: Handle[Any] | Enqueued | str) -> list[Progress]:
        """All that a task (or its id) has said by `ctx.progress` so far, of all its attempts, in order.

        `Handle.progress()` shows the latest of the attempt that runs, and nothing when that has ended.
        """
        return list(self._progress.get(task if isinstance(task, str) else task.id, ()))

    def _told(self, task_id: str, progress: Progress) -> None:
        self._progress.setdefault(task_id, []).append(progress)

    # work

    def work(self, *, raises: bool = True, delayed: bool = False, limit: int = LIMIT) -> int:
        """Run what is due, in the order in which a worker takes it, also what is submitted meanwhile.

        Each App's lifespan is entered for it and left at the end. What a handler raises is raised here at once, with
        its task retrying or failed, as its type says; with `raises=False` it is left at that, and the work goes on.
        With `delayed` the clock moves on to whatever is due next (a delay, a retry), until nothing is.

        Returns how many attempts were made. Raises AssertionError if there is still work after `limit` of them,
        TaskFailed for a task that got to no handler, and WrongCaller in a running event loop.
        """
        forbid_running_loop("headrace.work()", "await headrace.awork()")
        return asyncio.run(self.awork(raises=raises, delayed=delayed, limit=limit))

    async def awork(self, *, raises: bool = True, delayed: bool = False, limit: int = LIMIT) -> int:
        """As `work`, from asyncio."""
        attempts = 0
        async with self._crew() as crew:
            while attempted := await self._step(crew, math.inf if delayed else None):
                attempts += 1
                if raises and attempted.error is not None:
                    _raise(attempted)
                _check_limit(attempts, limit)
        return attempts

    async def work_until(self, over: Callable[[], bool], timeout_s: float | None) -> None:
        """Work until `over()` says so, nothing is left, or the clock has moved by so many seconds."""
        give_up = math.inf if timeout_s is None else self.clock.ms() + timeout_s * 1000
        attempts = 0
        async with self._crew() as crew:
            while not over() and await self._step(crew, give_up):
                attempts += 1
                _check_limit(attempts, LIMIT)
        if not over() and math.isfinite(give_up):
            self.clock.move_to(math.ceil(give_up))

    async def _step(self, crew: Crew, until_ms: float | None) -> Attempted | None:
        """One attempt; if none is due, of what is due next, but not later than that."""
        served = {queue: self._apps(queue) for queue in self._queues.values()}
        attempted = await crew.step(served)
        while attempted is None and until_ms is not None:
            dues = [self._store.call(queue.promote())[1] for queue in served]
            due = min((each for each in dues if each is not None), default=math.inf)
            if due > until_ms or due == math.inf:
                return None
            self.clock.move_to(math.ceil(due))
            attempted = await crew.step(served)
        return attempted

    @asynccontextmanager
    async def _crew(self) -> AsyncGenerator[Crew, None]:
        """The workers of this event loop. A handler that waits for another task's result uses those it is run by."""
        loop = asyncio.get_running_loop()
        if loop not in self._crews:
            stack = AsyncExitStack()
            self._crews[loop] = _Shared(Crew(self._store, self.clock, stack, self._told), stack)
        shared = self._crews[loop]
        shared.users += 1
        try:
            yield shared.crew
        finally:
            shared.users -= 1
            if not shared.users:
                del self._crews[loop]
                await shared.stack.aclose()

    # the clock

    @property
    def now(self) -> datetime:
        """The time of the test, in UTC: that at which it began, plus what it was moved on by."""
        return datetime.fromtimestamp(self.clock.time(), UTC)

    def advance(self, by: float | timedelta) -> None:
        """Move the clock on, by seconds or a timedelta; nothing is run. Raises ValueError for a step back."""
        self.clock.advance(by.total_seconds() if isinstance(by, timedelta) else by)

    # what Apps use

    def _stand_in(self, app: App[Any], own: Connections) -> Connections:
        if app not in self._stand_ins:
            self._stand_ins[app] = StandIn(self, app.namespace)
        return self._stand_ins[app]

    def queue(self, name: str, namespace: str) -> Queue:
        """The transitions of a queue, which `work` serves from now on."""
        return self._queues.setdefault((namespace, name), Queue(name, namespace))

    def _apps(self, queue: Queue) -> list[App[Any]]:
        """Whose worker may run what lies in this queue."""
        return [app for app, own in self._stand_ins.items() if own.client().settings.namespace == queue.namespace]

    def carry_out(self, call: Call[R], namespace: str) -> R:
        """Carry out a transition, and note what it submits."""
        done = self._store.call(call)
        if call.script.name == "submit":
            for answer in done if isinstance(done, list) else ():
                if isinstance(answer, Submitted) and answer.status == "new":
                    self._note(answer.id, namespace)
        return done

    def _note(self, task_id: str, namespace: str) -> None:
        name = queue_of(task_id)
        assert name is not None
        found = self._store.call(self.queue(name, namespace).get(task_id))
        assert found is not None
        self.enqueued.append(Enqueued.of(view(task_id, name, found), namespace, self.clock.ms()))


class _Shared:
    """A crew, and how many use it."""

    def __init__(self, crew: Crew, stack: AsyncExitStack) -> None:
        self.crew = crew
        self.stack = stack
        self.users = 0


def _check_limit(attempts: int, limit: int) -> None:
    if attempts > limit:
        raise AssertionError(f"There is still work after {limit:,} attempts. Do tasks submit each other without end?")


def _raise(attempted: Attempted) -> None:
    error = attempted.error
    assert error is not None
    error.add_note(
        f"Raised by task {attempted.task_id} of type {attempted.type!r}, which is {attempted.outcome} now. "
        "work(raises=False) goes on after that."
    )
    raise error
