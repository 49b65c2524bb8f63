"""One run of the operator's model test: the world, the operator in it, and what must hold at every moment."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

from headrace.broker.demand import Demand, WorkerBeat
from headrace_operator.caps import Caps
from headrace_operator.fleet import Key, Pod
from headrace_operator.hand_on import HandOn
from headrace_operator.kube import KubeCluster, Watched
from headrace_operator.looker import Place
from headrace_operator.loop import ControlLoop
from headrace_operator.observed import Moment
from headrace_operator.schedules import bounds
from headrace_operator.spec import Mode, PoolSpec
from headrace_operator.steering import Steering
from operator_model_api import FAULTS, Api, Lookers
from operator_model_cluster import EPOCH, Raw, TrueDeployment, TruePod, TruePool, TrueQueue, Worker

STATUS_S: Final = 8.0
"""A status is never older, unless it could not be written: 5 s and a tick of the longest."""
SCALINGS_A_MINUTE: Final = 61
OTHERS_A_MINUTE: Final = 3
"""Events of one reason, one pool."""
SCALINGS: Final = {"ScaledUp", "ScaledDown", "ScaledToZero", "WokeFromZero"}


@dataclass
class Plan:
    """How a run is."""

    specs: dict[str, Raw]
    queue_of: dict[str, str]
    caps: Caps = field(default_factory=Caps)
    interleaved: float = 0.5
    """How often something happens between two steps of the operator."""
    faulty: float = 0.02
    """How often a request to the API server goes wrong; to Redis, too."""


@dataclass
class Watch:
    """The events of one kind of objects, and how far the operator has seen them."""

    log: list[tuple[Raw, bool]] = field(default_factory=list)
    seen: int = 0


class World:
    """Everything. `dice` are those of the present step."""

    def __init__(self, plan: Plan, small: Callable[[World], None]) -> None:
        self.plan = plan
        self._small = small
        """One thing that happens by itself."""
        self.dice = random.Random(0)
        self.now_s = 0.0
        self.lives = 0
        self.killed = False
        self.calm = False
        """Nothing goes wrong any more, and nothing happens between two steps."""
        self.broken: AssertionError | None = None
        self.counts: Counter[str] = Counter()
        self.restarts: list[float] = []
        self.writes = 0
        """Requests that change something, so far."""
        self.kill_at: tuple[int, str] | None = None
        """At which of them the operator dies, and whether before or after it."""
        self.queues = {name: TrueQueue() for name in set(plan.queue_of.values())}
        self.pools = {name: TruePool(name, self.queues[plan.queue_of[name]]) for name in plan.specs}
        self.watches = {kind: Watch() for kind in ("pools", "deployments", "pods")}
        self.generations = dict.fromkeys(plan.specs, 0)
        self.statuses: dict[str, Raw] = {}
        self.events: dict[tuple[str, str], deque[float]] = {}
        self.rows: dict[str, deque[tuple[float, tuple[Any, ...]]]] = {name: deque() for name in plan.specs}
        self.status_broken_s = dict.fromkeys(plan.specs, 0.0)
        self._version = 0
        self._specs: dict[str, PoolSpec] = {}
        self._look: Mapping[Place, Demand | Exception] = {}
        for name in plan.specs:
            self.change(name, plan.specs[name])
        self.start()

    # the operator

    def start(self) -> None:
        """A new process; it lists everything, in an order that nobody promises."""
        self.lives += 1
        self.killed = False
        self.started_s = self.now_s
        self.restarts.append(self.now_s)
        self.watched = Watched()
        looker = cast(Any, Lookers(self, self.lives))
        self.cluster = KubeCluster(cast(Any, Api(self, self.lives)), self.watched)
        self.loop = ControlLoop(self.cluster, looker, tick_s=1.0, caps=self.plan.caps, clock=self.moment)
        self.hand_on_duty = HandOn(looker)
        self.to_hand_on: list[tuple[Key, Pod]] = []
        self.status_broken_s = dict.fromkeys(self.plan.specs, self.now_s)
        self.list_all()

    def list_all(self) -> None:
        """As after a gap of the watches: everything that is there comes again, and no word of what went."""
        for kind, watch in self.watches.items():
            watch.log = [(raw, False) for raw in self._listed(kind)]
            watch.seen = 0

    def _listed(self, kind: str) -> list[Raw]:
        if kind == "pools":
            return [self.pool_raw(name) for name in self.pools]
        if kind == "deployments":
            return [pool.deployment_raw() for pool in self.pools.values() if pool.deployment is not None]
        return [pod.raw(pool.name, pool.namespace) for pool in self.pools.values() for pod in pool.pods.values()]

    def list_fully(self) -> None:
        """As the operator does from time to time: what is not there any more is forgotten."""
        there = {Key("shop", name) for name, pool in self.pools.items() if pool.deployment is not None}
        self.watched.forget_others(there, {Key("shop", name): {*pool.pods} for name, pool in self.pools.items()})

    def moment(self) -> Moment:
        return Moment(self.now_s, datetime.fromtimestamp(EPOCH + self.now_s, UTC))

    def steering(self, name: str) -> Steering | None:
        return self.loop.pools.get(Key("shop", name))

    @contextmanager
    def judged(self) -> Iterator[None]:
        """A broken promise is not to be taken for a fault of the operator's step, which goes on after those."""
        try:
            yield
        except AssertionError as error:
            self.broken = self.broken or error
            raise asyncio.CancelledError from error

    async def tick(self, seconds: float) -> None:
        self.now_s += seconds
        # A change that is seen in the middle of a tick may hold for it, or from the next one on.
        self._specs = {key.name: each.pool.spec for key, each in self.loop.pools.items()}
        await self.loop.tick()
        await self.loop.aclose()
        if self.broken is not None:
            raise self.broken
        assert not self.loop.numbers.errors, "a step of the loop failed by an error that nobody expects"
        if self.killed:
            self.counts["killed"] += 1
            self.start()
            return
        for name in self.pools:
            self._check_status(name)

    async def hand_on_all(self) -> None:
        """The duties that watches left behind."""
        try:
            await self._hand_on_all()
        except asyncio.CancelledError:
            if self.broken is not None:
                raise self.broken from None
            self.start()

    async def _hand_on_all(self) -> None:
        while self.to_hand_on:
            key, pod = self.to_hand_on.pop(0)
            steering = self.loop.pools.get(key)
            if steering is not None and self.hand_on_duty.is_new(key, pod):
                for news in await self.hand_on_duty.act(key, pod, steering.places()):
                    await steering.tell(self.cluster, news, self.moment())

    # what happens to the operator's requests

    def between(self) -> None:
        """Others do not wait for the operator."""
        if self.calm or self.dice.random() > self.plan.interleaved:
            return
        for _ in range(self.dice.choice((1, 1, 2, 5))):
            self._small(self)

    def fault(self, method: str, path: str) -> str:
        if method != "GET":
            self.writes += 1
            if self.kill_at is not None and self.writes == self.kill_at[0]:
                return self.kill_at[1]
        if self.calm or self.dice.random() > self.plan.faulty:
            return ""
        fault = self.dice.choice(FAULTS)
        self.counts[fault] += 1
        if "workerpools" in path:
            self.status_broken_s[path.split("/")[-2]] = self.now_s
        return fault

    def redis_fault(self, name: str) -> str:
        if self.calm or self.dice.random() > self.plan.faulty:
            return ""
        self.counts[f"redis {name}"] += 1
        return self.dice.choice(("lost request", "lost reply"))

    def looked(self, found: Mapping[Place, Demand | Exception]) -> None:
        self._look = found

    def told(self, body: Raw) -> None:
        name, reason = body["involvedObject"]["name"], body["reason"]
        assert body["message"], f"an Event {reason} without words"
        self.counts[f"Event {reason}"] += 1
        times = self.events.setdefault((name, reason), deque())
        times.append(self.now_s)
        while times[0] <= self.now_s - 60:
            times.popleft()
        most = SCALINGS_A_MINUTE if reason in SCALINGS else OTHERS_A_MINUTE
        if reason not in {"WorkerDied", "TasksHandedOn"}:
            assert len(times) <= most * (1 + sum(0 < s > self.now_s - 60 for s in self.restarts)), (
                f"a flood of {reason}"
            )

    def shown(self, name: str, status: Raw) -> None:
        self.statuses[name] = {**self.statuses.get(name, {}), **status}
        self.counts["statuses"] += 1
        self.emit("pools", self.pool_raw(name))

    def _check_status(self, name: str) -> None:
        steering = self.steering(name)
        if steering is None or steering.decision is None or "TemplateValid" in steering.troubles:
            self.status_broken_s[name] = self.now_s
            return
        decision = steering.decision
        assert decision.message, "a decision without words"
        rows = self.rows[name]
        rows.append((self.now_s, (decision.replicas, decision.message[:1_000])))
        while rows[0][0] < self.now_s - STATUS_S:
            rows.popleft()
        if self.now_s - max(self.status_broken_s[name], self.started_s) <= STATUS_S + 1:
            return
        shown = self.statuses.get(name, {})
        found = (shown.get("desiredReplicas"), shown.get("decision", {}).get("message"))
        assert found in [row for _, row in rows], f"the status of {name} is old: {found}, lately {[*rows]}"

    # objects

    def emit(self, kind: str, raw: Raw, *, deleted: bool = False) -> None:
        self.watches[kind].log.append((raw, deleted))

    def deliver(self, kind: str, most: int = 10_000) -> None:
        """The watch shows the next events."""
        watch = self.watches[kind]
        for raw, deleted in watch.log[watch.seen : watch.seen + most]:
            watch.seen += 1
            if kind == "pools":
                self.loop.saw_pool(raw)
            elif kind == "deployments":
                self.watched.saw_deployment(raw, deleted=deleted)
            else:
                self._saw_pod(raw, deleted)

    def _saw_pod(self, raw: Raw, deleted: bool) -> None:
        seen = self.watched.saw_pod(raw, deleted=deleted)
        if seen is None:
            return
        key, pod = seen
        if key in self.loop.pools and self.hand_on_duty.is_new(key, pod):
            self.to_hand_on.append((key, pod))
        if deleted:
            self.hand_on_duty.forget(key, pod.name)

    def pool_raw(self, name: str) -> Raw:
        return {
            "metadata": {
                "name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": self.generations[name]
            },
            "spec": self.plan.specs[name],
            "status": self.statuses.get(name, {}),
        }  # fmt: skip

    def change(self, name: str, spec: Raw) -> None:
        """Somebody applies the resource."""
        self.plan.specs[name] = spec
        self.generations[name] += 1
        self.emit("pools", self.pool_raw(name))

    def _changed(self, pool: TruePool) -> None:
        assert pool.deployment is not None
        self.touch(pool.deployment)
        self.emit("deployments", pool.deployment_raw())

    def touch(self, made: TrueDeployment) -> None:
        self._version += 1
        made.version = self._version

    def make_deployment(self, pool: TruePool, template: str, replicas: int = 0) -> Raw:
        pool.deployment = TrueDeployment(replicas, template)
        self._changed(pool)
        return pool.deployment_raw()

    def set_template(self, pool: TruePool, template: str) -> Raw:
        assert pool.deployment is not None
        if pool.deployment.template != template:
            pool.deployment.template = template
            pool.deployment.generation += 1
            self._changed(pool)
        return pool.deployment_raw()

    def set_replicas(self, pool: TruePool, replicas: int) -> None:
        assert pool.deployment is not None
        pool.deployment.replicas = replicas
        pool.deployment.generation += 1
        self._changed(pool)

    def pod_changed(self, pool: TruePool, pod: TruePod, *, deleted: bool = False) -> None:
        self._version += 1
        self.emit("pods", pod.raw(pool.name, pool.namespace), deleted=deleted)
        if pool.deployment is not None and not deleted:
            self._changed(pool)

    # what must hold

    def our_scale(self, pool: TruePool, replicas: int) -> None:
        """The operator writes the number."""
        made, steering = pool.deployment, self.steering(pool.name)
        assert made is not None
        assert steering is not None
        before, spec = made.replicas, steering.pool.spec
        self.counts["scaled up" if replicas > before else "scaled down"] += 1
        assert replicas != before, "the number that it is already is written again"
        if self._specs.get(pool.name) is spec:
            assert spec.mode in {Mode.AUTO, Mode.EXTERNAL}, f"a write in mode {spec.mode}"
            self._check_bounds(spec, before, replicas, steering.granted)
        blind = any(not isinstance(self._look.get(place), Demand) for place in steering.places())
        if blind:
            self.counts["scaled blindly"] += 1
            allowed = {spec.scaling.min_replicas, spec.scaling.fallback.replicas}
            allowed |= {spec.replicas} if spec.mode is Mode.EXTERNAL else set()
            assert replicas > before, "a pool shrinks while its queues cannot be read"
            assert replicas in allowed, "a pool grows to a number that nobody named"
        if replicas < before:
            self._check_restart(spec, before, replicas, steering.granted)
            self._excuse(pool)
        self.set_replicas(pool, replicas)

    def _check_bounds(self, spec: PoolSpec, before: int, after: int, granted: int | None) -> None:
        if spec.mode is Mode.EXTERNAL:
            return
        limits = bounds(spec.scaling, self.moment().wall)
        least = limits.least if granted is None else min(limits.least, granted)
        assert after >= least or after > before, f"{before} → {after} is below {least}"
        most = limits.most if granted is None else min(limits.most, granted)
        assert after <= most or after < before, f"{before} → {after} is above {most}"

    def _check_restart(self, spec: PoolSpec, before: int, after: int, granted: int | None) -> None:
        """A process that has just begun does not know what was needed; only limits make it shrink a pool."""
        window_s = spec.scaling.behavior.scale_down.stabilization_window_seconds
        if spec.mode is Mode.AUTO and self.now_s - self.started_s < window_s:
            most = min(spec.scaling.max_replicas, spec.scaling.max_replicas if granted is None else granted)
            assert after >= min(before, most), f"a restart shrinks: {before} → {after}"

    def _excuse(self, pool: TruePool) -> None:
        known = {name for each in self._look.values() if isinstance(each, Demand) for name in each.workers}
        shown = {pod.name: pod.ready for pod in self.watched.fleet(Key(pool.namespace, pool.name)).pods}
        for pod in pool.staying:
            if pod.worker is None or pod.worker.name not in known:
                pool.excused.add(pod.name)
            if shown.get(pod.name, False) and not pod.ready:
                pool.excused.add(pod.name)

    def stopping(self, pool: TruePool, pod: TruePod) -> None:
        """The number is lower than there are pods, and this one has to go."""
        if pool.running(pod) and not pool.foreign:
            self.counts["excused"] += 1
            assert pod.name in pool.excused, f"{pod.name} runs {pool.running(pod)} tasks and is stopped"

    def check_asked(self, queue: TrueQueue, names: tuple[str, ...]) -> None:
        for each in self._look.values():
            if not isinstance(each, Demand):
                continue
            for name in names:
                steering = self.steering(name.rpartition("-")[0])
                if steering is None or name not in each.workers:
                    continue
                idle = steering.pool.spec.drain.policy == "IdleOnly"
                busy = each.workers[name].running > 0 and name not in each.asked
                assert not (idle and busy), f"{name} is busy and was asked to drain"

    def hand_on(self, queue: TrueQueue, name: str) -> int:
        living = [pod for pool in self.pools.values() for pod, worker in pool.workers if worker.name == name]
        assert not living or living[0].died_unheard, f"tasks of {name} are handed on, and it lives"
        self.counts["handed on"] += 1
        return queue.hand_on(name)


def beat_of(worker: Worker, running: int) -> WorkerBeat:
    return WorkerBeat(worker.counter, running, worker.draining, None)
