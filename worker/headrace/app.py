"""The application: its task types, and the typed ways to submit and run them.

    app = App("images")

    @app.task(priority="high", retry=Retry(5, on=(OSError,)))
    async def resize(url: str, width: int = 200) -> str: ...

    handle = await resize.aenqueue("s3://cat", width=300)
    await handle.aget(timeout=5)

Importing and constructing open nothing; the first submission connects.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from headrace.backoff import Retry
from headrace.batches import Batch, Plan
from headrace.connections import Connections
from headrace.context import current_ctx
from headrace.decorator import TaskDecorator
from headrace.errors import BadDefinition
from headrace.handle import forbid_running_loop
from headrace.lifespan import Lifespan, open_lifespan
from headrace.middleware import Middleware
from headrace.submission import Submission, TaskCall, prepare
from headrace.task import Priority, check_queue
from headrace.taskdef import Declaration, OnFailure, TaskDef, place_of

if TYPE_CHECKING:
    from headrace.bulk_control import BulkControl
    from headrace.inspection import Inspector
    from headrace.queue_control import QueueControl
    from headrace.watching import EndedTask

D = TypeVar("D")
R = TypeVar("R")


class App(Generic[D]):
    """An application: a name, its task types, and what their handlers share.

    `url` names Redis (else it is found, see `headrace.redis_settings`), `queue` is where its tasks go that say nothing,
    `namespace` the tenant (None: HEADRACE_NAMESPACE). `deps` is an async generator function with one yield: what it
    yields is `ctx.deps` of every attempt in a worker, what follows runs when the worker stops.
    """

    @overload
    def __init__(
        self: App[None],
        name: str,
        *,
        url: str | None = None,
        queue: str = "default",
        namespace: str | None = None,
        middleware: tuple[Middleware, ...] = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        deps: Lifespan[D],
        url: str | None = None,
        queue: str = "default",
        namespace: str | None = None,
        middleware: tuple[Middleware, ...] = (),
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        deps: Lifespan[Any] | None = None,
        url: str | None = None,
        queue: str = "default",
        namespace: str | None = None,
        middleware: tuple[Middleware, ...] = (),
    ) -> None:
        self.name = name
        self.queue = queue
        self.namespace = namespace
        self.middleware = tuple(middleware)
        self._connections = Connections(url, namespace)
        self._deps = deps
        self._registry: dict[str, TaskDef] = {}
        self._check()

    def _check(self) -> None:
        where = f"App {self.name!r}"
        try:
            check_queue(self.queue)
            if self.namespace is not None:
                check_queue(self.namespace)
        except ValueError as error:
            raise BadDefinition(where, str(error).removesuffix("."), "Correct it in App(…)") from None
        deps: object = self._deps
        if deps is not None and not callable(deps):
            remedy = "Pass an async generator function with one yield, as in deps=open_deps"
            raise BadDefinition(where, f"deps {deps!r} cannot be called", remedy)
        for each in self.middleware:
            if not callable(each):
                raise BadDefinition(
                    where, f"middleware {each!r} cannot be called", "Pass (ctx) → async context manager"
                )

    def __repr__(self) -> str:
        return f"App({self.name!r})"

    @property
    def connections(self) -> Connections:
        """How it reaches Redis; within a test of `headrace.testing`, what takes its place."""
        return self._connections if Connections.stand_in is None else Connections.stand_in(self, self._connections)

    @property
    def inspect(self) -> Inspector:
        """Looks at tasks, failures and workers: `async for task in app.inspect.tasks("state:failed since:2h")`."""
        from headrace.inspection import Inspector  # a worker needs none of it to start

        return Inspector(self.connections)

    @property
    def queues(self) -> QueueControl:
        """Lists, shows, pauses, resumes and limits queues: `await app.queues.pause("mail")`."""
        from headrace.queue_control import QueueControl

        return QueueControl(self.connections, self.name)

    @property
    def bulk(self) -> BulkControl:
        """Retries, cancels or deletes many tasks: `await app.bulk.retry("error:Timeout since:2h")`."""
        from headrace.bulk_control import BulkControl

        return BulkControl(self.connections, self.name)

    def watch(
        self, queues: Sequence[str] = (), types: Sequence[str] = (), *, last_id: str = ""
    ) -> AsyncGenerator[EndedTask, None]:
        """The tasks that end, as they end: `async for task in app.watch(types=["resize"])`, until it is left or the App
        is closed.

        Of these queues and types, () for all; a type with `*` at its end is many. It begins with what ends after its
        first step, or goes on behind the `last_id` of a task that an earlier watch gave. While Redis is away it waits.
        Raises InvalidRequest for a `last_id` that is none; StoreUnavailable and RedisError where it begins, or reads
        again what its loop was too slow for.
        """
        from headrace.watching import watch

        return watch(self.connections, queues, types, last_id)

    @property
    def registry(self) -> Mapping[str, TaskDef]:
        """Type name → definition, of every task declared so far."""
        return MappingProxyType(self._registry)

    def task(  # noqa: PLR0913 - one keyword an option, as editors show them
        self,
        name: str | None = None,
        *,
        queue: str | None = None,
        priority: Priority | int | str = Priority.MEDIUM,
        max_retries: int | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        process: bool = False,
        retention: float | None = None,
        on_failure: OnFailure | None = None,
    ) -> TaskDecorator[D]:
        """Declare a task type: `@app.task()` above a function whose parameters all have types.

        `name` is the type (default: the function's name), `timeout` seconds for one attempt, `process` runs a sync
        function in a process of its own that can be killed. `retention` is how many seconds completed tasks are kept,
        with their results. `on_failure(ctx, error)`, async or sync, is called in the worker after a task has ended in
        the dead letter by an error or a timeout: at most once, and not at all if the worker dies before, or if the task
        is there because it killed its workers. What is not said is up to the worker's settings; a
        submission may name another priority, queue and max_retries. Raises BadDefinition for what cannot work.
        """
        if callable(name):
            raise BadDefinition(place_of(name), "@app.task lacks its parentheses", "Write @app.task()")
        declared = Declaration(
            name=name, queue=queue, priority=priority, max_retries=max_retries, retry=retry, timeout=timeout,
            process=process, retention=retention, on_failure=on_failure,
        )  # fmt: skip

        return TaskDecorator(self, declared)

    def register(self, definition: TaskDef) -> None:
        """Add a type. Raises BadDefinition if its name is taken."""
        other = self._registry.get(definition.name)
        if other is not None:
            raise BadDefinition(
                place_of(definition.fn),
                f"the type {definition.name!r} is taken by {place_of(other.fn)}",
                "Name one of them differently: @app.task('another_name')",
            )
        self._registry[definition.name] = definition

    def prepare(self, call: TaskCall[Any]) -> Submission:
        """What would be sent for a call. Raises InvalidTask, TooLarge, ConfigError."""
        ctx = current_ctx.get()
        settings = self.connections.client().settings
        return prepare(call, settings, self.connections.now_ms(), trace=ctx.trace if ctx else None)

    def batch(self, calls: Iterable[TaskCall[R]]) -> Batch[R]:
        """Submit many calls of this App's tasks: `app.batch(resize.call(url) for url in urls)`.

        One round trip a queue for up to 1,000 tasks of 4 MiB together, which are stored all or not at all; more go in
        several such calls, one after the other. All are checked before the first is sent. Raises as `Task.enqueue`
        does, with a note of what is stored by then, if anything is.
        """
        forbid_running_loop("App.batch()", "await app.abatch(…)")
        plan = Plan.of(self, calls)
        return plan.batch(self.connections.run(plan.submit))

    async def abatch(self, calls: Iterable[TaskCall[R]]) -> Batch[R]:
        """As `batch`, from asyncio."""
        plan = Plan.of(self, calls)
        return plan.batch(await self.connections.arun(plan.submit))

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[Any, None]:
        """Enter what the handlers share; gives `ctx.deps`, None without `deps`. Raises BadDefinition."""
        if self._deps is None:
            yield None
            return
        async with open_lifespan(self._deps, f"The deps of App {self.name!r}") as deps:
            yield deps

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop and of synchronous callers; the App can be used again."""
        await self.connections.aclose()

    def close(self) -> None:
        """Close the connections of synchronous callers; the App can be used again."""
        self.connections.close()
