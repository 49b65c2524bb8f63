"""What the handlers of one process share: an async generator function with one yield, as pytest's fixtures are."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from headrace.errors import BadDefinition

D = TypeVar("D")

Lifespan = Callable[[], AsyncIterator[D]]

_REMEDY = "Write `async def deps() -> AsyncIterator[Deps]:` with one `yield Deps(…)`"


@asynccontextmanager
async def open_lifespan(lifespan: Lifespan[D], where: str) -> AsyncGenerator[D, None]:
    """Enter a lifespan; what follows its yield runs at the exit, also after an error. Raises BadDefinition."""
    if inspect.iscoroutinefunction(lifespan):
        raise BadDefinition(where, "returns one value, so nothing would be closed", _REMEDY)
    steps = lifespan()
    if not isinstance(steps, AsyncGenerator):
        raise BadDefinition(where, "is no async generator function", _REMEDY)
    try:
        deps = await anext(steps)
    except StopAsyncIteration:
        raise BadDefinition(where, "yields nothing", _REMEDY) from None
    try:
        yield deps
    except BaseException as error:
        await _throw(steps, error)
        raise
    await _finish(steps, where)


async def _throw(steps: AsyncGenerator[D, Any], error: BaseException) -> None:
    """Let the lifespan see the error, so that its `finally` runs; it cannot swallow it."""
    try:
        await steps.athrow(error)
    except StopAsyncIteration:
        return
    except BaseException as raised:
        if raised is not error:
            raise
    else:
        await steps.aclose()


async def _finish(steps: AsyncGenerator[D, Any], where: str) -> None:
    try:
        await anext(steps)
    except StopAsyncIteration:
        return
    await steps.aclose()
    raise BadDefinition(where, "yields more than once", _REMEDY)
