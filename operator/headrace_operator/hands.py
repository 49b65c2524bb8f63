"""What is done to one pool's replicas after a decision: asked to drain, marked, and then fewer; or more at once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from headrace.broker.demand import Demand
from headrace.errors import HeadraceError

from . import troubles, workforce
from .cluster import Cluster, ClusterError, Conflict, Refused
from .decide import Decision
from .disruption import Guards, left_to_us
from .drain import Shrink, shrink
from .fleet import Fleet, Key
from .looker import Looker, Place
from .manifests import Pool
from .news import News, scaled
from .observed import Moment, Unreadable
from .sight import Seen
from .spec import Mode
from .troubles import Troubles, put

logger = logging.getLogger("headrace.operator")

DECIDING: Final = {Mode.AUTO, Mode.EXTERNAL}
"""Modes in which the number is ours to write."""
SETTLED_S: Final = 1.0
"""After the cluster took note of a number, what acts by the one before is over within that time."""
CONFLICT_S: Final = 60.0
"""Another writer of the number stays in the conditions for so long."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a pool works with."""

    looker: Looker
    cluster: Cluster
    at: Moment


@dataclass(frozen=True, slots=True)
class Write:
    """A change of the number, and why."""

    before: int
    after: int
    decision: Decision


Tell = Callable[[Cluster, News, Moment], Awaitable[None]]


class Hands:
    """Of one pool, as long as this process knows it."""

    def __init__(self, key: Key, found: Troubles, tell: Tell) -> None:
        self._key = key
        self._troubles = found
        self._tell = tell
        self._guards = Guards()
        self.number: int | None = None
        """As this process last wrote or saw it."""
        self._uid = ""
        """Of the Deployment whose number that was."""
        self._conflict_s = float("-inf")
        self._unsettled_s = float("-inf")
        """When the cluster was last known to act by an earlier number, or may have."""
        self._unsure: Write | None = None
        """The last one had no answer: nobody knows whether it was done."""
        self.last_scale: datetime | None = None
        self.scalings: Counter[tuple[str, str]] = Counter()
        """(up or down, reason) → changes of the number."""

    async def make_sure(self, cluster: Cluster, at: Moment) -> int:
        """Before anything is decided: what the number is, if that is not known. By how much our write changed it."""
        if (lost := self._unsure) is None:
            return 0
        await cluster.look_again(self._key)
        self._unsure = None
        if cluster.fleet(self._key).asked_for != lost.after:
            return 0
        await self._wrote(lost, cluster, at)
        return lost.after - lost.before

    def watch_number(self, mode: Mode, fleet: Fleet, at: Moment) -> None:
        """Whether somebody else wrote it, and whether the cluster goes by it."""
        if self.number != fleet.asked_for or fleet.behind:
            self._unsettled_s = at.s
        # One that is made again begins with none, which nobody asked for.
        expected = self.number if fleet.uid == self._uid else None
        self.number, self._uid = fleet.asked_for, fleet.uid
        if expected is not None and expected != fleet.asked_for and mode in DECIDING:
            self._conflict_s = at.s
            put(self._troubles, "ReplicasOwned", troubles.conflict(expected, fleet.asked_for))
        elif at.s - self._conflict_s > CONFLICT_S:
            put(self._troubles, "ReplicasOwned", None)

    async def carry_out(self, pool: Pool, seen: Seen, decision: Decision, step: Step) -> None:
        """Drain and write; `number` says what came of it, also after a ClusterError."""
        fleet, wanted = seen.fleet, decision.replicas
        writes = pool.spec.mode in DECIDING
        if isinstance(seen.loads, Unreadable):
            # Without Redis nobody can be asked to drain, so the number only ever grows.
            if writes:
                await self._write(max(wanted, fleet.asked_for), decision, fleet, step)
            return
        plan = _plan(pool, seen, wanted, step.at, settled=step.at.s - self._unsettled_s >= SETTLED_S)
        await self._handshake(plan, seen.demands, step.looker)
        put(self._troubles, "Drained", troubles.overdue(plan, pool.spec.drain.timeout_seconds) if writes else None)
        if not writes:
            return
        if wanted > fleet.asked_for:
            # First of all, for growing needs no marks.
            await self._write(wanted, decision, fleet, step)
        await self._mark(plan, fleet, step.cluster)
        if wanted < fleet.asked_for:
            await self._write(max(wanted, fleet.asked_for - plan.fewer), decision, fleet, step)

    async def _write(self, target: int, decision: Decision, fleet: Fleet, step: Step) -> None:
        """Ask for so many replicas."""
        if target == fleet.asked_for:
            return
        write = Write(fleet.asked_for, target, decision)
        try:
            await step.cluster.scale(self._key, target, fleet)
        except Exception as error:
            self._unsure = None if isinstance(error, Refused | Conflict) else write
            raise
        await self._wrote(write, step.cluster, step.at)

    async def _wrote(self, write: Write, cluster: Cluster, at: Moment) -> None:
        self.last_scale, self.number, self._unsettled_s = at.wall, write.after, at.s
        self.scalings["up" if write.after > write.before else "down", str(write.decision.reason)] += 1
        await self._tell(cluster, scaled(write.before, write.after, write.decision), at)

    async def _handshake(self, plan: Shrink, demands: Mapping[Place, Demand], looker: Looker) -> None:
        for place, demand in demands.items():
            client, queue = looker.client(place.connection), looker.queue(place)
            assert client is not None
            ask = workforce.boots_of(plan.ask, demand)
            release = [*workforce.boots_of(plan.release, demand), *workforce.strangers(demand)]
            try:
                if ask:
                    await client.call(queue.ask_to_drain(ask))
                if release:
                    await client.call(queue.release_from_drain(release))
            except HeadraceError as error:
                logger.warning("pool %s: workers could not be asked to drain: %s", self._key, error)

    async def _mark(self, plan: Shrink, fleet: Fleet, cluster: Cluster) -> None:
        """Those that go are cheap before the number is lowered, and nobody else is.

        Until it is, those that were to go stay cheap: they may be on their way out already.
        """
        going = set(plan.remove)
        kept = going if plan.fewer else {*going, *plan.leave}
        dear = [pod.name for pod in fleet.staying if pod.cheap and pod.name not in kept]
        cheap = [pod.name for pod in fleet.staying if not pod.cheap and pod.name in going]
        if dear:
            await cluster.mark(self._key, dear, cheap=False)
        if cheap:
            await cluster.mark(self._key, cheap, cheap=True)

    async def guard(self, pool: Pool, seen: Seen, cluster: Cluster, at: Moment) -> None:
        """Busy pods are not moved to save nodes. It is no more than a wish, so a failure holds nothing up."""
        if isinstance(seen.loads, Unreadable) or not left_to_us(pool.spec.template):
            return
        busy = {each.name for each in seen.replicas if each.busy}
        protect, release = self._guards.due(seen.fleet.staying, busy, at.s)
        try:
            if protect:
                await cluster.guard(self._key, protect, busy=True)
            if release:
                await cluster.guard(self._key, release, busy=False)
        except ClusterError as error:
            logger.warning("pool %s: busy pods were not marked as such: %s", self._key, error)


def _plan(pool: Pool, seen: Seen, wanted: int, at: Moment, *, settled: bool) -> Shrink:
    drain = pool.spec.drain
    replicas = seen.replicas if settled else [replace(each, doomed=each.cheap) for each in seen.replicas]
    plan = shrink(
        replicas, wanted=wanted, asked_for=seen.fleet.asked_for, policy=drain.policy, now_s=at.s,
        timeout_s=drain.timeout_seconds, unseen=seen.unseen,
    )  # fmt: skip
    # Deletion costs do not reach across the ReplicaSets of a rollout: the wrong pod would go.
    return replace(plan, remove=(), missing=0) if seen.fleet.rollout else plan
