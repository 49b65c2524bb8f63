"""What `@app.task()` makes of a function: a Task, to be submitted or run with the function's own typed arguments."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, NoReturn, ParamSpec, TypeVar, overload

from headrace.context import Ctx, current_ctx
from headrace.errors import WrongCaller
from headrace.handle import Handle, forbid_running_loop, read_result
from headrace.middleware import Middleware, through
from headrace.submission import AS_DECLARED, Options, TaskCall, Unique
from headrace.task import Priority, new_id
from headrace.taskdef import Declaration, TaskDef, define

if TYPE_CHECKING:
    from headrace.app import App

ELSEWHERE: Final = frozenset({"apply_async", "delay", "kiq", "send", "send_with_options"})
"""What Celery, Dramatiq and taskiq call it to submit a task."""

D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A task function, as its module sees it after `@app.task()`: submit it, or run it here; it cannot be called."""

    def __init__(self, app: App[Any], definition: TaskDef, options: Options = AS_DECLARED) -> None:
        self.app = app
        self.definition = definition
        self.options = options
        self.__doc__ = definition.fn.__doc__
        self.__name__ = definition.fn.__name__
        self.__qualname__ = definition.fn.__qualname__
        self.__module__ = definition.fn.__module__

    def __repr__(self) -> str:
        return f"<Task {self.definition.name!r} of {self.app!r}>"

    if not TYPE_CHECKING:  # a type checker shall say that a task is not callable, too

        def __call__(self, *args: object, **kwargs: object) -> NoReturn:
            name = self.definition.name
            raise WrongCaller(
                f"{name}(…)",
                "calling a task could mean to run it here or to submit it",
                f"`{name}.enqueue(…)` or `await {name}.aenqueue(…)` to submit it, `await {name}.run(…)` to run it here",
            )

        def __getattr__(self, name: str) -> NoReturn:
            said = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in ELSEWHERE:
                task = self.__name__
                said = (
                    f"A task has no `{name}` here: `{task}.enqueue(…)` or `await {task}.aenqueue(…)` submits it, "
                    f"`{task}.using(delay=…, priority=…).enqueue(…)` with options"
                )
            raise AttributeError(said, name=name, obj=self)

    def using(  # noqa: PLR0913 - one keyword an option, as editors show them
        self,
        *,
        delay: float | timedelta | None = None,
        eta: datetime | None = None,
        priority: Priority | int | str | None = None,
        id: str | None = None,
        key: str | None = None,
        unique: str | Unique | None = None,
        max_retries: int | None = None,
        queue: str | None = None,
        tags: Sequence[str] | None = None,
        expires: float | timedelta | datetime | None = None,
    ) -> Task[P, R]:
        """The same task with options for the submissions made through it; see `submission.Options` for each.

        Options that are not given stay as they were, so calls can be chained.
        """
        given = {
            "delay": delay, "eta": eta, "priority": priority, "id": id, "key": key, "unique": unique,
            "max_retries": max_retries, "queue": queue, "tags": tags, "expires": expires,
        }  # fmt: skip
        said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return Task(self.app, self.definition, replace(self.options, **said))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> TaskCall[R]:
        """Describe a call without sending it. Raises InvalidPayload."""
        return TaskCall(self.definition, self.definition.encode(args, kwargs), self.options)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Submit a call; returns once it is stored as durably as its queue asks.

        Raises InvalidPayload, InvalidTask, TooLarge, TaskConflict, QueueFull, StoreUnavailable, StoreFull,
        DurabilityUnconfirmed, ConfigError, and WrongCaller inside a running event loop.
        """
        name = self.definition.name
        forbid_running_loop(f"{name}.enqueue()", f"await {name}.aenqueue(…)")
        sent = self.app.prepare(self.call(*args, **kwargs))
        return self.handle(self.app.connections.run(lambda client: client.submit(sent)))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """As `enqueue`, from asyncio."""
        sent = self.app.prepare(self.call(*args, **kwargs))
        return self.handle(await self.app.connections.arun(lambda client: client.submit(sent)))

    def handle(self, task_id: str) -> Handle[R]:
        """The handle of a task of this type that was submitted earlier. Raises UnknownTask for what is no id."""
        return Handle(task_id, self.app.connections, self.definition.decode_result)

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the handler here and now, without Redis, with its arguments and result passed through JSON.

        Lifespan and middleware of the App are entered for this run. Raises whatever the handler raises,
        and InvalidResult.
        """
        definition = self.definition
        arguments = definition.decode(definition.encode(args, kwargs))
        async with self.app.lifespan() as deps:
            ctx = self._ctx(deps)
            result = await _run_here(definition, arguments, self.app.middleware, ctx)
        encoded = definition.encode_result(result, self.app.connections.client().settings.max_result)
        value: R = read_result(ctx.id, definition.decode_result, encoded)
        return value

    def _ctx(self, deps: Any) -> Ctx[Any]:
        queue = self.options.queue or self.definition.queue
        return Ctx(
            id=self.options.id or new_id(queue),
            type=self.definition.name,
            queue=queue,
            attempt=1,
            epoch=0,
            deadline=time.monotonic() + self.definition.soft_timeout_s,
            deps=deps,
        )


async def _run_here(definition: TaskDef, arguments: Any, middleware: tuple[Middleware, ...], ctx: Ctx[Any]) -> Any:
    token = current_ctx.set(ctx)
    try:
        if definition.kind == "async":
            return await through(middleware, ctx, lambda: definition.invoke(arguments, ctx))
        return await through(middleware, ctx, lambda: asyncio.to_thread(definition.invoke, arguments, ctx))
    finally:
        current_ctx.reset(token)


class TaskDecorator(Generic[D]):
    """What `app.task(…)` returns: makes a Task with the function's parameters, less a leading Ctx, and its result."""

    def __init__(self, app: App[D], declared: Declaration) -> None:
        self._app = app
        self._declared = declared

    # The overload with Ctx comes first, or the Ctx would count as a parameter; an async function before a plain one,
    # or its coroutine would count as the result; decorators declare it as Awaitable or as Coroutine.
    @overload
    def __call__(self, fn: Callable[Concatenate[Ctx[D], P], Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Ctx[D], P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Task[Any, Any]:
        # The caller's frame is where the function is defined; its annotations may name that frame's locals.
        scope = sys._getframe(1).f_locals
        definition = define(fn, self._declared, app_queue=self._app.queue, scope=scope)
        self._app.register(definition)
        return Task(self._app, definition)
