"""What an App uses in place of its connections while a test runs: the test's store, with the client's own rules."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from headrace.broker.broker import Queue, TaskView
from headrace.client import Client, Enter, Pause, Run, Steps
from headrace.connections import Connections, Views
from headrace.errors import ResultTimeout, UnknownTask, WrongCaller
from headrace.settings import ClientSettings
from headrace.task import TERMINAL, queue_of

if TYPE_CHECKING:
    from headrace.testing.fixture import Testing

R = TypeVar("R")


class Rules(Client):
    """The rules of one namespace, which tell the test what queues there are."""

    def __init__(self, settings: ClientSettings, testing: Testing) -> None:
        super().__init__(settings, testing.clock.time)
        self._testing = testing

    def queue(self, name: str) -> Queue:
        """The transitions of this queue."""
        return self._testing.queue(name, self.settings.namespace)


class StandIn(Connections):
    """Of one App in one test."""

    def __init__(self, testing: Testing, namespace: str | None) -> None:
        super().__init__(None, namespace)
        self._testing = testing
        self._rules: Rules | None = None

    def client(self) -> Client:
        """The rules and settings. Raises ConfigError."""
        if self._rules is None:
            self._rules = Rules(ClientSettings.from_env(self._environ, namespace=self._namespace), self._testing)
        return self._rules

    def now_ms(self) -> int:
        """The time of the test."""
        return self._testing.clock.ms()

    def run(self, make: Callable[[Client], Steps[R]]) -> R:
        """Carry out steps."""
        steps = make(self.client())
        try:
            step = next(steps)
            while True:
                step = steps.send(self._carry_out(step))
        except StopIteration as done:
            value: R = done.value
            return value

    def _carry_out(self, step: Run | Enter | Pause) -> Any:
        if isinstance(step, Pause):
            return None  # only what Redis did not answer is waited for, and here it always answers
        call = step.alone().call if isinstance(step, Enter) else step.call
        return self._testing.carry_out(call, self.client().settings.namespace)

    async def arun(self, make: Callable[[Client], Steps[R]]) -> R:
        """Carry out steps; other coroutines get their turn first, as they would while Redis is asked."""
        await asyncio.sleep(0)
        return self.run(make)

    async def wait(self, queue: str, task_id: str, timeout_s: float | None) -> TaskView:
        """The task once it has ended; what is due until then is worked off for it, and the clock moves on."""
        seen = (await self.wait_all([task_id], timeout_s))[task_id]
        if seen is None:
            raise UnknownTask(task_id)
        if seen.state not in TERMINAL:
            raise ResultTimeout(task_id, math.inf if timeout_s is None else timeout_s, seen.state)
        return seen

    def wait_blocking(self, queue: str, task_id: str, timeout_s: float | None) -> TaskView:
        """As `wait`, from synchronous code."""
        return asyncio.run(self.wait(queue, task_id, timeout_s))

    async def changes(self, queue: str, task_id: str) -> AsyncGenerator[TaskView, None]:
        """The task now, and when it has ended: what is due until then is worked off for it."""
        seen = await self.arun(lambda client: client.look(queue, task_id))
        yield seen
        if seen.state not in TERMINAL:
            yield await self.wait(queue, task_id, None)

    async def wait_all(self, task_ids: Sequence[str], timeout_s: float | None) -> Views:
        """As `wait`, for all of these."""
        views: Views = {}
        waiting = list(reversed(task_ids))

        def over() -> bool:
            """Looks no further than to the first that goes on: to look at all after each attempt takes for ever."""
            while waiting and not _goes_on(seen := self._look(waiting[-1])):
                views[waiting.pop()] = seen
            return not waiting

        await self._testing.work_until(over, timeout_s)
        return views | {task_id: self._look(task_id) for task_id in waiting}

    def wait_all_blocking(self, task_ids: Sequence[str], timeout_s: float | None) -> Views:
        """As `wait_all`, from synchronous code."""
        return asyncio.run(self.wait_all(task_ids, timeout_s))

    def apart(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Raises WrongCaller: it must not reach the Redis of the environment from a test."""
        _refuse()

    def reach(self) -> NoReturn:
        """As `apart`."""
        _refuse()

    def watchers(self) -> NoReturn:
        """As `apart`."""
        _refuse()

    def _look(self, task_id: str) -> TaskView | None:
        queue = queue_of(task_id)
        if queue is None:
            raise UnknownTask(task_id)
        return self.run(lambda client: client.find(queue, task_id))

    async def aclose(self) -> None:
        """There is nothing to close."""

    def close(self) -> None:
        """There is nothing to close."""


def _refuse() -> NoReturn:
    because = "headrace.testing has tasks to run, and no queues to manage or to watch"
    raise WrongCaller("app.queues, app.bulk or app.watch()", because, "a real Redis, such as that of `headrace dev`")


def _goes_on(seen: TaskView | None) -> bool:
    return seen is not None and seen.state not in TERMINAL
