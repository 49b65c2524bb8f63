"""In which order a worker reads the streams of a queue."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.broker.keys import STREAMS, SUSPECTS

ONE_IN = 10
"""While something waits too long, one claim in so many begins with it."""


def order_of(suspects: str) -> str:
    """Strictly by priority. `suspects`: what the worker does about those, as in settings."""
    return {"run": STREAMS, "leave": STREAMS.replace(SUSPECTS, ""), "only": SUSPECTS}[suspects]


def late_order(oldest_ms: Mapping[str, int], now_ms: int, bound_s: float, order: str = STREAMS) -> str:
    """The order of one claim in ten: first the stream whose oldest task waits longest, if that is over the bound.

    Else (and with `bound_s` 0) strictly by priority, like the other nine.
    """
    late = {digit: ms for digit, ms in oldest_ms.items() if digit in order and now_ms - ms > bound_s * 1000}
    if bound_s <= 0 or not late:
        return order
    first = min(late, key=lambda digit: late[digit])
    return first + order.replace(first, "")
