"""Which of several operators leads: the holder of a Lease.

The holder leads for RENEW_S from the moment at which it asked for its last renewal, by its own monotonic clock; then it
stops by itself, whether or not it can reach the API server, and campaigns again. A candidate never compares clocks with
the holder: it takes over when it saw no change of the Lease for its whole duration, which is longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from .cluster import ClusterError, Conflict
from .requests import NotThere, Requests

logger = logging.getLogger("headrace.operator")

NAME: Final = "headrace-operator"
DURATION_S: Final = 15.0
RENEW_S: Final = 10.0
"""A holder that could not renew for so long leads no more, before anybody else may begin."""
RETRY_S: Final = 2.0
TRY_S: Final = 4.0
"""An attempt to take or renew it that takes longer is given up, and another one is made."""


@dataclass(frozen=True, slots=True)
class Held:
    """A Lease as last seen, and when this process saw it change."""

    holder: str
    version: str
    renewed: str
    seen_s: float


def may_take(held: Held | None, me: str, now_s: float) -> bool:
    """Whether this process may write itself into the Lease."""
    return held is None or held.holder in {"", me} or now_s - held.seen_s > DURATION_S


def observe(before: Held | None, raw: dict[str, Any], now_s: float) -> Held:
    """What a read shows; a Lease that did not change keeps the time at which it was first seen so."""
    spec = raw.get("spec") or {}
    holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
    same = before is not None and (before.holder, before.renewed) == (holder, renewed)
    seen_s = before.seen_s if same and before is not None else now_s
    return Held(holder, raw["metadata"]["resourceVersion"], renewed, seen_s)


class Lease:
    """Of one process."""

    def __init__(
        self, requests: Requests, namespace: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = requests
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._clock = clock
        self.identity = identity
        self._held: Held | None = None
        self._until_s = float("-inf")
        self.trouble = ""
        """Why the Lease could not be read or written the last time; '' if it could."""

    def leads(self) -> bool:
        """Whether this process may act at this very moment."""
        return self._clock() < self._until_s

    @property
    def holder(self) -> str:
        """Who holds it, as far as is known; '' for nobody."""
        return "" if self._held is None else self._held.holder

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until this process leads. False if it is told to stop before."""
        waits_for = ""
        while not stop.is_set():
            if await self._try(TRY_S):
                logger.info("this operator (%s) holds the Lease and works", self.identity)
                return True
            if self.holder not in {waits_for, self.identity}:
                waits_for = self.holder
                logger.info("this operator (%s) waits: %s holds the Lease", self.identity, waits_for)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_S)
        return False

    async def keep(self) -> None:
        """Renew until somebody else holds it, or until that fails for too long; then this process leads no more."""
        while self.leads():
            await asyncio.sleep(min(RETRY_S, self._left_s))
            await self._try(min(TRY_S, self._left_s))
            if self.holder not in {"", self.identity}:
                break
        self._until_s = float("-inf")
        logger.error("the Lease is lost (%s): this operator stands by", self.trouble or f"{self.holder} holds it")

    @property
    def _left_s(self) -> float:
        return max(0.0, self._until_s - self._clock())

    async def release(self) -> None:
        """Give it up, so that another may begin at once."""
        if not self.leads() or self._held is None:
            return
        self._until_s = float("-inf")
        try:
            await self._write("", self._held.version)
        except ClusterError as error:
            logger.warning("the Lease was not released: %s", error)

    async def _try(self, patience_s: float) -> bool:
        """Take it or renew it."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._take()
        except Conflict:
            return False
        except (ClusterError, TimeoutError) as error:
            self.trouble = str(error) or "the API server does not answer"
            logger.warning("the Lease cannot be read or written: %s", self.trouble)
            return False

    async def _take(self) -> bool:
        self._held = observe(self._held, await self._read(), self._clock())
        self.trouble = ""
        # Others may begin to count when the server has written it, which may be long before its answer is here.
        asked_s = self._clock()
        if not may_take(self._held, self.identity, asked_s):
            return False
        written = await self._write(self.identity, self._held.version)
        self._held = observe(self._held, written, self._clock())
        self._until_s = asked_s + RENEW_S
        return self.leads()

    async def _read(self) -> dict[str, Any]:
        try:
            return await self._requests.send("GET", f"{self._path}/{NAME}")
        except NotThere:
            return await self._requests.send("POST", self._path, self._body(""))

    async def _write(self, holder: str, version: str) -> dict[str, Any]:
        body = self._body(holder)
        body["metadata"]["resourceVersion"] = version
        return await self._requests.send("PUT", f"{self._path}/{NAME}", body)

    def _body(self, holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": holder, "leaseDurationSeconds": int(DURATION_S), "renewTime": now}
        return {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace}, "spec": spec,
        }  # fmt: skip
