"""The wait of an idle worker: BLPOP on one queue's marker, on a connection of its own, because it blocks that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from headrace.broker.broker import Queue
from headrace.broker.connection import Connection, explain

BLOCK_S: Final = 30
"""BLPOP's own time-out; after a clock jump of Redis it may last for ever, so the connection ends 5 s later."""


class MarkerWait:
    """`popped` is called for each marker; whoever pops one must run a cycle, so that it can be passed on."""

    def __init__(self, queue: Queue, popped: Callable[[], None]) -> None:
        self._command = ("BLPOP", queue.keys["wake"], BLOCK_S)
        self._popped = popped
        self._armed = False
        self._waiting = False
        self._connection: Connection | None = None
        self._overdue: asyncio.TimerHandle | None = None

    async def connected(self, connection: Connection) -> None:
        """A new connection to wait on."""
        self._connection = connection
        self._waiting = False
        if self._armed:
            self._wait()

    def arm(self) -> None:
        """Wait for the marker, if that is not done yet."""
        if not self._armed:
            self._armed = True
            self._wait()

    def stop(self) -> None:
        """Wait no more."""
        self._armed = False
        self._connection = None

    def _wait(self) -> None:
        connection = self._connection
        if connection is None or self._waiting:
            return
        self._waiting = True
        loop = asyncio.get_running_loop()
        self._overdue = loop.call_later(BLOCK_S + 5, connection.close, "BLPOP outlived its time-out")
        connection.send(self._command, lambda reply: self._answered(connection, reply))

    def _answered(self, connection: Connection, reply: Any) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        if connection is not self._connection:
            return
        self._waiting = False
        if isinstance(reply, Exception):
            self._connection = None
            connection.close(str(explain(reply, connection.settings)))
        elif reply is None:
            self._wait()
        else:
            self._armed = False
            self._popped()
