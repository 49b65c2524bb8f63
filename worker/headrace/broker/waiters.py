"""Who waits for answers of a connection, for how long, and what the connection owes those who have left.

Callers have deadlines of their own, but share one timer a connection: `asyncio.timeout` costs a sixth of a whole call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headrace.errors import StoreTimeout

if TYPE_CHECKING:
    from .connection import Connection

T = TypeVar("T")
Answer = Callable[[Any], None]
"""Gets the reply, or the exception that stands for it: hiredis.ReplyError or StoreUnavailable."""

_DEAF_S: Final = 0.5
"""Silence for less makes no connection deaf, however short the time of the caller was that it kept waiting."""
_CLOCK_S: Final = 0.01
"""uvloop's clock goes in whole milliseconds, and stands while the loop is busy."""
_EARLY_S: Final = 0.001
"""A timer of uvloop may come so much before its time."""


class Waiter:
    """One caller: `future` has the reply, the error that stands for it, or StoreTimeout at `deadline` (loop time)."""

    __slots__ = ("_came", "_connection", "_limit", "_owed", "deadline", "future")

    def __init__(self, connection: Connection, limit: float, loop: asyncio.AbstractEventLoop) -> None:
        self.deadline = loop.time() + limit
        self.future: asyncio.Future[Any] = loop.create_future()
        self._connection = connection
        self._limit = limit
        self._owed: _Owed | None = None
        self._came = False

    def answer(self, reply: Any) -> None:
        """The reply is here, or the exception that stands for it."""
        if self.future.done():
            self._came = True
            if self._owed is not None:
                self._owed.cancel()
        elif isinstance(reply, Exception):
            self.future.set_exception(self._connection.explained(reply))
        else:
            self.future.set_result(reply)

    def expire(self) -> _Owed:
        """Its time is up. Returns what the connection owes from now on."""
        error = StoreTimeout(str(self._connection.settings), f"no answer within {round(self._limit, 2):g} s")
        self.future.set_exception(error)
        self._owed = _Owed(self._connection, self._limit)
        return self._owed

    def left(self) -> None:
        """Its caller was cancelled."""
        if not self.future.cancelled():
            self.future.exception()  # else asyncio complains that nobody heard of it
        elif not self._came:
            # Callers who are more impatient than the time-out would keep a connection that is deaf.
            self._owed = _Owed(self._connection, self._limit)
            self._owed.look_at(self.deadline)


class Waiters:
    """All callers of one connection. Its timer goes by the earliest deadline that it knew when it was set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._all: set[Waiter] = set()
        self._context = Context()
        """A timer would keep that of the caller who set it."""
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = float("inf")

    async def wait(self, connection: Connection, send: Callable[[T, Answer], None], what: T, limit: float) -> Any:
        """The answer to what is sent, if it comes within so many seconds. Raises StoreTimeout else."""
        waiter = Waiter(connection, limit, self._loop)
        send(what, waiter.answer)
        self._all.add(waiter)
        if waiter.deadline < self._looks_at and not waiter.future.done():
            self._look_at(waiter.deadline)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            waiter.left()
            raise
        finally:
            self._all.discard(waiter)
            del waiter  # its future may hold the very error that leaves this frame

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks_at = self._loop.call_at(when, self._look, context=self._context), when

    def _look(self) -> None:
        self._timer, self._looks_at = None, float("inf")
        now = self._loop.time() + _EARLY_S
        due = [one for one in self._all if one.deadline <= now and not one.future.done()]
        # All are told first: one look may close the connection, which answers the rest.
        for owed in [waiter.expire() for waiter in due]:
            owed.look()
        later = [one.deadline for one in self._all if not one.future.done()]
        if later:
            self._look_at(min(later))


class _Owed:
    """An answer whose caller has left. Until it comes something must: a connection that is silent is deaf.

    One that is only slow is kept for a while, else a busy server would be given all others' requests a second time; but
    not for ever, else what was left would pile up in one that cannot keep pace.
    """

    __slots__ = ("_allowed_s", "_connection", "_last", "_owed_s", "_timer")

    def __init__(self, connection: Connection, limit: float) -> None:
        usual_s = connection.settings.timeout_s
        self._connection = connection
        self._allowed_s = max(limit, min(_DEAF_S, usual_s))
        self._owed_s = max(limit, usual_s)
        self._last = asyncio.get_running_loop().time() + self._owed_s
        self._timer: asyncio.TimerHandle | None = None

    def look_at(self, when: float) -> None:
        """`when` is the loop's time."""
        self._timer = asyncio.get_running_loop().call_at(when, self.look)

    def look(self) -> None:
        if self._connection.lost is not None:
            return
        now, left_s = asyncio.get_running_loop().time(), self._allowed_s - self._connection.stalled_s()
        if left_s <= _CLOCK_S:
            self._connection.close(f"no answer within {self._allowed_s:g} s")
        elif now + _CLOCK_S >= self._last:
            self._connection.close(f"an answer is owed for {self._owed_s:g} s")
        else:
            self.look_at(min(self._last, now + left_s))

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
