"""One attempt for all who ask for the same while it is out: it is paid for once, and fails once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from headrace.errors import StoreUnavailable

from .group_commit import error_for

R = TypeVar("R")


class SingleFlight(Generic[R]):
    """The attempts at the Redis at `where`. For one event loop."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._out: dict[Hashable, asyncio.Task[R]] = {}

    async def share(self, key: Hashable, attempt: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """What the attempt under this key gives that is out, or this one. Raises what it raises, to each an own error.

        It has a task of its own: whoever leaves, as at a deadline, does not end it for the others.
        """
        task = self._out.get(key)
        if task is None:
            task = self._out[key] = asyncio.create_task(attempt(), name="headrace-shared")
            task.add_done_callback(partial(self._over, key))
        await asyncio.wait({task})
        if task.cancelled():
            raise StoreUnavailable(self._where, "closed while it was asked")
        error = task.exception()
        if error is None:
            return task.result()
        raise error_for((), error)

    def _over(self, key: Hashable, task: asyncio.Task[R]) -> None:
        del self._out[key]
        if not task.cancelled():
            task.exception()  # else asyncio complains of one that nobody waits for any more

    async def aclose(self) -> None:
        """Wait for the attempts that are out; each has a deadline."""
        while self._out:
            await asyncio.wait(self._out.values())
