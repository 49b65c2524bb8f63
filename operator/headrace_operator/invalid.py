"""A WorkerPool whose spec nobody could read yet: nothing runs of it, and its status and an Event say why."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from .cluster import Cluster, ClusterError
from .manifests import Ref
from .news import Event, News
from .status import Condition, rfc3339

logger = logging.getLogger("headrace.operator")


class Invalid:
    """One such pool, at one generation. `status`: what it shows now."""

    def __init__(self, ref: Ref, generation: int, why: str, status: dict[str, Any]) -> None:
        self.ref = ref
        self.generation = generation
        self.why = why
        self.status = status
        self.told = any(self._says_it(each) for each in status.get("conditions", ()))

    def _says_it(self, condition: dict[str, Any]) -> bool:
        fresh = Condition("Ready", False, "InvalidSpec", self.why).json("", self.generation)
        return {**condition, "lastTransitionTime": ""} == fresh

    async def tell(self, cluster: Cluster, now: datetime) -> None:
        """Write it down, unless that was done. A failure is tried again with the next tick."""
        if self.told:
            return
        name = f"{self.ref.namespace}/{self.ref.name}"
        fresh = Condition("Ready", False, "InvalidSpec", self.why).json(rfc3339(now), self.generation)
        others = [each for each in self.status.get("conditions", ()) if each["type"] != "Ready"]
        shown = {"observedGeneration": self.generation, "conditions": [*others, fresh]}
        self.status = {**self.status, **shown}
        try:
            await cluster.show(self.ref, shown)
            await cluster.tell(self.ref, News(Event.INVALID_SPEC, self.why))
        except ClusterError as error:
            logger.warning("pool %s: what is wrong with it was not told: %s", name, error)
            return
        logger.warning("pool %s: %s: %s", name, Event.INVALID_SPEC, self.why)
        self.told = True
