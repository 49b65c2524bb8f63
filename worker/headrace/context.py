"""What a handler is told about its attempt."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic

import msgspec

from headrace.task import Progress

# A bare `Ctx` is Ctx[object], which takes whatever deps there are; with Any, checkers would lose the task's types.
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    D_co = TypeVar("D_co", default=object, covariant=True)
else:
    from typing import TypeVar

    D_co = TypeVar("D_co", covariant=True)


PROGRESS_CHARS: Final = 500
"""A longer message is cut."""


class Ctx(msgspec.Struct, Generic[D_co], eq=False, kw_only=True):
    """One attempt of one task; the optional first parameter of a handler, never part of the payload.

    `Ctx[Deps]` types `deps`, which is what the App's lifespan yielded.
    """

    # A msgspec Struct because one is made per attempt: half the cost of a class with __slots__.

    id: str
    """The task's id, the same for every attempt."""
    type: str
    """The name under which the handler is registered."""
    queue: str
    attempt: int
    """1 for the first attempt; grows with every attempt, whatever ended the one before."""
    epoch: int
    deadline: float
    """When the attempt is cancelled, by `time.monotonic()`."""
    deps: D_co
    trace: str | None = None
    """W3C traceparent of the submission."""
    cancelled: bool = False
    """True once the attempt is to end: cancelled, timed out, or its worker stops. For handlers in threads to look
    at; an async handler gets CancelledError."""

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far this attempt is: `done` of `total` in any unit, and some words (cut at 500 characters).

        GET of the task and `Handle.progress()` show it within half a second while the attempt runs. It may be said as
        often as you like: at most 5 times a second go to Redis, of all tasks of a worker together, and the latest
        wins. Raises ValueError for numbers that are none.
        """
        self.progress_sync(done, total, message)

    def progress_sync(self, done: float, total: float | None = None, message: str = "") -> None:
        """As `progress`, for handlers in threads and processes; it does not wait for anything either."""
        so_far, whole = _number("done", done), None if total is None else _number("total", total)
        words = message[:PROGRESS_CHARS].encode("utf-8", "backslashreplace").decode()
        progress = Progress(so_far, whole, words, time.time_ns() // 1_000_000, self.attempt)
        for listen in progress_listeners:
            listen(self, progress)

    @property
    def token(self) -> tuple[int, int]:
        """Grows with every attempt of this task: an outside system that keeps the last one seen and refuses a
        smaller one is safe from a stale attempt."""
        return (self.epoch, self.attempt)

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def log(self) -> TaskLog:
        """A logger whose lines carry the task's id, type, attempt and trace."""
        return TaskLog(logging.getLogger(f"headrace.task.{self.type}"), self)


def _number(name: str, value: Any) -> int | float:
    """A plain one: numpy's, Decimals and the like are no numbers in JSON. Raises ValueError."""
    try:
        number: int | float = int(value) if hasattr(value, "__index__") else float(value)
        if math.isfinite(number) and not isinstance(value, bool | str):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"The progress's {name} is {value!r}; give a finite number.")


progress_listeners: Final[list[Callable[[Ctx[Any], Progress], None]]] = []
"""The workers of this process; each knows its own attempts. A field of Ctx would cost each of those 0.2 µs."""


current_ctx: ContextVar[Ctx | None] = ContextVar("headrace.ctx", default=None)
"""The attempt that the running code belongs to: gives every log line inside a handler its task."""


class TaskLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the attempt to each line."""

    def __init__(self, logger: logging.Logger, ctx: Ctx[Any]) -> None:
        super().__init__(logger, {"ctx": ctx})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs
