"""One pool, tick by tick: look, decide, drain, write, show. All that decides is pure and elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from . import status, troubles
from .applied import Applied
from .cluster import Cluster, ClusterError, Conflict, Refused
from .decide import Decision, decide
from .display import Display
from .fleet import Fleet, Key
from .hands import DECIDING, Hands, Step
from .history import History, remember, rested, stepped
from .looker import Looker, Place
from .manifests import Pool
from .news import Event, News, of_decision
from .observed import Moment, Observed, QueueLoad, Unreadable
from .rest import Rest, rest
from .sight import Look, Seen, Sight, places_of, woken_by
from .spec import InvalidSpec, Mode
from .status import Condition
from .troubles import Troubles, put


class Steering:
    """Of one pool, as long as this process knows it."""

    def __init__(self, pool: Pool, generation: int, shown: dict[str, Any], at: Moment) -> None:
        self.pool = pool
        self._places, self._woken_by = places_of(pool), woken_by(pool)
        self.generation = generation
        self.key = Key(pool.namespace, pool.name)
        self.history = History(since_s=at.s)
        self.display = Display(shown)
        self.decision: Decision | None = None
        self.wanted = 0
        """What it would have without caps."""
        self.granted: int | None = None
        """What caps of namespace and cluster leave to this pool; None: there are no caps."""
        self._resumed = False
        self.troubles: Troubles = {}
        self.loads: tuple[QueueLoad, ...] | None = None
        """What the last look found; None if it failed."""
        self._seen: Seen | None = None
        self._sight = Sight()
        self._applied = Applied(self.key, self.troubles)
        self._hands = Hands(self.key, self.troubles, self.tell)
        self._rest: Rest | None = None
        self._rested_s: float | None = None
        """When it was last found at rest; None if it was carried on since."""

    def replaced(self, pool: Pool, generation: int) -> None:
        """The resource was changed."""
        if pool.spec.mode is not self.pool.spec.mode and self.pool.spec.mode is Mode.PAUSED:
            self._resumed = True
        self.pool, self.generation = pool, generation
        self._places, self._woken_by = places_of(pool), woken_by(pool)
        self.troubles.pop("SpecValid", None)

    def refused(self, why: str, generation: int) -> None:
        """The resource was changed to what nobody can read: what runs goes on as it was."""
        if generation > self.generation:
            self.generation, self._rest = generation, None
            others = {**self.troubles}
            self.troubles.clear()
            self.troubles.update({"SpecValid": Condition("SpecValid", False, "InvalidSpec", why)} | others)

    def wish(self, look: Look, fleet: Fleet, at: Moment) -> None:
        """Find out what the pool would have now if pools shared no caps, or has if its number is not ours to write."""
        if not self.decides:
            self.wanted = fleet.asked_for
            return
        if not self._was_looked_at(look):
            return
        observed = replace(self._observed(self._see(look, fleet, at)), granted=None)
        decision = decide(self.pool.spec, observed, self.history, at)
        self.wanted = decision.replicas
        if self.pool.spec.mode is Mode.AUTO:
            self.wanted = max(self.wanted, min(decision.needed, self.pool.spec.scaling.max_replicas))

    @property
    def decides(self) -> bool:
        """Whether its number is ours to write."""
        return self.pool.spec.mode in DECIDING

    def _was_looked_at(self, look: Look) -> bool:
        """Not if the resource was changed meanwhile, and names other queues now: those are in the next look."""
        return all(place in look for place in self._places)

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
        return self._places

    def woken_by(self) -> list[Place]:
        """Those of them in which a new task is work for this pool: none is a suspect."""
        return self._woken_by

    @property
    def scalings(self) -> Counter[tuple[str, str]]:
        """(up or down, reason) → changes of the number."""
        return self._hands.scalings

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
        try:
            await self._step(look, looker, cluster, at)
        except Exception as error:
            self._rest = None
            self.troubles["AbleToScale"] = troubles.internal(error)
            # No more than what is sure: what is seen of the queues may be what it failed at.
            await self._show(Seen(cluster.fleet(self.key), {}, Unreadable(str(error)), []), cluster, at)
            raise

    async def _step(self, look: Look, looker: Looker, cluster: Cluster, at: Moment) -> None:
        if self._rested_s is not None:
            self.history = rested(self.history, self.pool.spec.scaling, self._rested_s)
            self._rested_s = None
        begun = self.pool, self.granted  # either may be another before this step is over
        seen: Seen | None = None
        try:
            seen = await self._act(look, Step(looker, cluster, at))
            self.troubles.pop("AbleToScale", None)
        except InvalidSpec:
            self.troubles.pop("AbleToScale", None)  # it was not tried
        except ClusterError as error:
            self.troubles["AbleToScale"] = Condition("AbleToScale", False, _reason(error), str(error))
        if seen is None:
            if not self._was_looked_at(look):
                return
            seen = self._see(look, cluster.fleet(self.key), at)
        told = await self._show(seen, cluster, at)
        quiet = told and not (self.troubles or self._resumed or self.display.teller.owes())
        self._rest = rest(*begun, seen.fleet, seen.demands, self.decision) if quiet else None

    async def _act(self, look: Look, step: Step) -> Seen | None:
        """Bring about what the spec says, decide, and do it. What was seen; None if the queues were not looked at."""
        cluster, at = step.cluster, step.at
        self.history = stepped(self.history, await self._hands.make_sure(cluster, at), at.s)
        await self._applied.bring_about(self.pool, cluster, at.s)
        if not self._was_looked_at(look):
            return None
        seen = self._see(look, cluster.fleet(self.key), at)
        self._hands.watch_number(self.pool.spec.mode, seen.fleet, at)
        decision = self.decision = decide(self.pool.spec, self._observed(seen), self.history, at)
        try:
            await self._hands.carry_out(self.pool, seen, decision, step)
        finally:
            self._learn(seen, decision, at)
        await self._hands.guard(self.pool, seen, cluster, at)
        return seen

    def _see(self, look: Look, fleet: Fleet, at: Moment) -> Seen:
        seen = self._sight.see(self.pool, look, fleet, at)
        self.loads = None if isinstance(seen.loads, Unreadable) else seen.loads
        self._watch_parked(seen)
        put(self.troubles, "ReplicasIgnored", troubles.ignored(self.pool.spec))
        queues = [(place.queue, demand) for place, demand in seen.demands.items()]
        put(self.troubles, "SuspectsServed", troubles.left_suspects(self.pool.spec, queues))
        return seen

    def _watch_parked(self, seen: Seen) -> None:
        found = troubles.no_handler(seen.demands.items())
        readable = not isinstance(seen.loads, Unreadable)
        if found is not None or (readable and not any(demand.parked for demand in seen.demands.values())):
            put(self.troubles, "HandlersKnown", found)

    def _observed(self, seen: Seen) -> Observed:
        return Observed(seen.loads, seen.fleet.asked_for, seen.busy, seen.fleet.rollout, self.granted)

    def _learn(self, seen: Seen, decision: Decision, at: Moment) -> None:
        """By the number as it is now, whether or not all of the step could be done."""
        written = self._hands.number
        self.history = remember(self.history, self.pool.spec.scaling, self._observed(seen), decision, at.s, written)

    # what people see

    async def _show(self, seen: Seen, cluster: Cluster, at: Moment) -> bool:
        """Whether all is shown, and nothing is left to be shown later."""
        self._seen = seen
        put(self.troubles, "PodsStart", troubles.cannot_start(seen.fleet))
        await self._tell_all(cluster, seen, at)
        return await self.display.show(cluster, self.pool.ref, self._report(seen), at)

    def _report(self, seen: Seen) -> status.Report:
        decision = self.decision
        return status.Report(
            name=self.pool.name, generation=self.generation, mode=self.pool.spec.mode, fleet=seen.fleet,
            queues=() if isinstance(seen.loads, Unreadable) else seen.loads, busy=seen.busy, draining=seen.draining,
            decision=decision, desired=seen.fleet.asked_for if decision is None else decision.replicas,
            last_scale=self._hands.last_scale, troubles=tuple(self.troubles.values()),
        )  # fmt: skip

    async def _tell_all(self, cluster: Cluster, seen: Seen, at: Moment) -> None:
        found = tuple(self.troubles.values())  # the resource may change meanwhile
        wrong = {condition.reason for condition in found}
        for condition in found:
            if (event := troubles.event_of(condition)) is not None:
                await self.tell(cluster, News(event, condition.message), at)
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


def _reason(error: ClusterError) -> str:
    kinds = ((Refused, "Refused"), (Conflict, "Conflict"))
    return next((name for kind, name in kinds if isinstance(error, kind)), "ClusterError")
