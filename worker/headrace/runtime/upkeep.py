"""What a queue needs before it is served: streams and groups, its place in the list, and what waits for our types."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Final

import msgspec

from headrace.broker import durability
from headrace.broker.broker import Queue
from headrace.broker.connection import Connection
from headrace.broker.publishing import publish, renew
from headrace.errors import HeadraceError
from headrace.runtime.claims import QueueClaims
from headrace.runtime.reconnect import Voice
from headrace.task import ENVELOPE_VERSION
from headrace.taskdef import TaskDef

logger = logging.getLogger("headrace.worker")

MEND_S: Final = 1.0
"""Between two tries to make a queue's streams that are missing."""
RELEASE_TYPES: Final = 100
"""Types a call asks for parked tasks of."""


class Upkeep:
    """Of the queues of one worker."""

    def __init__(self, registry: Mapping[str, TaskDef], max_queues: int) -> None:
        self._registry = registry
        self._max_queues = max_queues
        self._mending: set[str] = set()
        self._missing, self._unlisted = Voice(), Voice()

    async def prepare(self, claims: QueueClaims, connection: Connection) -> None:
        """The queue exists and is listed, its epoch is known, and what was parked for our types is released.

        Raises HeadraceError, also if this server cannot keep what the queue's durability promises.
        """
        await durability.check(claims.durability, connection)
        queue = claims.queue
        claims.epoch, _ = await connection.call(queue.init(connection.run_id))
        await connection.call(publish(queue.namespace, self._types))
        listed = await connection.call(queue.enlist(max_queues=self._max_queues))
        if not listed and self._unlisted.may_speak(asyncio.get_running_loop().time()):
            logger.warning(
                "queue %s is served but not listed: its namespace has HEADRACE_MAX_QUEUES (%d) queues already",
                queue.name,
                self._max_queues,
            )
        await self.release(queue, connection)

    async def renew(self, namespace: str, connection: Connection) -> None:
        """Our types stay published as versions that are known by somebody. Raises HeadraceError."""
        if await connection.call(renew(namespace, self._types)):
            await connection.call(publish(namespace, self._types))

    async def release(self, queue: Queue, connection: Connection) -> None:
        """Tasks that were parked for want of a handler that is here become pending."""
        keys = [*self._registry, *(f"!v{version}" for version in range(1, ENVELOPE_VERSION + 1))]
        for start in range(0, len(keys), RELEASE_TYPES):
            while await connection.call(queue.release(keys[start : start + RELEASE_TYPES])):
                continue

    def starts_mending(self, claims: QueueClaims) -> bool:
        """Whether `mend` is to be run now: one at a time for each queue."""
        if claims.queue.name in self._mending:
            return False
        self._mending.add(claims.queue.name)
        return True

    async def mend(self, claims: QueueClaims, connection: Connection) -> None:
        """Make the streams and groups again that somebody deleted."""
        if self._missing.may_speak(asyncio.get_running_loop().time()):
            logger.warning(
                "queue %s cannot be read: its streams or their group were deleted; they are made again",
                claims.queue.name,
            )
        try:
            await self.prepare(claims, connection)
            claims.reconcile()
        except HeadraceError as error:
            logger.warning("queue %s cannot be made again: %s", claims.queue.name, error)
        try:
            await asyncio.sleep(MEND_S)
        finally:
            self._mending.discard(claims.queue.name)

    @cached_property
    def _types(self) -> dict[str, bytes]:
        return {name: msgspec.json.encode(definition.describe()) for name, definition in self._registry.items()}
