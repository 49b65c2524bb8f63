"""Middleware: async context managers around each attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

from headrace.context import Ctx

R = TypeVar("R")

Middleware = Callable[[Ctx[Any]], AbstractAsyncContextManager[Any]]
"""Entered around every attempt, the first one outermost. It may raise another error in the place of the handler's, but
cannot make a failed attempt a completed one: an error that it swallows is raised again behind it."""


async def through(layers: Sequence[Middleware], ctx: Ctx[Any], run: Callable[[], Awaitable[R]]) -> R:
    """What `run` returns inside all layers, the first one outermost. Raises what came out of them, or was swallowed."""
    raised: BaseException
    async with AsyncExitStack() as stack:
        try:
            for layer in layers:
                await stack.enter_async_context(layer(ctx))
            return await run()
        except BaseException as error:
            raised = error
            raise
    raise raised
