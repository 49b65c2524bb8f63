"""The door of a queue: a group commit (see `headrace.broker.group_commit`) whose calls all end within a second.

A call whose answer was lost is sent once more with the same ids, which stores nothing twice.
"""

from __future__ import annotations

import asyncio

from headrace.broker import durability as durable
from headrace.broker.broker import MAX_SUBMIT, NewTask, Queue
from headrace.broker.connection import Connection
from headrace.broker.group_commit import Answers, GroupCommit
from headrace.errors import FieldError, InvalidTask, StoreFull, StoreTimeout, StoreUnavailable
from headrace.settings import ApiSettings

from .store import Store


class Door(GroupCommit):
    """The way into one queue, for one event loop.

    `submit` raises StoreUnavailable (and its kinds), DurabilityUnconfirmed, InvalidTask (too many queues).
    """

    def __init__(self, store: Store, queue: Queue, settings: ApiSettings) -> None:
        super().__init__(self._ask, str(store.settings))
        self.queue = queue
        self._store = store
        self._settings = settings
        self._durability = settings.durability[queue.name]
        self._known_on: Connection | None = None
        self._making_known = asyncio.Lock()

    async def _make_known(self) -> None:
        """Another connection may lead to an empty Redis, where nothing is known of this queue."""
        connection = await self._store.connection()
        if connection is self._known_on:
            return
        async with self._making_known:
            if connection is not self._known_on:
                await self._enlist(connection.run_id)
                self._known_on = connection

    async def _enlist(self, run_id: str) -> None:
        limit = self._settings.max_queues
        if not await self._store.read(self.queue.enlist(max_queues=limit)):
            detail, hint = f"the namespace has its {limit} queues", "use one of them, or raise HEADRACE_MAX_QUEUES"
            raise InvalidTask(self.queue.name, [FieldError("/queue", detail, hint)])
        await self._store.read(self.queue.init(run_id))

    async def _ask(self, tasks: list[NewTask], began: float) -> Answers:
        give_up = began + self._store.patience_s(self._durability)
        await self._make_known()
        touch = durable.touches(self._durability)
        call = self.queue.submit(tasks, self._settings.max_depth, touch=touch)
        try:
            return await self._store.write(call, self._durability, give_up)
        except StoreUnavailable as error:
            if isinstance(error, StoreFull | StoreTimeout):
                raise
            return await self._store.write(call, self._durability, give_up)


__all__ = ["MAX_SUBMIT", "Door"]
