"""The network between clients and Redis: sending, being carried out, and being answered are three moments.

A connection that its client has closed may still have requests on the way: they are carried out late, or never, and
nobody hears of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from headrace.broker.broker import Call

T = TypeVar("T")


class Dice(Protocol):
    """Where all choices come from, so that a run can be repeated."""

    def below(self, n: int) -> int:
        """One of 0 … n - 1."""
        ...


def pick(dice: Dice, things: Sequence[T]) -> T:
    """One of them."""
    return things[dice.below(len(things))] if len(things) > 1 else things[0]


def chance(dice: Dice, percent: int) -> bool:
    """True in so many cases of a hundred."""
    return dice.below(100) < percent


@dataclass(slots=True, eq=False)
class Debt:
    """A marker that somebody took: a cycle of this queue is owed for it."""

    owed: bool = True


@dataclass(slots=True, eq=False)
class Request:
    """One call on its way. `predict` says what the model answers, and changes the model."""

    kind: str
    call: Call[Any] | None
    predict: Callable[[], Any]
    answered: Callable[[Any], None] = lambda _: None
    """Gets the raw reply (a RefusedError for an error), if it arrives."""
    shape: Callable[[Any], Any] = lambda raw: raw
    """Makes the raw reply comparable."""
    debt: Debt | None = None
    """Paid by carrying it out."""
    possible: Callable[[], bool] = lambda: True
    """Whether Redis would answer now: a blocking read waits."""
    note: Callable[[Any], None] = lambda _: None
    """Told of the raw reply when it is carried out: for what the test itself counts."""


@dataclass(slots=True, eq=False)
class Conn:
    """One connection of one client."""

    name: str
    requests: deque[Request] = field(default_factory=deque)
    replies: deque[tuple[Request, Any]] = field(default_factory=deque)
    is_open: bool = True
    lost: Callable[[], None] = lambda: None
    """Tells the client that it is gone."""

    def send(self, request: Request) -> None:
        assert self.is_open, f"{self.name} is closed"
        self.requests.append(request)

    @property
    def is_ready(self) -> bool:
        """Redis can carry out the next one."""
        return bool(self.requests) and self.requests[0].possible()

    def debts(self) -> list[Debt]:
        """What is owed by whoever waits for these."""
        on_the_way = [*self.requests, *(request for request, _ in self.replies)]
        return [request.debt for request in on_the_way if request.debt is not None]
