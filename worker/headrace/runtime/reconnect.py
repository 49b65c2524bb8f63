"""The supervised loop that brings a connection back, whatever ended it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from headrace.broker.connection import Connection, connect
from headrace.errors import HeadraceError
from headrace.redis_settings import RedisSettings

logger = logging.getLogger("headrace.worker")

RECONNECT_S: Final = (0.05, 0.1, 0.25, 0.5)
STEADY_S: Final = 5.0
"""A connection that stood so long was a good one. One that ends sooner (no rights, a replica) counts as a failure, so
that the next try does not come at once."""
SPEAK_S: Final = 30.0
"""Between two lines in the log about the same outage."""


class _Voice:
    """What is said of an outage: that it is there, at most every SPEAK_S, and that it is over."""

    def __init__(self, redis: RedisSettings) -> None:
        self._redis = redis
        self._spoken: float | None = None
        self._complained = False

    def lost(self, reason: Exception, now: float) -> None:
        if self._spoken is None or now - self._spoken >= SPEAK_S:
            self._spoken, self._complained = now, True
            logger.warning("%s", reason)

    def back(self) -> None:
        if self._complained:
            self._complained = False
            logger.info("Redis is back at %s", self._redis)


async def keep_connected(
    redis: RedisSettings,
    name: str,
    use: Callable[[Connection], Awaitable[None]],
    lost: Callable[[Exception], None] = lambda reason: None,
) -> None:
    """Connect, `use` the connection, wait for its end, and so on for ever. `lost` hears why each one ended."""
    loop, voice, failures = asyncio.get_running_loop(), _Voice(redis), 0
    while True:
        began = loop.time()
        reason = await _keep_one(redis, name, use, voice)
        lost(reason)
        if loop.time() - began >= STEADY_S:
            failures = 0
        voice.lost(reason, loop.time())
        await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])
        failures += 1


async def _keep_one(
    redis: RedisSettings, name: str, use: Callable[[Connection], Awaitable[None]], voice: _Voice
) -> Exception:
    """One connection from its beginning to its end. Returns why it ended."""
    connection: Connection | None = None
    try:
        connection = await connect(redis, name)
        await use(connection)
        voice.back()
        await connection.wait_closed()
    except HeadraceError as error:
        return error
    finally:
        if connection is not None:
            connection.close()
    assert connection.lost is not None
    return connection.lost
