"""The workers of a test: one task at a time is claimed, run by the executor of real workers, and reported.

What differs from a worker process: there is no loop that claims by itself, so a task is run when somebody says so and
the next one only after it was reported; `process=True` handlers run in a thread.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from headrace import task as tasks
from headrace.broker.broker import Claim, Queue, Report
from headrace.context import Ctx, progress_listeners
from headrace.errors import TaskFailed
from headrace.runtime.executor import Executor
from headrace.runtime.progress import ENDED
from headrace.runtime.service_times import ServiceTimes
from headrace.runtime.stats import WorkerStats
from headrace.runtime.stops import WATCH_S
from headrace.runtime.threads import ThreadSlots
from headrace.settings import WorkerSettings
from headrace.task import Failure, Progress, State

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.runtime.claims import QueueClaims
    from headrace.testing.store import Clock, Store

NAME: Final = "testing:0"
"""The worker's name in Redis, and in the history of tasks."""
NESTED: Final = 50
"""Handlers that may wait for each other's tasks."""
KEEP_S: Final = 86_400
"""What a handler said of its progress is not forgotten by itself before: no loop is there that would renew it."""


@dataclass(frozen=True)
class Attempted:
    """One attempt that was made."""

    task_id: str
    type: str
    outcome: str
    """The state that followed."""
    error: BaseException | None
    """What the handler raised, or TaskFailed for what never got to a handler; None for an attempt that went well."""


class Desk:
    """What the executor sees of a queue during one attempt: where the task came from, and where its report goes."""

    def __init__(self, queue: Queue, epoch: int) -> None:
        self.queue = queue
        self.epoch = epoch
        self.id_length = len(tasks.new_id(queue.name))
        self.times = ServiceTimes()
        self.report: asyncio.Future[Report] = asyncio.get_running_loop().create_future()

    def ended(self, report: Report) -> None:
        if not self.report.done():
            self.report.set_result(report)

    def wake(self) -> None:
        """A handler that was given up ended after all: nobody waits for its slot."""


class Crew:
    """One worker for each App, in one event loop, from when it is first needed until the crew leaves."""

    def __init__(
        self, store: Store, clock: Clock, stack: AsyncExitStack, told: Callable[[str, Progress], object]
    ) -> None:
        self._store = store
        self._clock = clock
        self._told = told
        self._attempting: dict[str, tuple[Queue, int]] = {}
        """Id of a task that runs → its queue, and which attempt of it that is."""
        self._said: set[str] = set()
        """Those of them that said something of their progress."""
        progress_listeners.append(self._listen)
        stack.callback(progress_listeners.remove, self._listen)
        self._stack = stack
        self._executors: dict[App[Any], Executor] = {}
        self._opening = asyncio.Lock()
        self._errors: dict[str, BaseException] = {}
        self._epochs: dict[Queue, int] = {}
        self._beats = 0

    async def step(self, queues: Mapping[Queue, list[App[Any]]]) -> Attempted | None:
        """Run the first task that is due, and report it. None if none is."""
        for queue, apps in queues.items():
            self._store.call(queue.promote())
            claims = self._store.call(queue.cycle(NAME, 1)).claims
            if claims:
                return await self._attempt(queue, apps, claims[0])
        return None

    async def _attempt(self, queue: Queue, apps: list[App[Any]], claim: Claim) -> Attempted:
        place, envelope, carried = claim
        head = tasks.decode_envelope(envelope)
        kind = head.type
        app = next((each for each in apps if kind in each.registry), apps[0])
        executor = await self._executor(app)
        executor.look_at_clock()
        if queue not in self._epochs:
            self._epochs[queue], _ = self._store.call(queue.init(NAME))
        desk = Desk(queue, self._epochs[queue])
        with self._listening(head.id, queue, tasks.parse_counters(carried).attempts + 1):
            executor.begin(cast("QueueClaims", desk), place, envelope, carried)
            report = await self._report(executor, desk)
        told = self._store.call(queue.cycle(NAME, 0, [report], retention_s=executor.settings.retention_s))
        executor.answered([report], told.verdicts)
        await executor.hooks.settle()
        return Attempted(report.id, kind, report.outcome, self._error(report))

    @contextmanager
    def _listening(self, task_id: str, queue: Queue, attempt: int) -> Iterator[None]:
        """Show the progress of this attempt as long as it runs."""
        self._attempting[task_id] = (queue, attempt)
        try:
            yield
        finally:
            del self._attempting[task_id]
            if task_id in self._said:
                self._said.remove(task_id)
                self._store.call(queue.progress(NAME, [task_id, ENDED], ttl_s=KEEP_S))

    def _listen(self, ctx: Ctx[Any], progress: Progress) -> None:
        """What a handler says, perhaps in a thread: shown at once, where a worker would wait for what follows."""
        queue, attempt = self._attempting.get(ctx.id, (None, 0))
        if queue is None or ctx.attempt != attempt:
            return  # another crew's, or a thread that goes on after its attempt was given up
        said = msgspec.structs.replace(progress, at=self._clock.ms())
        self._said.add(ctx.id)
        self._store.call(queue.progress(NAME, [ctx.id, msgspec.json.encode(said)], ttl_s=KEEP_S))
        self._told(ctx.id, said)

    async def _report(self, executor: Executor, desk: Desk) -> Report:
        """The attempt's report; meanwhile what a worker does now and then: deadlines, requests to cancel."""
        while True:
            ended, _ = await asyncio.wait({desk.report}, timeout=WATCH_S)
            if ended:
                return desk.report.result()
            executor.stops.watch()
            self._beats += 1
            beat = self._store.call(desk.queue.beat(NAME, self._beats))
            executor.stops.cancel(set(beat.asked))

    def _error(self, report: Report) -> BaseException | None:
        raised = self._errors.pop(report.id, None)
        if report.outcome not in {State.FAILED, State.RETRYING}:
            return None
        if isinstance(raised, Exception):
            return raised
        last = tasks.parse_attempts(tasks.cut(report.record)[2])[-1].error or Failure("unknown")
        return TaskFailed(report.id, last.type, last.message)

    async def _executor(self, app: App[Any]) -> Executor:
        async with self._opening:
            if app not in self._executors:
                self._executors[app] = await self._open(app)
        return self._executors[app]

    async def _open(self, app: App[Any]) -> Executor:
        settings = WorkerSettings.from_env(os.environ, concurrency=NESTED, namespace=app.namespace)
        as_here = self._as_here(app)
        executor = Executor(as_here, settings, NAME, WorkerStats(app.registry, NESTED), self._clock.time)
        executor.rng = Random(0)  # the same delays in every run
        executor.threads = ThreadSlots(asyncio.get_running_loop(), NESTED)
        self._stack.callback(executor.threads.close)
        executor.deps = executor.hooks.deps = await self._stack.enter_async_context(app.lifespan())
        self._stack.push_async_callback(executor.hooks.close)
        executor.start()
        self._stack.push_async_callback(executor.close)
        return executor

    def _as_here(self, app: App[Any]) -> App[Any]:
        """The App with what its handlers raise remembered, and without processes of its own."""
        here = copy.copy(app)
        here.middleware = (self._remember, *app.middleware)
        here._registry = {
            name: replace(each, kind="sync") if each.kind == "process" else each
            for name, each in app.registry.items()
        }  # fmt: skip
        return here

    @asynccontextmanager
    async def _remember(self, ctx: Ctx[Any]) -> AsyncGenerator[None, None]:
        try:
            yield
        except BaseException as error:
            self._errors[ctx.id] = error
            raise
