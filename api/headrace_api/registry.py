"""What the workers published of the types they know: schema, queue, defaults. Kept here for two seconds at a time.

During a rollout old and new workers know a type in two versions: a payload passes if either accepts it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from headrace.broker.connection import RedisError
from headrace.broker.keys import NamespaceKeys
from headrace.errors import FieldError, nearest
from headrace.known_types import Described, described, grouped
from headrace.task import check_queue

from .schema_check import MAX_ERRORS, Check, accepts_all, accepts_either, compile_schema
from .store import Store

FRESH_S: Final = 2.0
"""Seconds for which what was read is taken as it is."""
STALE_S: Final = 0.25
"""Seconds after which an unknown type is looked for once more: its worker may just have started."""
MAX_MEANT: Final = 1_000
"""Unknown types of which it is kept what was meant: to find that out costs more than the rest of a submission."""


@dataclass(frozen=True, slots=True)
class KnownType:
    """A type that some worker has published."""

    name: str
    texts: list[bytes]
    """What was published of each version, the newest first."""
    described: Described
    """The newest version."""
    check: Check
    """Of a payload: any version may accept it, the newest says what is wrong."""

    def errors(self, payload: Any) -> Sequence[FieldError]:
        """What is wrong with a payload, by its place in the body."""
        found = self.check(payload)
        return [replace(each, pointer="/payload" + each.pointer) for each in found[:MAX_ERRORS]] if found else found


def is_queue(name: str) -> bool:
    """Whether a queue can be called so."""
    try:
        return bool(check_queue(name))
    except ValueError:
        return False


def _heard(reading: asyncio.Task[None]) -> None:
    """A failed look is told to those who wait for it; for the others what was known last counts."""
    if not reading.cancelled():
        reading.exception()


class Types:
    """The types of one namespace, for one event loop."""

    def __init__(self, store: Store, namespace: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._key = NamespaceKeys(namespace)["types"]
        self._clock = clock
        self._types: dict[str, KnownType] = {}
        self._meant: dict[str, str | None] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    @property
    def names(self) -> Mapping[str, KnownType]:
        """What is known now, perhaps two seconds old."""
        return self._types

    def get(self, name: str) -> KnownType | None:
        """The type of this name, as far as is known without waiting."""
        if self._clock() - self._read_at > FRESH_S:
            self._refresh()  # for the next one; this one takes what there is
        return self._types.get(name)

    async def find(self, name: str) -> KnownType | None:
        """The type of this name, looked for in Redis if it is not known. Raises StoreUnavailable."""
        found = self.get(name)
        if found is None and self._clock() - self._read_at > STALE_S:
            await asyncio.shield(self._refresh())
            return self._types.get(name)
        return found

    def nearest(self, name: str) -> str | None:
        """The known type that a person most likely meant."""
        name = name[:128]
        if name not in self._meant:
            if len(self._meant) >= MAX_MEANT:
                self._meant.clear()
            self._meant[name] = nearest(name, self._types)
        return self._meant[name]

    def _refresh(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="headrace-types")
            self._reading.add_done_callback(_heard)
        return self._reading

    async def _read(self) -> None:
        try:
            reply = await self._store.command("HGETALL", self._key)
        except RedisError:
            reply = []  # no rights, or something foreign under our key: then no type is known
        found = {name: self._known(name, texts) for name, texts in grouped(reply).items()}
        if found.keys() != self._types.keys():
            self._meant.clear()
        self._types = found
        self._read_at = self._clock()

    def _known(self, name: str, texts: list[bytes]) -> KnownType:
        before = self._types.get(name)
        if before is not None and before.texts == texts:
            return before
        # What something foreign or a later version wrote is known by name only.
        read = [described(text) for text in texts]
        newest = read[0] or Described()
        if newest.queue is not None and not is_queue(newest.queue):
            newest = msgspec.structs.replace(newest, queue=None)
        checks = [compile_schema(each.schema) if each else accepts_all for each in read]
        return KnownType(name, texts, newest, accepts_either(checks))

    async def aclose(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
