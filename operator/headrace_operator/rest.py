"""A pool that runs nothing and has nothing to do: while all that it looks at stays as it is, it need not be carried on.

Most pools are so most of the time; a thousand of them must not cost more than the look at their queues. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.broker.demand import Demand

from .decide import Decision
from .fleet import Fleet
from .looker import Place
from .manifests import Pool


@dataclass(frozen=True, slots=True)
class Rest:
    """What was seen when the last step found nothing to do."""

    pool: Pool
    granted: int | None
    fleet: Fleet
    demands: Mapping[Place, Demand]

    def lasts(self, pool: Pool, granted: int | None, fleet: Fleet, look: Mapping[Place, Demand | Exception]) -> bool:
        """Whether all is as it was."""
        if pool is not self.pool or granted != self.granted or not _same(fleet, self.fleet):
            return False
        return all(_same(look.get(place), demand) for place, demand in self.demands.items())


def _same(now: object, before: object) -> bool:
    """Mostly it is the very object: no need to compare what is in it."""
    return now is before or now == before


def rest(
    pool: Pool, granted: int | None, fleet: Fleet, demands: Mapping[Place, Demand], decision: Decision | None
) -> Rest | None:
    """None for a pool whose next decision may differ although nothing changes: time alone moves it.

    A rollout of no pods decides nothing, and its end changes the fleet.
    """
    asleep = fleet.exists and not fleet.asked_for and not fleet.pods
    settled = decision is not None and not decision.replicas and not decision.needed
    if not asleep or not settled or pool.spec.scaling.schedules or len(demands) < len(pool.spec.queues):
        return None
    return Rest(pool, granted, fleet, demands) if all(map(is_empty, demands.values())) else None


def is_empty(demand: Demand) -> bool:
    """Nothing waits, runs, or is due soon, and nobody works there."""
    busy = demand.waiting or demand.processing or demand.due_soon or demand.parked
    return not (busy or demand.workers or demand.asked)
