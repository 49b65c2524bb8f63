"""Redis as commands ask it that look through many tasks: a bar shows at how many they have looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from headrace.broker.broker import Call, Queue
from headrace.broker.scanning import Scanned
from headrace.errors import UnknownQueue, nearest
from headrace.filters import Filter
from headrace.queues import Caller

from .output import note
from .progress import Bar

__all__ = ["Looking", "tell_of_unknown"]

R = TypeVar("R")


class Looking:
    """Carries out what `caller` would, and moves the bar on by the tasks that were looked at."""

    def __init__(self, caller: Caller, bar: Bar) -> None:
        self._caller = caller
        self._bar = bar

    async def call(self, call: Call[R]) -> R:
        """One transition."""
        got = await self._caller.call(call)
        if isinstance(got, Scanned):
            self._bar.to(self._bar.done + got.looked)
        return got

    async def command(self, *args: bytes | str | int) -> Any:
        """One plain command."""
        return await self._caller.command(*args)


def tell_of_unknown(filter: Filter, queues: Sequence[Queue]) -> None:
    """Say which queues of a filter there are not: to find nothing there would look as if all went well."""
    there = [each.name for each in queues]
    for name in filter.queues:
        if name not in there:
            note(str(UnknownQueue(name, nearest(name, there))))
