"""How kopf gets at the API server's credentials: as often as it takes.

kopf stops watching when a request is refused with 401 and logging in gives what it gave before, or nothing. Both pass:
an API server that cannot reach who checks its tokens refuses good ones, and a file may be written late.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import kopf

from .requests import in_cluster

logger = logging.getLogger("headrace.operator")

PAUSE_S: Final = 2.0
"""Before the same credentials are tried again."""

Read = Callable[[], kopf.ConnectionInfo | None]


class Logins:
    """Of one term, one after the other."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._last: kopf.ConnectionInfo | None = None
        self._made = 0
        self._told = False

    async def next(self, read: Read) -> kopf.ConnectionInfo:
        """What `read` gives. kopf takes nothing that was refused before, so each has a number."""
        found = read()
        if found is None:
            raise kopf.TemporaryError("there are no credentials for the API server", delay=PAUSE_S)
        if found == self._last:
            await self._wait()
        else:
            self._told = False
        self._last = found
        self._made += 1
        return dataclasses.replace(found, priority=self._made)

    async def _wait(self) -> None:
        if not self._told:
            logger.warning(
                "the API server takes the credentials of this operator no more (401); they are read and tried again "
                "every %g s",
                PAUSE_S,
            )
        self._told = True
        await self._sleep(PAUSE_S)


def credentials(**given: Any) -> kopf.ConnectionInfo | None:
    """Those of the pod's account in a cluster, else of the kubeconfig."""
    if in_cluster():
        return kopf.login_with_service_account(**given)
    return kopf.login_with_kubeconfig(**given)
