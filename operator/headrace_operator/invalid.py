"""A WorkerPool whose spec nobody could read yet: nothing runs of it, and its status and an Event say why."""

from __future__ import annotations

import logging
from typing import Any, Final

from .cluster import Cluster, ClusterError
from .manifests import Ref
from .news import Event, News
from .observed import Moment
from .status import Condition, with_times

logger = logging.getLogger("headrace.operator")

LONGEST_S: Final = 60.0
"""What could not be told is told again after 1, 2, 4 … so many seconds."""


class Invalid:
    """One such pool, at one generation. `status`: what it shows now."""

    def __init__(self, ref: Ref, generation: int, why: str, status: dict[str, Any]) -> None:
        self.ref = ref
        self.generation = generation
        self.why = why
        self.status = status
        self.told = any(self._says_it(each) for each in status.get("conditions", ()))
        self._wait_s = 0.0
        self._again_s = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Whether it is to be told now."""
        return not self.told and now_s >= self._again_s

    def _says_it(self, condition: dict[str, Any]) -> bool:
        fresh = Condition("Ready", False, "InvalidSpec", self.why).json("", self.generation)
        return {**condition, "lastTransitionTime": ""} == fresh

    async def tell(self, cluster: Cluster, at: Moment) -> None:
        """Write it down. A failure is tried again a while later."""
        name = f"{self.ref.namespace}/{self.ref.name}"
        fresh = with_times([Condition("Ready", False, "InvalidSpec", self.why)], self.generation, self.status, at.wall)
        others = [each for each in self.status.get("conditions", ()) if each["type"] != "Ready"]
        shown = {"observedGeneration": self.generation, "conditions": [*others, *fresh]}
        self.status = {**self.status, **shown}
        try:
            await cluster.show(self.ref, shown)
            await cluster.tell(self.ref, News(Event.INVALID_SPEC, self.why))
        except ClusterError as error:
            self._wait_s = min(LONGEST_S, self._wait_s * 2) or 1.0
            self._again_s = at.s + self._wait_s
            logger.warning("pool %s: what is wrong with it was not told: %s", name, error)
            return
        logger.warning("pool %s: %s: %s", name, Event.INVALID_SPEC, self.why)
        self.told = True
