"""Which of several operators works: the holder of a Lease.

The holder renews it well before it ends, by its own monotonic clock, and stops at once when it could not. A candidate
never compares clocks with the holder: it takes over when it saw no change of the Lease for its whole duration.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from .cluster import ClusterError, Conflict
from .requests import NotThere, Requests

logger = logging.getLogger("headrace.operator")

NAME: Final = "headrace-operator"
DURATION_S: Final = 15.0
RENEW_S: Final = 10.0
"""A holder that could not renew for so long stops working, before anybody else may begin."""
RETRY_S: Final = 2.0


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

    def __init__(self, requests: Requests, namespace: str, identity: str) -> None:
        self._requests = requests
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self.identity = identity
        self._held: Held | None = None
        self.holding = False

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until this process holds the Lease. False if it is told to stop before."""
        waits_for = ""
        while not stop.is_set():
            if await self._try():
                self.holding = True
                logger.info("this operator (%s) holds the Lease and works", self.identity)
                return True
            if self._held is not None and self._held.holder != waits_for:
                waits_for = self._held.holder
                logger.info("this operator (%s) waits: %s holds the Lease", self.identity, waits_for)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_S)
        return False

    async def keep(self) -> None:
        """Renew until that fails for too long, then return: the process must end, or two would work."""
        renewed_s = time.monotonic()
        while time.monotonic() - renewed_s < RENEW_S:
            await asyncio.sleep(RETRY_S)
            if await self._try():
                renewed_s = time.monotonic()
            elif self._held is not None and self._held.holder not in {"", self.identity}:
                break
        self.holding = False
        logger.error("the Lease is lost: this operator stops, so that only its holder works")

    async def release(self) -> None:
        """Give it up, so that another may begin at once."""
        if not self.holding or self._held is None:
            return
        self.holding = False
        try:
            await self._write("", self._held.version)
        except ClusterError as error:
            logger.warning("the Lease was not released: %s", error)

    async def _try(self) -> bool:
        try:
            self._held = observe(self._held, await self._read(), time.monotonic())
            if not may_take(self._held, self.identity, time.monotonic()):
                return False
            written = await self._write(self.identity, self._held.version)
            self._held = observe(self._held, written, time.monotonic())
        except Conflict:
            return False
        except (ClusterError, TimeoutError) as error:
            logger.warning("the Lease cannot be read or written: %s", error)
            return False
        return True

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
