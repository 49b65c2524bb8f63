"""What must hold at every moment of a run of the operator's model test."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from headrace.broker.demand import Demand
from headrace_operator.fleet import Fleet, Key
from headrace_operator.looker import Place
from headrace_operator.sight import MUTE_S
from headrace_operator.spec import Mode, PoolSpec
from headrace_operator.workforce import pod_of
from operator_model_cluster import Raw, TruePod, TruePool
from operator_model_plan import limits_of
from operator_model_queue import TrueQueue

if TYPE_CHECKING:
    from operator_model_world import World

STATUS_S: Final = 8.0
"""A status is never older, unless it could not be written: 5 s and a tick of the longest."""
SCALINGS_A_MINUTE: Final = 61
OTHERS_A_MINUTE: Final = 3
"""Events of one reason, one pool."""
SCALINGS: Final = {"ScaledUp", "ScaledDown", "ScaledToZero", "WokeFromZero"}


class Promises:
    """Looks on, and raises AssertionError."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._events: dict[tuple[str, str], deque[float]] = {}
        self._rows: dict[str, deque[tuple[float, tuple[Any, ...]]]] = {name: deque() for name in world.pools}
        self._unwritten_s = dict.fromkeys(world.pools, 0.0)
        """Pool → when its status could not be written last."""
        self._undecided_s = dict.fromkeys(world.pools, 0.0)
        """Pool → when there was no decision to show last."""
        self._specs: dict[str, PoolSpec] = {}
        self._look: Mapping[Place, Demand | Exception] = {}
        self._fleets: dict[Key, Fleet] = {}
        """As the operator saw them last."""
        self._silent: dict[Key, dict[str, float]] = {}
        """Pods that the operator saw ready, and whose beats it did not see → since when."""

    # what the operator sees

    def begins(self) -> None:
        """A new process."""
        self._silent, self._fleets = {}, {}
        for name in self._unwritten_s:
            self.unwritten(name)

    def ticks(self) -> None:
        """A change that is seen in the middle of a tick may hold for it, or from the next one on."""
        self._specs = {key.name: each.pool.spec for key, each in self._world.loop.pools.items()}

    def looked(self, found: Mapping[Place, Demand | Exception]) -> None:
        self._look = found

    def saw_fleet(self, key: Key, fleet: Fleet) -> None:
        self._fleets[key] = fleet
        steering = self._world.loop.pools.get(key)
        silent = self._silent.get(key, {})
        heard = {pod_of(name) for name in self._known()}
        blind = steering is None or any(not isinstance(self._look.get(place), Demand) for place in steering.places())
        mute = set() if blind else {pod.name for pod in fleet.staying if pod.ready} - heard
        self._silent[key] = {name: silent.get(name, self._world.now_s) for name in mute}

    def _known(self) -> set[str]:
        return {name for each in self._look.values() if isinstance(each, Demand) for name in each.workers}

    # Events and status

    def told(self, body: Raw) -> None:
        """An Event."""
        world = self._world
        name, reason = body["involvedObject"]["name"], body["reason"]
        assert body["message"], f"an Event {reason} without words"
        world.counts[f"Event {reason}"] += 1
        times = self._events.setdefault((name, reason), deque())
        times.append(world.now_s)
        while times[0] <= world.now_s - 60:
            times.popleft()
        most = SCALINGS_A_MINUTE if reason in SCALINGS else OTHERS_A_MINUTE
        if reason not in {"WorkerDied", "TasksHandedOn"}:
            restarts = sum(0 < each > world.now_s - 60 for each in world.restarts)
            assert len(times) <= most * (1 + restarts), f"a flood of {reason}"

    def unwritten(self, name: str) -> None:
        """A write of its status failed, or so the operator believes."""
        self._unwritten_s[name] = self._world.now_s

    def check_status(self, name: str) -> None:
        """After a tick: what is shown is what was decided lately, and whether the spec can be read."""
        world, steering = self._world, self._world.steering(name)
        settled_s = max(self._unwritten_s[name], world.started_s)
        shown = world.statuses.get(name, {})
        self._check_said(name, shown, settled_s)
        if steering is None or steering.decision is None or "TemplateValid" in steering.troubles:
            self._undecided_s[name] = world.now_s
            return
        decision = steering.decision
        assert decision.message, "a decision without words"
        rows = self._rows[name]
        rows.append((world.now_s, (decision.replicas, decision.message[:1_000])))
        while rows[0][0] < world.now_s - STATUS_S:
            rows.popleft()
        if world.now_s - max(self._undecided_s[name], settled_s) <= STATUS_S + 1:
            return
        found = (shown.get("desiredReplicas"), shown.get("decision", {}).get("message"))
        assert found in [row for _, row in rows], f"the status of {name} is old: {found}, lately {[*rows]}"

    def _check_said(self, name: str, shown: Raw, settled_s: float) -> None:
        """The status says whether the newest spec that the operator saw can be read."""
        newest, world = self._world.newest[name], self._world
        if not newest.generation or world.now_s - max(newest.at_s, settled_s) <= STATUS_S + 1:
            return
        ready = next((each for each in shown.get("conditions", ()) if each["type"] == "Ready"), {"reason": "nothing"})
        said = ready["reason"] == "InvalidSpec"
        assert said == newest.bad, f"the newest spec of {name} is {'bad' if newest.bad else 'good'}; shown is {ready}"

    # the number of replicas

    def scaled(self, pool: TruePool, replicas: int) -> None:
        """The operator writes the number."""
        world, steering = self._world, self._world.steering(pool.name)
        assert pool.deployment is not None
        assert steering is not None
        before, spec = pool.deployment.replicas, steering.pool.spec
        world.counts["scaled up" if replicas > before else "scaled down"] += 1
        assert replicas != before, "the number that it is already is written again"
        if self._specs.get(pool.name) is spec:
            assert spec.mode in {Mode.AUTO, Mode.EXTERNAL}, f"a write in mode {spec.mode}"
            self._check_bounds(spec, before, replicas, steering.granted)
        if any(not isinstance(self._look.get(place), Demand) for place in steering.places()):
            self._check_blind(spec, before, replicas, steering.granted)
        if replicas < before:
            self._check_restart(spec, before, replicas, steering.granted)
            self._excuse(pool)

    def _check_bounds(self, spec: PoolSpec, before: int, after: int, granted: int | None) -> None:
        if spec.mode is Mode.EXTERNAL:
            assert granted is None or after <= granted or after < before, f"{before} → {after}, granted {granted}"
            return
        least, most = limits_of(_bare(spec), self._world.now_s)
        least, most = (least, most) if granted is None else (min(least, granted), min(most, granted))
        assert after >= least or after > before, f"{before} → {after} is below {least}"
        assert after <= most or after < before, f"{before} → {after} is above {most}"

    def _check_blind(self, spec: PoolSpec, before: int, after: int, granted: int | None) -> None:
        self._world.counts["scaled blindly"] += 1
        least, most = limits_of(_bare(spec), self._world.now_s)
        allowed = {least, min(most, spec.scaling.fallback.replicas)}
        allowed |= {spec.replicas} if spec.mode is Mode.EXTERNAL else set()
        allowed |= set() if granted is None else {min(each, granted) for each in allowed}
        assert after > before, "a pool shrinks while its queues cannot be read"
        assert after in allowed, "a pool grows to a number that nobody named"

    def _check_restart(self, spec: PoolSpec, before: int, after: int, granted: int | None) -> None:
        """A process that has just begun does not know what was needed; only limits make it shrink a pool."""
        window_s = spec.scaling.behavior.scale_down.stabilization_window_seconds
        if spec.mode is Mode.AUTO and self._world.now_s - self._world.started_s < window_s:
            _, most = limits_of(_bare(spec), self._world.now_s)
            most = most if granted is None else min(most, granted)
            assert after >= min(before, most), f"a restart shrinks: {before} → {after}"

    # pods

    def _excuse(self, pool: TruePool) -> None:
        """Which pods nobody can know to work."""
        world, key = self._world, Key(pool.namespace, pool.name)
        known, silent = self._known(), self._silent.get(key, {})
        seen = {pod.name for pod in self._fleets[key].pods if pod.ready}
        seen |= {pod.name for pod in world.watched.fleet(key).pods if pod.ready}
        for pod in pool.staying:
            unknown = pod.worker is None or pod.worker.name not in known
            # Who is ready may work although nothing was heard of it, for a while.
            awaited = pod.name in silent and world.now_s - silent[pod.name] < MUTE_S
            if (unknown and not awaited) or (pod.name in seen and not pod.ready):
                pool.excused.add(pod.name)

    def stopped(self, pool: TruePool, pod: TruePod) -> None:
        """The number is lower than there are pods, and this one has to go."""
        if pool.running(pod) and not pool.foreign:
            self._world.counts["excused"] += 1
            assert pod.name in pool.excused, f"{pod.name} runs {pool.running(pod)} tasks and is stopped"

    def asked(self, queue: TrueQueue, names: tuple[str, ...]) -> None:
        """These are asked to drain."""
        for each in self._look.values():
            if not isinstance(each, Demand):
                continue
            for name in names:
                steering = self._world.steering(name.rpartition("-")[0])
                if steering is None or name not in each.workers:
                    continue
                idle = steering.pool.spec.drain.policy == "IdleOnly"
                busy = each.workers[name].running > 0 and name not in each.asked
                assert not (idle and busy), f"{name} is busy and was asked to drain"

    def handed_on(self, name: str) -> None:
        """What this worker held goes on elsewhere."""
        world = self._world
        living = [pod for pool in world.pools.values() for pod, worker in pool.workers if worker.name == name]
        assert not living or living[0].died_unheard, f"tasks of {name} are handed on, and it lives"
        world.counts["handed on"] += 1


def _bare(spec: PoolSpec) -> Raw:
    """The bounds of a spec, as somebody wrote them."""
    scaling = spec.scaling
    schedules = [
        {"timeZone": each.time_zone, "minReplicas": each.min_replicas or 0}
        | ({} if each.max_replicas is None else {"maxReplicas": each.max_replicas})
        for each in scaling.schedules
    ]
    return {"minReplicas": scaling.min_replicas, "maxReplicas": scaling.max_replicas, "schedules": schedules}
