"""Idempotency-Key: the same key of the same caller means the same task, without a table of keys.

The id is an HMAC over namespace, queue, the token's subject and the key, with a random secret that is kept once per
namespace in Redis. So every replica of the API makes the same id, a rotated token changes nothing, and nobody can
find out another's id by guessing keys. The window is as long as the task's record is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from asyncio import get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Final

from multidict import CIMultiDictProxy, istr

from headrace.broker.connection import Connection
from headrace.broker.shared import secret_call
from headrace.broker.single_flight import SingleFlight
from headrace.errors import StoreUnavailable
from headrace.settings import Durability, Local
from headrace.task import queue_id

from .problems import HttpProblem
from .store import Store

IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_KEY: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"|([\x21\x23-\x7e]+)')
"""A structured-field string in quotes, or the bare key that most clients send."""


def read_key(headers: CIMultiDictProxy[str], limit: int) -> str | None:
    """The key of a request, without its quotes. Raises HttpProblem (400)."""
    given = headers.getall(IDEMPOTENCY_KEY, ())
    if not given:
        return None
    match = _KEY.fullmatch(given[0]) if len(given) == 1 else None
    key = "" if match is None else match[2] or re.sub(r"\\(.)", r"\1", match[1])
    if not 0 < len(key) <= limit:
        raise HttpProblem(
            400,
            "bad_idempotency_key",
            "The Idempotency-Key cannot be used.",
            f"Send it once, with 1 to {limit} visible ASCII characters, such as a UUID.",
        )
    return key


def namer(secret: bytes, namespace: str, subject: str, key: str) -> Callable[..., str]:
    """The function from a queue (and a number within a batch) to an id."""

    def task_id(queue: str, index: int = 0) -> str:
        parts = (namespace, queue, subject, key, str(index))
        text = b"".join(b"%d:%b" % (len(part), part) for part in (each.encode() for each in parts))
        digest = hmac.digest(secret, text, hashlib.sha256)
        return queue_id(queue, uuid.UUID(bytes=digest[:16]))

    return task_id


class Keys:
    """The secret that makes ids of keys in one namespace. For one event loop."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._secret = secrets.token_hex(32).encode()
        """Until one was read: what is proposed."""
        self._read_on: Connection | None = None
        self._confirmed: set[Durability] = set()
        self._shared: SingleFlight[None] = SingleFlight(str(store.settings))
        """After a start or a reconnect many ask at once, and each confirmation holds its connection up."""

    async def secret(self) -> bytes:
        """The namespace's secret, the same for all replicas; made by whoever first asks. Raises StoreUnavailable.

        Another connection may lead to a Redis that lost it and has another one, or is told this one again.
        """
        connection = await self._store.connection()
        if connection is not self._read_on:
            await self._shared.share(connection, partial(self._read, connection))
        return self._secret

    async def _read(self, connection: Connection) -> None:
        self._secret = await self._store.read(secret_call(self._namespace, self._secret, Local()))
        self._confirmed = {Local()}
        self._read_on = connection

    async def confirm(self, secret: bytes, durability: Durability) -> None:
        """Make sure that the secret lasts as tasks of this durability do, before one is stored whose id it made.

        Raises StoreUnavailable, also if it is another one by now, and DurabilityUnconfirmed.
        """
        if secret != await self.secret():
            raise self._lost()
        if durability not in self._confirmed:
            # What is out on behalf of a connection that is lost says nothing of the one that stands.
            await self._shared.share((durability, secret, self._read_on), partial(self._confirm, secret, durability))

    async def _confirm(self, secret: bytes, durability: Durability) -> None:
        confirmed, call = self._confirmed, secret_call(self._namespace, secret, durability)
        give_up = get_running_loop().time() + self._store.patience_s(durability)
        if await self._store.write(call, durability, give_up) != secret:
            self._read_on = None
            raise self._lost()
        confirmed.add(durability)

    def _lost(self) -> StoreUnavailable:
        return StoreUnavailable(str(self._store.settings), "it lost the secret of idempotency keys", True)

    async def aclose(self) -> None:
        """Wait for what is out."""
        await self._shared.aclose()
