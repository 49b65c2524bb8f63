"""Looking at all queues of all pools at once: one round trip a Redis, however many pools there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.broker.demand import Demand, GroupMissingError
from headrace.errors import HeadraceError
from headrace.redis_settings import RedisSettings

logger = logging.getLogger("headrace.operator")

DUE_WITHIN_S: Final = 3.0
"""A delayed task counts so long before it is due: about what a pod takes to start."""
LOOK_S: Final = 2.0
"""A Redis that does not answer for so long counts as unreachable in this tick."""


class Place(NamedTuple):
    """One queue of one Redis."""

    connection: str
    tenant: str
    queue: str


class Looker:
    """Of all Redis connections that the settings name. One that is slow or away delays no other."""

    def __init__(self, connections: Mapping[str, RedisSettings]) -> None:
        self._clients = {name: AsyncClient(settings, "headrace-operator") for name, settings in connections.items()}
        self._queues: dict[Place, Queue] = {}
        self._made: set[Place] = set()

    @property
    def names(self) -> Iterable[str]:
        return self._clients

    def client(self, name: str) -> AsyncClient | None:
        """The connection of this name, if the settings name one."""
        return self._clients.get(name)

    def queue(self, place: Place) -> Queue:
        if place not in self._queues:
            self._queues[place] = Queue(place.queue, place.tenant)
        return self._queues[place]

    async def look(self, places: Iterable[Place]) -> dict[Place, Demand | Exception]:
        """Every queue's demand, or why it could not be read; an error is told for each queue by itself."""
        by_connection: dict[str, list[Place]] = {}
        for place in places:
            by_connection.setdefault(place.connection, []).append(place)
        looks = (self._look_at(name, group) for name, group in by_connection.items())
        found: dict[Place, Demand | Exception] = {}
        for each in await asyncio.gather(*looks):
            found.update(each)
        return found

    async def _look_at(self, name: str, places: list[Place]) -> dict[Place, Demand | Exception]:
        client = self._clients.get(name)
        if client is None:
            known = ", ".join(sorted(self._clients))
            return dict.fromkeys(
                places, LookupError(f"no connection {name!r} in the operator's settings, only {known}")
            )
        try:
            async with asyncio.timeout(LOOK_S):
                await client.connection()
                answers = await asyncio.gather(*(self._demand(client, each) for each in places), return_exceptions=True)
        except (HeadraceError, TimeoutError) as error:
            return dict.fromkeys(places, _worded(error))
        return {place: _answer(answer) for place, answer in zip(places, answers, strict=True)}

    async def _demand(self, client: AsyncClient, place: Place) -> Demand:
        queue = self.queue(place)
        if place not in self._made:
            await client.call(queue.init())
            self._made.add(place)
        try:
            return await client.call(queue.demand(DUE_WITHIN_S))
        except GroupMissingError:
            self._made.discard(place)  # an error now; the next look makes the group again
            raise

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()


def _answer(answer: Demand | BaseException) -> Demand | Exception:
    if isinstance(answer, Demand):
        return answer
    if isinstance(answer, HeadraceError | ValueError):
        return answer
    raise answer


def _worded(error: Exception) -> Exception:
    return (
        TimeoutError(f"no answer within {LOOK_S:g} s") if isinstance(error, TimeoutError) and not str(error) else error
    )
