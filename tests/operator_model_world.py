"""One run of the operator's model test: the world, and the operator in it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

from headrace_operator.fleet import Key, Pod
from headrace_operator.hand_on import HandOn
from headrace_operator.kube import Watched
from headrace_operator.loop import ControlLoop
from headrace_operator.observed import Moment
from headrace_operator.steering import Steering
from operator_model_api import FAULTS, InMemory, Redis, SeenCluster
from operator_model_cluster import Raw, TrueDeployment, TruePod, TruePool
from operator_model_plan import Plan
from operator_model_promises import Promises
from operator_model_queue import EPOCH

NAMESPACE: Final = "shop"


@dataclass
class Watch:
    """The events of one kind of objects, and how far the operator has seen them."""

    log: list[tuple[Raw, bool]] = field(default_factory=list)
    seen: int = 0


class Newest(NamedTuple):
    """The newest spec of a pool that this process was shown."""

    generation: int = 0
    bad: bool = False
    at_s: float = 0.0


class World:
    """Everything. `dice` are those of the present step."""

    def __init__(self, plan: Plan, small: Callable[[World], None], redis: Redis | None = None) -> None:
        self.plan = plan
        self._small = small
        """One thing that happens by itself."""
        self._redis = redis or InMemory()
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
        self.queues = {name: self._redis.queue(name) for name in sorted(set(plan.queue_of.values()))}
        self.pools = {name: TruePool(name, self.queues[plan.queue_of[name]]) for name in plan.specs}
        self.watches = {kind: Watch() for kind in ("pools", "deployments", "pods")}
        self.generations = dict.fromkeys(plan.specs, 0)
        self.bad: dict[str, Raw] = {}
        """Pool → the spec that nobody can read, where that is the newest one."""
        self.statuses: dict[str, Raw] = {}
        self._version = 0
        self.promises = Promises(self)
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
        looker = cast(Any, self._redis.lookers(self, self.lives))
        self.cluster = SeenCluster(self, self.lives)
        self.loop = ControlLoop(self.cluster, looker, tick_s=1.0, caps=self.plan.caps, clock=self.moment)
        self.hand_on_duty = HandOn(looker)
        self.to_hand_on: list[tuple[Key, Pod, bool]] = []
        self.newest = dict.fromkeys(self.plan.specs, Newest())
        self.promises.begins()
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
        there = {Key(NAMESPACE, name) for name, pool in self.pools.items() if pool.deployment is not None}
        self.watched.forget_others(there, {Key(NAMESPACE, name): {*pool.pods} for name, pool in self.pools.items()})

    def moment(self) -> Moment:
        return Moment(self.now_s, datetime.fromtimestamp(EPOCH + self.now_s, UTC))

    def steering(self, name: str) -> Steering | None:
        return self.loop.pools.get(Key(NAMESPACE, name))

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
        self.promises.ticks()
        await self.loop.tick()
        await self.loop.settled()
        if self.broken is not None:
            raise self.broken
        assert not self.loop.numbers.errors, "a step of the loop failed by an error that nobody expects"
        if self.killed:
            self.counts["killed"] += 1
            self.start()
            return
        for name in self.pools:
            self.promises.check_status(name)

    async def do_duties(self) -> None:
        """What watches left to be done beside the loop."""
        try:
            await self._hand_on_all()
        except asyncio.CancelledError:
            if self.broken is not None:
                raise self.broken from None
            self.start()

    async def _hand_on_all(self) -> None:
        while self.to_hand_on:
            key, pod, deleted = self.to_hand_on.pop(0)
            steering = self.loop.pools.get(key)
            if steering is not None and self.hand_on_duty.is_new(key, pod):
                for news in await self.hand_on_duty.act(key, pod, steering.places()):
                    await steering.tell(self.cluster, news, self.moment())
            if deleted:
                self.hand_on_duty.forget(key, pod.name)

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
            self.promises.unwritten(path.split("/")[-2])
        return fault

    def redis_fault(self, name: str) -> str:
        if self.calm or self.dice.random() > self.plan.faulty:
            return ""
        self.counts[f"redis {name}"] += 1
        return self.dice.choice(("lost request", "lost reply"))

    def shown(self, name: str, status: Raw) -> None:
        self.statuses[name] = {**self.statuses.get(name, {}), **status}
        self.counts["statuses"] += 1
        self.emit("pools", self.pool_raw(name))

    # watches

    def emit(self, kind: str, raw: Raw, *, deleted: bool = False) -> None:
        self.watches[kind].log.append((raw, deleted))

    def deliver(self, kind: str, most: int = 10_000) -> None:
        """The watch shows the next events."""
        watch = self.watches[kind]
        for raw, deleted in watch.log[watch.seen : watch.seen + most]:
            watch.seen += 1
            if kind == "pools":
                self._saw_pool(raw)
            elif kind == "deployments":
                self.watched.saw_deployment(raw, deleted=deleted)
            else:
                self._saw_pod(raw, deleted)

    def _saw_pool(self, raw: Raw) -> None:
        name, generation = raw["metadata"]["name"], raw["metadata"]["generation"]
        before = self.steering(name)
        error = self.loop.saw_pool(raw)
        if generation > self.newest[name].generation:
            self.newest[name] = Newest(generation, error is not None, self.now_s)
        assert before is None or self.steering(name) is before, f"{name} is not led on"
        key = Key(NAMESPACE, name)
        if error is None:
            for pod, deleted in self.hand_on_duty.early(key):
                self._ended(key, pod, deleted)

    def _saw_pod(self, raw: Raw, deleted: bool) -> None:
        seen = self.watched.saw_pod(raw, deleted=deleted)
        if seen is None:
            return
        self._ended(*seen, deleted)

    def _ended(self, key: Key, pod: Pod, deleted: bool) -> None:
        """As the operator does with a pod that a watch shows."""
        if self.hand_on_duty.is_new(key, pod):
            if key in self.loop.pools:
                self.to_hand_on.append((key, pod, deleted))
                return
            self.hand_on_duty.keep(key, pod, deleted)
        if deleted:
            self.hand_on_duty.forget(key, pod.name)

    # objects

    def pool_raw(self, name: str) -> Raw:
        return {
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "generation": self.generations[name]
            },
            "spec": self.bad.get(name, self.plan.specs[name]),
            "status": self.statuses.get(name, {}),
        }  # fmt: skip

    def change(self, name: str, spec: Raw) -> None:
        """Somebody applies the resource."""
        self.plan.specs[name] = spec
        self.bad.pop(name, None)
        self._applied(name)

    def spoil(self, name: str, spec: Raw) -> None:
        """Somebody applies what nobody can read."""
        self.bad[name] = spec
        self._applied(name)

    def _applied(self, name: str) -> None:
        self.generations[name] += 1
        self.emit("pools", self.pool_raw(name))

    def changed(self, pool: TruePool) -> None:
        assert pool.deployment is not None
        self.touch(pool.deployment)
        self.emit("deployments", pool.deployment_raw())

    def touch(self, made: TrueDeployment) -> None:
        self._version += 1
        made.version = self._version

    def make_deployment(self, pool: TruePool, template: str, replicas: int = 0) -> Raw:
        pool.deployment = TrueDeployment(f"uid-{self._version}", replicas, template)
        self.changed(pool)
        return pool.deployment_raw()

    def set_template(self, pool: TruePool, template: str) -> Raw:
        assert pool.deployment is not None
        if pool.deployment.template != template:
            pool.deployment.template = template
            pool.deployment.generation += 1
            self.changed(pool)
        return pool.deployment_raw()

    def set_replicas(self, pool: TruePool, replicas: int) -> None:
        assert pool.deployment is not None
        pool.deployment.replicas = replicas
        pool.deployment.generation += 1
        self.changed(pool)

    def pod_changed(self, pool: TruePool, pod: TruePod, *, deleted: bool = False) -> None:
        self._version += 1
        self.emit("pods", pod.raw(pool.name, pool.namespace), deleted=deleted)
        if pool.deployment is not None and not deleted:
            self.changed(pool)
