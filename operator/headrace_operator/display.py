"""What people see of one pool: its status, written only when it changed, and Events, which are no flood."""

from __future__ import annotations

import logging
from typing import Any

from . import status
from .cluster import Cluster, ClusterError, Refused
from .manifests import Ref
from .news import News, Teller
from .observed import Moment

logger = logging.getLogger("headrace.operator")


class Display:
    """Of one pool. `shown`: the status that it has now."""

    def __init__(self, shown: dict[str, Any]) -> None:
        self.teller = Teller()
        self._shown = shown
        self._shown_s = float("-inf")

    async def show(self, cluster: Cluster, pool: Ref, report: status.Report, at: Moment) -> bool:
        """Write the status if that is due. Returns whether all is shown, and nothing is left to be shown later."""
        fresh = status.build(report, self._shown, at.wall)
        if not status.due(fresh, self._shown, self._shown_s, at.s):
            return fresh == self._shown
        try:
            await cluster.show(pool, fresh)
        except ClusterError as error:
            _log(pool, "its status was not written", error)
            return False
        self._shown, self._shown_s = fresh, at.s
        return True

    async def tell(self, cluster: Cluster, pool: Ref, news: News, at: Moment) -> None:
        """Post an Event, unless the same was posted a moment ago."""
        told = self.teller.tell(news, at.s)
        if told is not None:
            await self._post(cluster, pool, told)

    async def tell_late(self, cluster: Cluster, pool: Ref, at: Moment) -> None:
        """Post what happened so soon after an Event of its kind that it was kept back."""
        for news in self.teller.due(at.s):
            await self._post(cluster, pool, news)

    async def _post(self, cluster: Cluster, pool: Ref, news: News) -> None:
        logger.info("pool %s/%s: %s: %s", pool.namespace, pool.name, news.reason, news.message)
        try:
            await cluster.tell(pool, news)
        except ClusterError as error:
            _log(pool, "an Event was not posted", error)


def _log(pool: Ref, what: str, error: ClusterError) -> None:
    """An API server that is away is no fault of a thousand pools, each of which tries again in every second."""
    level = logging.WARNING if isinstance(error, Refused) else logging.DEBUG
    logger.log(level, "pool %s/%s: %s: %s", pool.namespace, pool.name, what, error)
