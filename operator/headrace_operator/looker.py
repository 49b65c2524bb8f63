"""Looking at all queues of all pools at once: a few round trips a Redis, however many pools there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Set
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import structs

from headrace.broker.broker import Call, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connection import Connection
from headrace.broker.demand import Demand, Unchanged
from headrace.errors import HeadraceError, StoreTimeout
from headrace.redis_settings import RedisSettings

logger = logging.getLogger("headrace.operator")

R = TypeVar("R")
DUE_WITHIN_S: Final = 3.0
"""A delayed task counts so long before it is due: about what a pod takes to start."""
LOOK_S: Final = 2.0
"""A Redis that does not answer for so long counts as unreachable in this tick."""
AT_ONCE: Final = 200
"""Queues that are asked for in one write."""


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
        self._questions: dict[Place, Call[Demand]] = {}
        self._made: set[Place] = set()
        self.kept: dict[str, Set[Place]] = {}
        """Connection → the queues that are looked at there."""
        self.up: dict[str, bool] = {}
        """Connection → whether the last look at queues there got an answer."""

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

    def _question(self, place: Place) -> Call[Demand]:
        """The same one each time, so that the same answer gives the same object."""
        if place not in self._questions:
            question = structs.replace(self.queue(place).demand(DUE_WITHIN_S), parse=Unchanged())
            self._questions[place] = _by_itself(question)
        return self._questions[place]

    def keep(self, name: str, places: Set[Place]) -> None:
        """These queues of a connection are all that is looked at there from now on; without any, it is forgotten."""
        for place in self.kept.pop(name, set()) - places:
            self._queues.pop(place, None)
            self._questions.pop(place, None)
            self._made.discard(place)
        if places:
            self.kept[name] = places
        else:
            self.up.pop(name, None)

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
                connection = await client.connection()
            answers = await self._ask(connection, places)
        except (HeadraceError, TimeoutError) as error:
            self.up[name] = False
            self._made.difference_update(places)  # it may come back with nothing in it
            return dict.fromkeys(places, _worded(error))
        # What cannot be read was an answer, too.
        self.up[name] = any(isinstance(each, Demand | ValueError) for each in answers.values())
        # An error now; the next look makes what is missing again.
        self._made.difference_update(place for place in places if not isinstance(answers[place], Demand))
        return answers

    async def _ask(self, connection: Connection, places: list[Place]) -> dict[Place, Demand | Exception]:
        """Some at a time, so that the time limit is about Redis, and not about how many pools there are."""
        found: dict[Place, Demand | Exception] = {}
        for some in (places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE)):
            fresh = [place for place in some if place not in self._made]
            made = await connection.calls([_by_itself(self.queue(place).init()) for place in fresh], LOOK_S)
            self._made.update(place for place, said in zip(fresh, made, strict=True) if isinstance(said, tuple))
            calls = [self._question(place) for place in some]
            answers = await connection.calls(calls, LOOK_S)
            found.update(zip(some, answers, strict=True))
        return found

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()


def _by_itself(call: Call[R]) -> Call[R]:
    """The same, and an answer that nobody can read is an error of this queue: one of others would end the look."""

    def parse(reply: Any) -> R:
        try:
            return call.parse(reply)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"its data in Redis cannot be read ({type(error).__name__}: {error})") from error

    return structs.replace(call, parse=parse)


def _worded(error: Exception) -> Exception:
    late = isinstance(error, StoreTimeout) or (isinstance(error, TimeoutError) and not str(error))
    return TimeoutError(f"no answer within {LOOK_S:g} s") if late else error
