"""What a tick finds of one pool, before anything is decided: its queues, its pods and who works in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from headrace.broker.demand import Demand

from . import workforce
from .drain import Replica
from .expectation import Expectation
from .fleet import Fleet
from .looker import Place
from .manifests import Pool, fingerprint
from .observed import Moment, QueueLoad, Unreadable

Look = Mapping[Place, Demand | Exception]
MUTE_S: Final = 15.0
"""A pod that is ready for so long, and that no queue heard of, works for nobody."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tick found, before anything is decided."""

    fleet: Fleet
    demands: dict[Place, Demand]
    loads: tuple[QueueLoad, ...] | Unreadable
    replicas: list[Replica]
    unseen: int = 0
    """Pods that work, and that the cluster has not shown yet."""

    @property
    def busy(self) -> int:
        return sum(each.busy for each in self.replicas)

    @property
    def draining(self) -> int:
        return sum(each.asked_s is not None for each in self.replicas)


class Sight:
    """Of one pool: what has to be remembered from one look to the next."""

    def __init__(self) -> None:
        self._expected: dict[str, Expectation] = {}
        """By queue."""
        self._tried: dict[str, int] = {}
        """Queue → parked tasks that the present template had its chance at."""
        self._template = ""
        self._unheard: dict[str, float] = {}
        """Pods that are ready, and of which nothing was heard → since when."""

    def see(self, pool: Pool, look: Look, fleet: Fleet, at: Moment) -> Seen:
        """A queue that could not be read makes all of them unreadable: an error is never zero. All are in `look`."""
        answers = {place: look[place] for place in places_of(pool)}
        demands = {place: answer for place, answer in answers.items() if isinstance(answer, Demand)}
        wrong = [f"{place.queue}: {answer}" for place, answer in answers.items() if not isinstance(answer, Demand)]
        self._give_chance(pool)
        loads = (
            Unreadable("; ".join(wrong))
            if wrong
            else tuple(self._load(pool, place, demand) for place, demand in demands.items())
        )
        # What cannot be read now was not heard for that reason.
        self._unheard = {} if wrong else workforce.unheard(fleet, demands.values(), self._unheard, at.s)
        mute = {name for name, since_s in self._unheard.items() if at.s - since_s >= MUTE_S}
        replicas = workforce.replicas(fleet, demands.values(), at.s, mute)
        return Seen(fleet, demands, loads, replicas, workforce.unseen(fleet, demands.values(), pool.name))

    def _give_chance(self, pool: Pool) -> None:
        template = fingerprint(pool.spec.template)
        if template != self._template:
            self._template, self._tried = template, {}

    def _load(self, pool: Pool, place: Place, demand: Demand) -> QueueLoad:
        expected = self._expected[place.queue] = self._expected.get(place.queue, Expectation()).learn(demand)
        if demand.workers:
            self._tried[place.queue] = demand.parked
        seconds = expected.seconds(pool.spec.worker.expected_task_seconds)
        [of_spec] = (each for each in pool.spec.queues if each.name == place.queue)
        load = workforce.load(place.queue, demand, self._tried.get(place.queue, 0), of_spec.suspects)
        return replace(load, task_s=seconds, types=expected.types)


def places_of(pool: Pool) -> list[Place]:
    """The queues that a pool's decisions look at."""
    spec = pool.spec
    return [Place(spec.redis.connection, pool.tenant, queue.name) for queue in spec.queues]


def woken_by(pool: Pool) -> list[Place]:
    """Those of them in which a new task is work for the pool: none is a suspect."""
    own = {queue.name for queue in pool.spec.queues if queue.suspects != "Only"}
    return [place for place in places_of(pool) if place.queue in own]
