"""A worker that is asked to leave: it claims no more, and its beats say so and what it still runs.

Whoever asked (a scaler) takes a worker away only when a beat says that it drains and runs nothing; it may also change
its mind, and then the worker claims again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from headrace.broker.demand import WorkerBeat
from headrace.runtime.claims import QueueClaims

logger = logging.getLogger("headrace.worker")


class Handshake:
    """Of one worker."""

    def __init__(self, claims: Mapping[str, QueueClaims]) -> None:
        self._claims = claims
        self._asked: set[str] = set()

    @property
    def draining(self) -> bool:
        """Whether it is asked to claim no more, in any of its queues."""
        return bool(self._asked)

    def heard(self, queue: str, drain: bool) -> bool:
        """What a beat was answered. Whether that is news, which the next beat should tell soon."""
        before = self.draining
        if drain:
            self._asked.add(queue)
        else:
            self._asked.discard(queue)
        if self.draining is before:
            return False
        logger.info("asked to drain" if self.draining else "asked to work again")
        for claims in self._claims.values():
            claims.drain(self.draining)
        return True

    def loads(self, running: int) -> dict[str, str]:
        """Queue → what the next beat there says. While a call is out that may claim or report, it is not idle."""
        if self.draining and any(claims.busy for claims in self._claims.values()):
            running = max(1, running)
        return {queue: self._load(claims, running) for queue, claims in self._claims.items()}

    def _load(self, claims: QueueClaims, running: int) -> str:
        return WorkerBeat(0, running, self.draining, claims.times.seconds, claims.times.types()).load()

    def look(self, queue: str) -> None:
        """With each beat: how long the tasks of this queue take lately."""
        self._claims[queue].times.look()
