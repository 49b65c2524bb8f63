"""Slots are shared by the queues of a worker: in proportion to their weights while they all have more to do.

What is left of a slot goes by turns (stride scheduling): to the queue that has claimed least for its weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.runtime.claims import QueueClaims


class Shares:
    """Divides what is free between the queues that want it. A worker with one queue gives it all."""

    def __init__(self) -> None:
        self._queues: list[QueueClaims] = []

    def serve(self, queues: list[QueueClaims]) -> None:
        """These are the queues."""
        self._queues = queues
        for claims in queues:
            claims.shared = len(queues) > 1

    def part(self, claims: QueueClaims, free: int) -> int:
        """How many of the `free` slots this queue may ask for now; those asked for already are taken off here."""
        if not claims.shared:
            return max(0, free - claims.reserved)
        free -= sum(other.reserved for other in self._queues)
        if free <= 0:
            return 0
        rivals = [other for other in self._queues if other is not claims and other.hungry]
        if not rivals:
            return free
        part = free * claims.weight // (claims.weight + sum(other.weight for other in rivals))
        return part or int(all(claims.spent <= other.spent for other in rivals))

    def join(self, claims: QueueClaims) -> None:
        """It has more to do again. Who did nothing for a while has saved up no turns."""
        rivals = [other.spent for other in self._queues if other is not claims and other.hungry]
        if rivals:
            claims.claimed = max(claims.claimed, min(rivals))

    def offer(self, claims: QueueClaims) -> None:
        """This queue has had its chance: the others may take what is free."""
        for other in self._queues:
            if other is not claims and other.hungry:
                other.wake()
