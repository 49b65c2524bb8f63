"""A full list now and then: what was deleted while no watch told it is forgotten.

A watch that breaks off begins anew with a list, which shows what is there, and not what is gone since.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from .cluster import ClusterError
from .fleet import Key, pool_of
from .kube import Watched
from .loop import ControlLoop
from .manifests import MANAGED
from .requests import NAMES_ONLY, Requests, query
from .tidy import tidy

logger = logging.getLogger("headrace.operator")

EVERY_S: Final = 300.0
SOON_S: Final = 5.0
"""After a watch has begun anew, so that all of its objects have come."""
PAGE: Final = 500
_OURS: Final = quote(",".join(f"{name}={value}" for name, value in MANAGED.items()))


class Recount:
    """Of one operator process; `namespaces` are those that it watches, none for all."""

    def __init__(
        self, requests: Requests, loop: ControlLoop, watched: Watched, namespaces: Sequence[str],
        on_gone: Callable[[Key, str], None],
    ) -> None:  # fmt: skip
        self._requests = requests
        self._loop = loop
        self._watched = watched
        self._within = [f"namespaces/{name}/" for name in namespaces] or [""]
        self._on_gone = on_gone
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """A watch has begun anew."""
        self._soon.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._soon.wait()
                    await asyncio.sleep(SOON_S)
            self._soon.clear()
            try:
                await self.once()
            except ClusterError as error:
                logger.warning("what is in the cluster was not counted again: %s", error)
            tidy()

    async def once(self) -> None:
        """Forget what is gone. What came or changed while the lists were made is left alone. Raises ClusterError."""
        known, pools, invalid = self._watched.known(), dict(self._loop.pools), dict(self._loop.invalid)
        resources = [each async for each in self._list("apis/headrace.dev/v1alpha1", "workerpools", {})]
        there = {Key(each["metadata"]["namespace"], each["metadata"]["name"]) for each in resources}
        ours = {"labelSelector": _OURS}
        deployments = {key async for each in self._list("apis/apps/v1", "deployments", ours) if (key := pool_of(each))}
        pods: dict[Key, set[str]] = defaultdict(set)
        async for each in self._list("api/v1", "pods", ours):
            if (key := pool_of(each)) is not None:
                pods[key].add(each["metadata"]["name"])
        for key, seen in (*pools.items(), *invalid.items()):
            if key not in there and seen in (self._loop.pools.get(key), self._loop.invalid.get(key)):
                logger.warning("pool %s was deleted, and no watch has told it", key)
                self._loop.lost_pool(key)
        for key, name in self._watched.forget_others(deployments, pods, known):
            self._on_gone(key, name)

    async def _list(self, api: str, resource: str, given: dict[str, str]) -> AsyncIterator[Any]:
        """Names, labels and no more of all of a kind."""
        for within in self._within:
            more = ""
            while True:
                asked = given | {"limit": str(PAGE)} | ({"continue": quote(more)} if more else {})
                page = await self._requests.send("GET", query(f"/{api}/{within}{resource}", asked), accept=NAMES_ONLY)
                for each in page["items"] or ():  # an empty list may come as null
                    yield each
                more = page["metadata"].get("continue", "")
                if not more:
                    break
