"""Redis as the API uses it: every call has a deadline, whatever hangs, and calls that wait for disks block no others.

One connection reads, one submits to queues with durability `local`, and a few wait for WAIT and WAITAOF, which hold up
their connection until the confirmation comes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

from headrace.broker.broker import Call, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connection import Connection
from headrace.errors import DurabilityUnconfirmed, HeadraceError, StoreFull, StoreTimeout, StoreUnavailable
from headrace.queues import named
from headrace.redis_settings import RedisSettings
from headrace.settings import Durability, Local

from .buckets import Buckets

R = TypeVar("R")

logger = logging.getLogger(__name__)

REDIS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

DEADLINE_S: Final = 0.8
"""Seconds after which a call is given up: a client hears of a Redis that is away within one second."""
WAIT_SLACK_S: Final = 0.3
"""Redis looks ten times a second only whether a WAIT has waited long enough."""
LOG_EVERY_S: Final = 5.0
CONFIRMING: Final = 4
"""Connections for calls that wait for a confirmation."""
MAX_READS: Final = 2_000
"""Reads that may wait at once; more are refused at once, so that a slow Redis fills no memory here."""


class Store:
    """The connections of one API process, and what is counted about them."""

    def __init__(self, settings: RedisSettings, confirm_s: float = 1.0, deadline_s: float | None = None) -> None:
        self.settings = settings
        self._confirm_s = confirm_s
        self._deadline_s = DEADLINE_S if deadline_s is None else deadline_s
        self._reads = AsyncClient(settings, "headrace-api")
        self._submits = AsyncClient(settings, "headrace-api-submit")
        self._confirming = [AsyncClient(settings, "headrace-api-confirm") for _ in range(CONFIRMING)]
        self._turn = itertools.cycle(self._confirming)
        self._standing: Connection | None = None
        self._reading = 0
        self.up = True
        """Whether the last call got an answer."""
        self._logged_at = float("-inf")
        self.errors: dict[str, int] = {}
        """Code of a HeadraceError → how often."""
        self.durations: dict[str, Buckets] = {}
        """Script, or `command` → how long answers took."""

    async def read(self, call: Call[R]) -> R:
        """A call of which nothing depends when it is lost. Raises StoreUnavailable, RedisError."""
        return await self._bounded_read(lambda: self._reads.call(call, timeout_s=self._deadline_s), call.script.name)

    async def call(self, call: Call[R]) -> R:
        """`read` by the name that it has in the library, whose functions take a store, too."""
        return await self.read(call)

    async def command(self, *args: bytes | str | int) -> Any:
        """One plain command, as `read`."""
        return await self._bounded_read(lambda: self._reads.command(*args, timeout_s=self._deadline_s), "command")

    def patience_s(self, durability: Durability) -> float:
        """Seconds within which a submission is answered, one way or the other."""
        return self._deadline_s if isinstance(durability, Local) else max(self._deadline_s, self._confirm_s)

    async def write(self, call: Call[R], durability: Durability, give_up: float) -> R:
        """A call whose answer is confirmed as `durability` asks, by `give_up` (the loop's time).

        Raises StoreUnavailable, StoreFull, StoreTimeout, DurabilityUnconfirmed, RedisError, ConfigError.
        """
        limit = max(0.05, give_up - asyncio.get_running_loop().time())
        name = call.script.name
        if isinstance(durability, Local):
            return await self._watched(lambda: self._submits.call(call, timeout_s=limit), limit, name, self._submits)
        client, wait_s = next(self._turn), min(limit, self._confirm_s)
        return await self._watched(lambda: client.call(call, durability, timeout_s=wait_s), wait_s + WAIT_SLACK_S, name)

    async def connection(self) -> Connection:
        """The connection for reads. Another one than before may lead to another Redis."""
        if self._standing is None or self._standing.lost is not None:
            self._standing = await self._watched(self._reads.connection, self._deadline_s, "connect")
        return self._standing

    async def _bounded_read(self, start: Callable[[], Awaitable[R]], name: str) -> R:
        if self._reading >= MAX_READS:
            raise StoreTimeout(str(self.settings), f"{MAX_READS} reads wait already")
        self._reading += 1
        try:
            return await self._watched(start, self._deadline_s, name, self._reads)
        finally:
            self._reading -= 1

    async def _watched(
        self, start: Callable[[], Awaitable[R]], limit_s: float, name: str, client: AsyncClient | None = None
    ) -> R:
        """`client` is whose answer is all that is waited for, if nothing else is: it keeps to the limit by itself."""
        began = time.perf_counter()
        try:
            if client is not None and client.is_connected:
                result = await start()
            else:
                async with asyncio.timeout(limit_s):
                    result = await start()
        except TimeoutError:
            error = StoreTimeout(str(self.settings), f"no answer within {limit_s:.2g} s")
            self._failed(error)
            raise error from None
        except HeadraceError as error:
            self._failed(error)
            raise
        self.up = True
        self._buckets(name).observe(time.perf_counter() - began)
        return result

    @property
    def _clients(self) -> tuple[AsyncClient, ...]:
        return (self._reads, self._submits, *self._confirming)

    def _buckets(self, name: str) -> Buckets:
        if name not in self.durations:
            self.durations[name] = Buckets(REDIS_BUCKETS)
        return self.durations[name]

    def _failed(self, error: HeadraceError) -> None:
        self.up = not isinstance(error, StoreUnavailable) or isinstance(error, StoreFull)
        self.errors[error.code] = self.errors.get(error.code, 0) + 1
        now = time.monotonic()
        if now - self._logged_at > LOG_EVERY_S:
            # Thousands of requests may fail of one cause.
            self._logged_at = now
            said = str(error)
            if isinstance(error, DurabilityUnconfirmed):
                said = f"{self.settings} did not confirm {error.durability} in time"
            logger.warning("%s", said, extra={"fields": {"code": error.code, "failed": sum(self.errors.values())}})

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients:
            await client.aclose()


@lru_cache(maxsize=2_048)
def queue_of_namespace(namespace: str, name: str) -> Queue:
    """The transitions of one queue. Cached, because an id names its queue and making one costs more than a call.

    Raises UnknownQueue for what can be no queue's name.
    """
    return named(name, namespace)
