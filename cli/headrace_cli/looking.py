"""Redis as commands ask it that look through many tasks: a bar shows at how many they have looked."""

from __future__ import annotations

from typing import Any, TypeVar

from headrace.broker.broker import Call
from headrace.broker.scanning import Scanned
from headrace.queues import Caller

from .progress import Bar

__all__ = ["Looking"]

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
