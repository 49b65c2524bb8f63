"""One pool, tick by tick: look, decide, drain, write, show. All that decides is pure and elsewhere."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from headrace.broker.demand import Demand
from headrace.errors import HeadraceError

from . import status, troubles, workforce
from .cluster import Cluster, ClusterError, Conflict, Refused
from .decide import Decision, decide
from .display import Display
from .disruption import Guards, left_to_us
from .drain import Replica, Shrink, shrink
from .fleet import Fleet, Key
from .history import History, remember, rested
from .looker import Looker, Place
from .manifests import Pool, fingerprint
from .news import Event, News, of_decision, scaled
from .observed import Moment, Observed, QueueLoad, Unreadable
from .refusal import Refusals
from .rest import Rest, rest
from .spec import InvalidSpec, Mode
from .status import Condition

logger = logging.getLogger("headrace.operator")

Look = Mapping[Place, Demand | Exception]
DECIDING: Final = {Mode.AUTO, Mode.EXTERNAL}
"""Modes in which the number is ours to write."""
CONFLICT_S: Final = 60.0
"""Another writer of the number stays in the conditions for so long."""
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


class Steering:
    """Of one pool, as long as this process knows it."""

    def __init__(self, pool: Pool, generation: int, shown: dict[str, Any], at: Moment) -> None:
        self.pool = pool
        self.generation = generation
        self.key = Key(pool.namespace, pool.name)
        self.history = History(since_s=at.s)
        self.display = Display(shown)
        self.decision: Decision | None = None
        self.wanted = 0
        """What it would have without caps."""
        self.granted: int | None = None
        """What caps of namespace and cluster leave to this pool; None: there are no caps."""
        self._applied: tuple[str, ...] | None = None
        self._refusals = Refusals()
        self._task_s: dict[str, float] = {}
        self._tried: dict[str, int] = {}
        """Queue → parked tasks that the present template had its chance at."""
        self._template = ""
        self._last_scale: datetime | None = None
        self._expected: int | None = None
        """The number as this process last wrote or saw it."""
        self._conflict_s = float("-inf")
        self._unsure = False
        """The last write of the number had no answer: nobody knows whether it was done."""
        self._unheard: dict[str, float] = {}
        """Pods that are ready, and of which nothing was heard → since when."""
        self._resumed = False
        self.troubles: dict[str, Condition] = {}
        self.loads: tuple[QueueLoad, ...] | None = None
        """What the last look found; None if it failed."""
        self.scalings: Counter[tuple[str, str]] = Counter()
        """(up or down, reason) → changes of the number."""
        self._seen: Seen | None = None
        self._guards = Guards()
        self._rest: Rest | None = None
        self._rested_s: float | None = None
        """When it was last found at rest; None if it was carried on since."""

    def replaced(self, pool: Pool, generation: int) -> None:
        """The resource was changed."""
        if pool.spec.mode is not self.pool.spec.mode and self.pool.spec.mode is Mode.PAUSED:
            self._resumed = True
        self.pool, self.generation = pool, generation
        self.troubles.pop("SpecValid", None)

    def refused(self, why: str, generation: int) -> None:
        """The resource was changed to what nobody can read: what runs goes on as it was."""
        if generation > self.generation:
            self.generation, self._rest = generation, None
            self.troubles = {"SpecValid": Condition("SpecValid", False, "InvalidSpec", why), **self.troubles}

    def wish(self, look: Look, fleet: Fleet, at: Moment) -> None:
        """Find out what the pool would have now if pools shared no caps."""
        observed = replace(self._observed(self._see(look, fleet, at)), granted=None)
        decision = decide(self.pool.spec, observed, self.history, at)
        self.wanted = min(max(decision.replicas, decision.needed), self.pool.spec.scaling.max_replicas)

    def figures(self, fleet: Fleet) -> dict[str, int]:
        """For metrics."""
        scaling, decision, seen = self.pool.spec.scaling, self.decision, self._seen
        return {
            "desired": fleet.asked_for if decision is None else decision.replicas,
            "recommended": 0 if decision is None else decision.needed,
            "ready": fleet.ready,
            "busy": 0 if seen is None else seen.busy,
            "draining": 0 if seen is None else seen.draining,
            "min": scaling.min_replicas,
            "max": scaling.max_replicas,
        }

    def places(self) -> list[Place]:
        """The queues that this pool's decisions look at."""
        spec = self.pool.spec
        return [Place(spec.redis.connection, self.pool.tenant, queue.name) for queue in spec.queues]

    # one tick

    def rests(self, look: Look, fleet: Fleet, at_s: float) -> bool:
        """Whether a step would change nothing, because nothing that it looks at has changed since the last one."""
        if self._rest is None or not self._rest.lasts(self.pool, self.granted, fleet, look):
            return False
        self._rested_s = at_s
        return True

    @property
    def resting(self) -> bool:
        """Whether the last tick left it out."""
        return self._rested_s is not None

    async def step(self, look: Look, looker: Looker, cluster: Cluster, at: Moment) -> None:
        """Carry the pool one step on. Raises nothing that a fault of Redis or of the cluster can cause."""
        if self._rested_s is not None:
            self.history = rested(self.history, self.pool.spec.scaling, self._rested_s)
            self._rested_s = None
        try:
            await self._make_sure(cluster)
            await self._apply(cluster, at.s)
            seen = self._see(look, cluster.fleet(self.key), at)
            self._watch_number(seen.fleet, at)
            decision = self.decision = decide(self.pool.spec, self._observed(seen), self.history, at)
            written = await self._carry_out(seen, decision, looker, cluster, at)
            self._learn(seen, decision, written, at)
            await self._guard(seen, cluster, at)
            self.troubles.pop("AbleToScale", None)
        except InvalidSpec:
            seen = self._see(look, cluster.fleet(self.key), at)
        except ClusterError as error:
            reason = (
                "Refused"
                if isinstance(error, Refused)
                else "Conflict"
                if isinstance(error, Conflict)
                else "ClusterError"
            )
            self.troubles["AbleToScale"] = Condition("AbleToScale", False, reason, str(error))
            seen = self._see(look, cluster.fleet(self.key), at)
        told = await self._show(seen, cluster, at)
        quiet = told and not (self.troubles or self._resumed or self.display.teller.owes())
        self._rest = rest(self.pool, self.granted, seen.fleet, seen.demands, self.decision) if quiet else None

    async def _make_sure(self, cluster: Cluster) -> None:
        if self._unsure:
            await cluster.look_again(self.key)
            self._unsure = False

    async def _apply(self, cluster: Cluster, now_s: float) -> None:
        """The Deployment is what the spec says; asked for again when it vanished.

        A template that is bad or refused is told; what was applied before goes on, and its workers are led on.
        """
        spec = self.pool.spec
        wanted = (fingerprint(spec.template), repr(spec.worker), repr(spec.queues), repr(spec.redis), self.pool.tenant)
        exists = cluster.fleet(self.key).exists
        if wanted != self._applied or not exists:
            try:
                if (standing := self._refusals.standing((wanted, exists), now_s)) is not None:
                    raise standing.with_traceback(None)
                await cluster.apply(self.pool)
            except (InvalidSpec, Refused) as error:
                if error is not standing:
                    self._refusals.refused((wanted, exists), error, now_s)
                reason = "InvalidTemplate" if isinstance(error, InvalidSpec) else "Refused"
                self.troubles["TemplateValid"] = Condition("TemplateValid", False, reason, str(error))
                if exists:
                    return
                raise
            self._refusals.granted()
        self._applied = wanted
        self.troubles.pop("TemplateValid", None)

    def _see(self, look: Look, fleet: Fleet, at: Moment) -> Seen:
        answers = {place: look.get(place, LookupError("not looked at yet")) for place in self.places()}
        demands = {place: answer for place, answer in answers.items() if isinstance(answer, Demand)}
        wrong = [f"{place.queue}: {answer}" for place, answer in answers.items() if not isinstance(answer, Demand)]
        self._give_chance()
        loads = (
            Unreadable("; ".join(wrong))
            if wrong
            else tuple(self._load(place, demand) for place, demand in demands.items())
        )
        self.loads = None if isinstance(loads, Unreadable) else loads
        self._watch_parked(loads, demands)
        # What cannot be read now was not heard for that reason.
        self._unheard = {} if wrong else workforce.unheard(fleet, demands.values(), self._unheard, at.s)
        mute = {name for name, since_s in self._unheard.items() if at.s - since_s >= MUTE_S}
        replicas = workforce.replicas(fleet, demands.values(), at.s, mute)
        return Seen(fleet, demands, loads, replicas, workforce.unseen(fleet, demands.values(), self.key.name))

    def _watch_number(self, fleet: Fleet, at: Moment) -> None:
        expected, self._expected = self._expected, fleet.asked_for
        if expected is not None and expected != fleet.asked_for and self.pool.spec.mode in DECIDING:
            self._conflict_s = at.s
            self._trouble("ReplicasOwned", troubles.conflict(expected, fleet.asked_for))
        elif at.s - self._conflict_s > CONFLICT_S:
            self._trouble("ReplicasOwned", None)

    def _watch_parked(self, loads: tuple[QueueLoad, ...] | Unreadable, demands: Mapping[Place, Demand]) -> None:
        found = troubles.no_handler(demands.items())
        readable = not isinstance(loads, Unreadable)
        if found is not None or (readable and not any(demand.parked for demand in demands.values())):
            self._trouble("HandlersKnown", found)

    def _trouble(self, type: str, found: Condition | None) -> None:
        if found is None:
            self.troubles.pop(type, None)
        else:
            self.troubles[type] = found

    def _give_chance(self) -> None:
        template = fingerprint(self.pool.spec.template)
        if template != self._template:
            self._template, self._tried = template, {}

    def _load(self, place: Place, demand: Demand) -> QueueLoad:
        mean = workforce.mean_task_s(self._task_s.get(place.queue), demand)
        if mean is not None:
            self._task_s[place.queue] = mean
        if demand.workers:
            self._tried[place.queue] = demand.parked
        return workforce.load(place.queue, demand, mean, self._tried.get(place.queue, 0))

    def _observed(self, seen: Seen) -> Observed:
        return Observed(seen.loads, seen.fleet.asked_for, seen.busy, seen.fleet.rollout, self.granted)

    async def _carry_out(self, seen: Seen, decision: Decision, looker: Looker, cluster: Cluster, at: Moment) -> int:
        """Drain and write. Returns the number of replicas that is now asked for."""
        fleet, wanted = seen.fleet, decision.replicas
        writes = self.pool.spec.mode not in {Mode.PAUSED, Mode.DRY_RUN}
        if isinstance(seen.loads, Unreadable):
            # Without Redis nobody can be asked to drain, so the number only ever grows.
            target = max(wanted, fleet.asked_for) if writes else fleet.asked_for
            return await self._write(target, decision, fleet, cluster, at)
        plan = self._plan(seen, wanted, at)
        await self._handshake(plan, seen.demands, looker)
        if not writes:
            return fleet.asked_for
        self._trouble("Drained", troubles.overdue(plan, self.pool.spec.drain.timeout_seconds))
        if wanted > fleet.asked_for:
            # First of all, for growing needs no marks.
            await self._write(wanted, decision, fleet, cluster, at)
        await self._mark(plan, fleet, cluster)
        if wanted >= fleet.asked_for:
            return wanted
        return await self._write(max(wanted, fleet.asked_for - plan.fewer), decision, fleet, cluster, at)

    async def _write(self, target: int, decision: Decision, fleet: Fleet, cluster: Cluster, at: Moment) -> int:
        """Ask for so many replicas. Returns the number."""
        if target == fleet.asked_for:
            return target
        try:
            await cluster.scale(self.key, target, fleet)
        except ClusterError as error:
            self._unsure = not isinstance(error, Refused | Conflict)
            raise
        await self.tell(cluster, scaled(fleet.asked_for, target, decision), at)
        self.scalings["up" if target > fleet.asked_for else "down", str(decision.reason)] += 1
        self._last_scale, self._expected = at.wall, target
        return target

    def _plan(self, seen: Seen, wanted: int, at: Moment) -> Shrink:
        drain = self.pool.spec.drain
        plan = shrink(
            seen.replicas, wanted=wanted, asked_for=seen.fleet.asked_for, policy=drain.policy, now_s=at.s,
            timeout_s=drain.timeout_seconds, unseen=seen.unseen,
        )  # fmt: skip
        # Deletion costs do not reach across the ReplicaSets of a rollout: the wrong pod would go.
        return replace(plan, remove=(), missing=0) if seen.fleet.rollout else plan

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
                logger.warning("pool %s: workers could not be asked to drain: %s", self.key, error)

    async def _mark(self, plan: Shrink, fleet: Fleet, cluster: Cluster) -> None:
        """Those that go are cheap before the number is lowered, and nobody else is.

        Until it is, those that were to go stay cheap: they may be on their way out already.
        """
        going = set(plan.remove)
        kept = going if plan.fewer else {*going, *plan.leave}
        dear = [pod.name for pod in fleet.staying if pod.cheap and pod.name not in kept]
        cheap = [pod.name for pod in fleet.staying if not pod.cheap and pod.name in going]
        if dear:
            await cluster.mark(self.key, dear, cheap=False)
        if cheap:
            await cluster.mark(self.key, cheap, cheap=True)

    async def _guard(self, seen: Seen, cluster: Cluster, at: Moment) -> None:
        """Busy pods are not moved to save nodes. It is no more than a wish, so a failure holds nothing up."""
        if isinstance(seen.loads, Unreadable) or not left_to_us(self.pool.spec.template):
            return
        busy = {each.name for each in seen.replicas if each.busy}
        protect, release = self._guards.due(seen.fleet.staying, busy, at.s)
        try:
            if protect:
                await cluster.guard(self.key, protect, busy=True)
            if release:
                await cluster.guard(self.key, release, busy=False)
        except ClusterError as error:
            logger.warning("pool %s: busy pods were not marked as such: %s", self.key, error)

    def _learn(self, seen: Seen, decision: Decision, written: int, at: Moment) -> None:
        self.history = remember(self.history, self.pool.spec.scaling, self._observed(seen), decision, at.s, written)

    # what people see

    async def _show(self, seen: Seen, cluster: Cluster, at: Moment) -> bool:
        """Whether all is shown, and nothing is left to be shown later."""
        self._seen = seen
        self._trouble("PodsStart", troubles.cannot_start(seen.fleet))
        await self._tell_all(cluster, seen, at)
        return await self.display.show(cluster, self.pool.ref, self._report(seen), at)

    def _report(self, seen: Seen) -> status.Report:
        decision = self.decision
        return status.Report(
            name=self.pool.name, generation=self.generation, mode=self.pool.spec.mode, fleet=seen.fleet,
            queues=() if isinstance(seen.loads, Unreadable) else seen.loads, busy=seen.busy, draining=seen.draining,
            decision=decision, desired=seen.fleet.asked_for if decision is None else decision.replicas,
            last_scale=self._last_scale, troubles=tuple(self.troubles.values()),
        )  # fmt: skip

    async def _tell_all(self, cluster: Cluster, seen: Seen, at: Moment) -> None:
        found = tuple(self.troubles.values())  # the resource may change meanwhile
        wrong = {condition.reason for condition in found}
        for condition in found:
            if condition.reason in troubles.TOLD:
                await self.tell(cluster, News(troubles.TOLD[condition.reason], condition.message), at)
        news = None if self.decision is None else of_decision(self.decision)
        if news is not None:
            await self.tell(cluster, news, at)
        if self._resumed:
            self._resumed = False
            await self.tell(cluster, News(Event.RESUMED, f"mode {self.pool.spec.mode}"), at)
        told = {news.reason} if news is not None else set()
        self.display.teller.over(*(event for event in troubles.PASSING if event not in told and event not in wrong))
        await self.display.tell_late(cluster, self.pool.ref, at)

    async def tell(self, cluster: Cluster, news: News, at: Moment) -> None:
        """Post an Event, unless the same was posted a moment ago."""
        self._rest = None  # there may be more to tell than this says
        await self.display.tell(cluster, self.pool.ref, news, at)
