"""The supervised loop that brings a connection back, whatever ended it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from headrace.broker.connecting import connect
from headrace.broker.connection import Connection
from headrace.errors import HeadraceError
from headrace.redis_settings import RedisSettings

logger = logging.getLogger("headrace.worker")

RECONNECT_S: Final = (0.05, 0.1, 0.25, 0.5)
"""The longest pauses before the next tries, each by chance down to a quarter of it: hundreds of workers lose Redis in
the same moment, and must not come back in step."""
STEADY_S: Final = 5.0
"""A connection that stood so long was a good one. One that ends sooner (no rights, a replica) counts as a failure, so
that the next try does not come at once."""
SPEAK_S: Final = 30.0
"""Between two lines in the log about the same outage."""


class Voice:
    """Keeps repeated complaints from filling the log."""

    def __init__(self) -> None:
        self._spoken: dict[str, float] = {}

    def may_speak(self, now: float, text: str = "") -> bool:
        """Whether SPEAK_S have passed since this last said yes to this text."""
        self._spoken = {each: at for each, at in self._spoken.items() if now - at < SPEAK_S}
        fresh = text not in self._spoken
        self._spoken.setdefault(text, now)
        return fresh


async def keep_connected(
    redis: RedisSettings,
    name: str,
    use: Callable[[Connection], Awaitable[None]],
    lost: Callable[[Exception], None] = lambda reason: None,
    voice: Voice | None = None,
) -> None:
    """Connect, `use` the connection, wait for its end, and so on for ever. `lost` hears why each one ended.

    Connections that share a `voice` complain once of what they all meet.
    """
    loop, failures, complained = asyncio.get_running_loop(), 0, False
    voice = voice or Voice()

    async def used(connection: Connection) -> None:
        nonlocal complained
        await use(connection)
        if complained:
            complained = False
            logger.info("Redis is back at %s", redis)

    while True:
        began = loop.time()
        reason = await _keep_one(redis, name, used)
        lost(reason)
        if loop.time() - began >= STEADY_S:
            failures = 0
        if voice.may_speak(loop.time(), str(reason)):
            complained = True
            logger.warning("%s", reason)
        pause = RECONNECT_S[min(failures, len(RECONNECT_S) - 1)]
        await asyncio.sleep(random.uniform(pause / 4, pause))
        failures += 1


async def _keep_one(redis: RedisSettings, name: str, use: Callable[[Connection], Awaitable[None]]) -> Exception:
    """One connection from its beginning to its end. Returns why it ended."""
    connection: Connection | None = None
    try:
        connection = await connect(redis, name)
        await use(connection)
        await connection.wait_closed()
    except HeadraceError as error:
        return error
    finally:
        if connection is not None:
            connection.close()
    assert connection.lost is not None
    return connection.lost
