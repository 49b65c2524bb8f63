"""Rate limits: of a token, as it is written with it; of a queue, as `ctl` in Redis has it.

The count is Redis', so that a limit holds however many processes serve the API. A process takes permits for a tenth of
a second in one call, so a busy limit costs ten calls a second and process, and one that is not set costs nothing. What
a process took and did not use is lost to the others: at most that tenth. While Redis cannot say, nobody is limited; it
is the store that refuses then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aiohttp import web

from headrace.broker.spending import spend
from headrace.errors import HeadraceError
from headrace.rates import Rate
from headrace.settings import ApiToken

from .created import add_header
from .problems import HttpProblem
from .store import Store, queue_of_namespace

logger = logging.getLogger(__name__)

CHUNK_S: Final = 0.1
"""Seconds' worth of permits that a process takes at once."""
KEEP_S: Final = 2.0
"""Seconds after which permits that were not used are given up, and for which a queue's rate is taken to be the same."""
FIRST_S: Final = 0.1
"""Seconds to wait for a queue's rate when nothing is known of it yet."""
BLIND_S: Final = 1.0
"""Seconds for which Redis is not asked again after it did not answer."""
MAX_KNOWN: Final = 10_000
"""Queues whose rate, or having none, is remembered; and buckets."""


class Allowance(NamedTuple):
    """What is left after a request was let through."""

    name: str
    """`token` or `queue`."""
    rate: Rate
    left: int
    wait_s: float = 0.0
    """Until there is a permit, where none is left."""

    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` as the IETF's draft has them; `t` = seconds until the bucket is full."""
        one_s = self.rate.window_s / self.rate.count
        missing_s = max(0, self.rate.count - self.left) * one_s
        full_s = math.ceil(missing_s - one_s + self.wait_s if self.wait_s else missing_s)
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.rate.count};w={self.rate.window_s}',
            "RateLimit": f'"{self.name}";r={self.left};t={full_s}',
        }

    def announce(self, answer: web.StreamResponse) -> None:
        """Put them on an answer; those of another limit may stand there already."""
        for name, value in self.headers().items():
            add_header(answer, name, value)


@dataclass(slots=True)
class Bucket:
    """One process' part of one limit."""

    store: Store
    namespace: str
    name: str
    """`token` or `queue`."""
    of: str
    """Which."""
    rate: Rate
    clock: Callable[[], float] = time.monotonic
    permits: int = 0
    """Taken and not used yet."""
    left: int = 0
    """In Redis, when it was last asked."""
    _kept_until: float = 0.0
    _empty_until: float = 0.0
    _blind_until: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def spend(self, cost: int) -> Allowance:
        """Raises HttpProblem (429) if the bucket is empty."""
        if not self._has(cost):
            async with self._turn:
                if not self._has(cost):
                    await self._take(cost)
        self.permits -= cost
        return self.allowance()

    def allowance(self) -> Allowance:
        """What is left now."""
        return Allowance(self.name, self.rate, self.left + max(0, self.permits))

    async def charge(self, cost: int) -> None:
        """For a request that was let in and turns out to be larger; what is missing the next ones have to wait for."""
        self.permits -= cost
        if self.permits >= 0:
            return
        owed, self.permits = -self.permits, 0
        with contextlib.suppress(HeadraceError):  # the store counts and logs it
            self.left = (await self.store.read(spend(self.namespace, self._key, self.rate, owed, credit=True))).left

    @property
    def _key(self) -> str:
        # With the rate: who was slowed down by a narrower one need not wait for its bucket to fill.
        return f"{self.name[0]}:{self.of}:{self.rate}"

    def _has(self, cost: int) -> bool:
        now = self.clock()
        if now >= self._kept_until:
            self.permits = 0
        if now < self._empty_until:
            raise self._refuse(self._empty_until - now)
        return self.permits >= cost or now < self._blind_until

    async def _take(self, cost: int) -> None:
        needed = cost - self.permits
        chunk = int(self.rate.count / self.rate.window_s * CHUNK_S)
        try:
            spent = await self.store.read(spend(self.namespace, self._key, self.rate, needed, chunk))
        except HeadraceError:
            self._blind_until = self.clock() + BLIND_S
            self.permits += needed
            return
        now = self.clock()
        self.left = spent.left
        if not spent.taken:
            self._empty_until = now + spent.wait_ms / 1_000
            raise self._refuse(spent.wait_ms / 1_000)
        self.permits += spent.taken
        self._kept_until = now + KEEP_S

    def _refuse(self, wait_s: float) -> HttpProblem:
        seconds = max(1, math.ceil(wait_s))
        detail = f"The {self.name} {self.of!r} has used up its rate of {self.rate}; nothing was done."
        headers = Allowance(self.name, self.rate, 0, wait_s).headers() | {"Retry-After": str(seconds)}
        return HttpProblem(429, "rate_limited", detail, f"Send it again in {seconds} s, and fewer.", headers=headers)


@dataclass(slots=True)
class _Known:
    """The rate of a queue as it was read."""

    text: bytes | None
    rate: Rate | None
    read_at: float


class Limits:
    """All limits of one API process. For one event loop."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._buckets: dict[tuple[str, str, str, Rate], Bucket] = {}
        self._known: dict[tuple[str, str], _Known] = {}
        self._reading: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def of_token(self, caller: ApiToken) -> Bucket | None:
        """Charge the caller for a request, if its token is limited. Raises HttpProblem (429).

        Returns its bucket, for what is left after what the request turned out to cost.
        """
        if caller.rate is None:
            return None
        bucket = self._bucket(caller.namespace, "token", caller.subject, caller.rate)
        await bucket.spend(1)
        return bucket

    async def charge_token(self, caller: ApiToken, tasks: int) -> None:
        """The request that was let in brings so many tasks: each counts as a request."""
        if caller.rate is not None and tasks > 1:
            await self._bucket(caller.namespace, "token", caller.subject, caller.rate).charge(tasks - 1)

    def has_none(self, namespace: str, queue: str) -> bool:
        """Whether the queue is known to have no limit, so that there is nothing to wait for."""
        known = self._known.get((namespace, queue))
        return known is not None and known.rate is None and self._clock() - known.read_at <= KEEP_S

    def forget(self, namespace: str, queue: str) -> None:
        """This process gave the queue another rate: whoever submits now must feel it."""
        self._known.pop((namespace, queue), None)

    async def of_queue(self, namespace: str, queue: str, cost: int = 1) -> Allowance | None:
        """Charge a queue, if it is limited, for so many submissions. Raises HttpProblem (429)."""
        known = self._known.get((namespace, queue))
        if known is None or self._clock() - known.read_at > KEEP_S:
            task = self._read_soon(namespace, queue)
            if known is None:
                # A Redis that hangs is the store's affair; it must not be waited for twice.
                await asyncio.wait({task}, timeout=FIRST_S)
                known = self._known.get((namespace, queue))
        if known is None or known.rate is None:
            return None
        return await self._bucket(namespace, "queue", queue, known.rate).spend(cost)

    def _bucket(self, namespace: str, name: str, of: str, rate: Rate) -> Bucket:
        key = (namespace, name, of, rate)
        if key not in self._buckets:
            if len(self._buckets) >= MAX_KNOWN:
                self._buckets.clear()
            self._buckets[key] = Bucket(self._store, namespace, name, of, rate, self._clock)
        return self._buckets[key]

    def _read_soon(self, namespace: str, queue: str) -> asyncio.Task[None]:
        key = (namespace, queue)
        if key not in self._reading:
            task = self._reading[key] = asyncio.create_task(self._read(namespace, queue), name="headrace-rate")
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        return self._reading[key]

    async def _read(self, namespace: str, queue: str) -> None:
        """What cannot be read stays as it was."""
        known = self._known.get((namespace, queue)) or _Known(None, None, 0.0)
        try:
            text = await self._store.command("HGET", queue_of_namespace(namespace, queue).keys["ctl"], "rate")
        except HeadraceError:
            text = known.text  # the store counts and logs it
        rate = known.rate if text == known.text else _parse(text, queue)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[namespace, queue] = _Known(text, rate, self._clock())

    async def aclose(self) -> None:
        """Stop reading."""
        await asyncio.gather(*self._reading.values(), return_exceptions=True)


def _parse(text: bytes | None, queue: str) -> Rate | None:
    try:
        return None if text is None else Rate.parse(text.decode("utf-8", "replace"))
    except ValueError as error:
        logger.warning("The queue %s has no rate that counts: in Redis, %s", queue, error)
        return None
