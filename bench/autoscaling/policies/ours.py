"""The operator of this repository: its own `decide()`, `remember()`, `shrink()` and `Expectation`, tick by tick as
`Steering` does, from the beats that workers tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from bench.autoscaling.pods import Pod
from bench.autoscaling.pool import Pool
from headrace.broker.demand import Demand
from headrace_operator import workforce
from headrace_operator.decide import Decision, decide
from headrace_operator.drain import NEVER_TOLD, Replica, Shrink, shrink
from headrace_operator.expectation import Expectation
from headrace_operator.history import History, remember, rested
from headrace_operator.observed import Moment, Observed, Unreadable
from headrace_operator.spec import PoolSpec, read_spec

TICK_S: Final = 1.0
DAWN: Final = datetime(2026, 1, 5, tzinfo=UTC)
QUEUE: Final = "default"


@dataclass(frozen=True, slots=True)
class Ours:
    """A WorkerPool with `scaling` as its resource has it; nothing: the defaults."""

    scaling: Mapping[str, Any]

    def attach(self, pool: Pool, random: Random) -> None:
        setting = pool.setting
        scaling = {"maxReplicas": setting.max_pods, **self.scaling}
        worker = {"concurrency": setting.slots}
        spec = read_spec({"queues": [{"name": QUEUE}], "scaling": scaling, "worker": worker})
        operator = Operator(pool, spec)
        pool.woken, pool.restarted = operator.tick, operator.restart
        pool.every(random.uniform(0, TICK_S), TICK_S, operator.tick)


class Operator:
    """One pool's steering, without the ways to Redis and to the cluster."""

    def __init__(self, pool: Pool, spec: PoolSpec) -> None:
        self._pool, self._spec = pool, spec
        self._history = History(since_s=-1e6)
        self._expected = Expectation()
        self._rested_s: float | None = None

    def restart(self) -> None:
        """As another process: it knows nothing of before. Who was asked to drain stands in Redis."""
        self._history = History(since_s=self._pool.now_s)
        self._expected = Expectation()
        self._rested_s = None

    def tick(self) -> None:
        """Look, decide, drain, write."""
        pool, now_s = self._pool, self._pool.now_s
        if not (pool.asked_for or pool.pods or pool.waiting or pool.processing):
            self._rested_s = now_s
            return
        if self._rested_s is not None:
            self._history, self._rested_s = rested(self._history, self._spec.scaling, self._rested_s), None
        observed = self._observed()
        decision = decide(self._spec, observed, self._history, Moment(now_s, DAWN + timedelta(seconds=now_s)))
        if isinstance(observed.queues, Unreadable):  # without Redis nobody can be asked to drain: it only ever grows
            pool.scale(max(decision.replicas, pool.asked_for))
        else:
            self._carry_out(decision)
        self._history = remember(self._history, self._spec.scaling, observed, decision, now_s, written=pool.asked_for)

    def _observed(self) -> Observed:
        pool = self._pool
        if pool.blind:
            return Observed(Unreadable("Redis is away"), pool.asked_for)
        demand = self._demand()
        self._expected = self._expected.learn(demand)
        seconds = self._expected.seconds(self._spec.worker.expected_task_seconds)
        load = replace(workforce.load(QUEUE, demand, 0), task_s=seconds, types=self._expected.types)
        return Observed((load,), pool.asked_for, pool.busy)

    def _demand(self) -> Demand:
        """The queue as Redis tells it."""
        pool = self._pool
        workers = {pod.name: pod.told(pool.now_s) for pod in pool.pods if pod.ready_s is not None}
        return Demand(len(pool.waiting), pool.processing, 0, 0, 0, 0.0, False, workers, {})

    def _carry_out(self, decision: Decision) -> None:
        pool, asked_for = self._pool, self._pool.asked_for
        staying = pool.staying
        plan = self._plan(staying, decision.replicas)
        if plan.ask or plan.release:
            by_name = {pod.name: pod for pod in staying}
            for name in plan.ask:
                if by_name[name].ready_s is not None:  # one that never began has no worker to ask
                    pool.ask(by_name[name])
            for name in plan.release:
                pool.release(by_name[name])
        lowest = asked_for - plan.fewer
        pool.scale(max(decision.replicas, lowest) if decision.replicas < asked_for else decision.replicas, plan.remove)

    def _plan(self, staying: list[Pod], wanted: int) -> Shrink:
        pool, drain = self._pool, self._spec.drain
        if wanted >= pool.asked_for and not any(pod.asked_s is not None for pod in staying):
            return Shrink()
        return shrink(
            [self._replica(pod) for pod in staying],
            wanted=wanted, asked_for=pool.asked_for, policy=drain.policy, now_s=pool.now_s,
            timeout_s=drain.timeout_seconds,
        )  # fmt: skip

    def _replica(self, pod: Pod) -> Replica:
        if pod.ready_s is None:
            return Replica(pod.name, pod.number, NEVER_TOLD, ready=False)
        beat = pod.told(self._pool.now_s)
        return Replica(pod.name, pod.number, beat.running, pod.asked_s, beat.draining)
