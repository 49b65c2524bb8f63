"""Carrying out a `Call` over the lean connection: connect when first used and after a loss, repeat nothing."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from headrace.errors import DurabilityUnconfirmed, StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.settings import Durability, Local

from . import durability as durable
from .broker import Call
from .connecting import connect
from .connection import Connection

R = TypeVar("R")
LOCAL = Local()


class AsyncClient:
    """One connection, made when first needed and again after it was lost. For one event loop."""

    def __init__(self, settings: RedisSettings, name: str = "headrace") -> None:
        self.settings = settings
        self._name = name
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._checked: set[Durability] = set()
        self._closings = 0

    @property
    def is_connected(self) -> bool:
        """Whether its connection stands, so that a call waits for nothing but its answer."""
        return self._connection is not None and self._connection.lost is None

    async def connection(self) -> Connection:
        """The connection that stands. Raises StoreUnavailable or RedisError."""
        current = self._connection
        if current is not None and current.lost is None:
            return current
        joins, closings = self._connecting is not None, self._closings
        connecting = await self._attempt()
        if joins and closings == self._closings and not connecting.cancelled() and connecting.exception() is not None:
            # It began before this call, perhaps in an outage that is over.
            connecting = await self._attempt()
        if closings != self._closings or connecting.cancelled():
            raise StoreUnavailable(str(self.settings), "closed while connecting")
        return connecting.result()

    async def _attempt(self) -> asyncio.Task[Connection]:
        """The one that is on its way, or a new one, when it is over."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="headrace-connect")
            self._connecting.add_done_callback(self._connected)
        connecting = self._connecting
        await asyncio.wait({connecting})
        return connecting

    async def _connect(self) -> Connection:
        """In a task of its own: callers have deadlines, and one that leaves must not end it for the others."""
        self._checked.clear()
        self._connection = await connect(self.settings, self._name)
        return self._connection

    def _connected(self, connecting: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # else asyncio complains of one that nobody waits for any more

    async def call(self, call: Call[R], durability: Durability = LOCAL, *, timeout_s: float | None = None) -> R:
        """Carry out one transition, confirmed as `durability` asks.

        Raises StoreUnavailable (it may have been carried out), StoreFull (it was not), DurabilityUnconfirmed,
        RedisError.
        """
        connection = await self.connection()
        limit = self.settings.timeout_s if timeout_s is None else timeout_s
        if isinstance(durability, Local):
            return await connection.call(call, limit)
        if durability not in self._checked:
            await durable.check(durability, connection)
            self._checked.add(durability)
        follow = durable.confirmation(durability, connection.version, limit)
        if follow is None or not call.writes_tasks:
            return await connection.call(call, limit)
        done, reply = await connection.confirmed(call, follow, limit + 1)
        if not durable.is_confirmed(durability, reply):
            raise DurabilityUnconfirmed((), str(durability))
        return done

    async def command(self, *args: bytes | str | int, timeout_s: float | None = None) -> Any:
        """One plain command."""
        return await (await self.connection()).command(*args, timeout_s=timeout_s)

    def abandon(self) -> None:
        """Its event loop is closed."""
        if self._connection is not None:
            self._connection.abandon()

    async def aclose(self) -> None:
        """Close the connection, also one that is being made; a later call opens another."""
        self._closings += 1
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()


class BlockingClient:
    """The lean connection for a thread that has no event loop of its own. For that one thread.

    A worker's heartbeat uses it: importing redis-py would cost a worker a third of its memory and of its start.
    """

    def __init__(self, settings: RedisSettings, name: str = "headrace") -> None:
        self._client = AsyncClient(settings, name)
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, call: Call[R]) -> R:
        """As AsyncClient.call, at durability `local`."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(self._client.call(call))

    def close(self) -> None:
        """Drop the connection; a later call opens another."""
        if self._loop is not None:
            self._loop.run_until_complete(self._client.aclose())
            self._loop.close()
            self._loop = None
