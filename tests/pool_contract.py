"""What a WorkerPool does wherever its replicas run: one suite for pods of a cluster and for processes of a laptop.

A module that has such a place gives a fixture `rig` and a subclass of :class:`PoolContract`. Redis and workers are
real, and so is the operator's loop, which ticks once a second and is woken by submissions.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from headrace.broker.broker import NewTask, TaskView
from headrace.task import Envelope, State, encode_envelope, new_id
from headrace_operator.cluster import Cluster
from headrace_operator.fleet import Fleet, Key
from headrace_operator.loop import ControlLoop
from worker_harness import Desk, eventually

WAKE_S = 0.5
"""From the submission to the number that is asked for; half a tick, so that no tick can be what did it."""
HAND_ON_S = 2.0
"""From a worker's violent end to its task being free again."""

SPEC: dict[str, Any] = {
    "queues": [{"name": "default"}],
    "scaling": {
        "maxReplicas": 3,
        "idleSeconds": 0,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": []}},
    },
    "worker": {"concurrency": 2, "terminationGracePeriodSeconds": 20},
}


@dataclass
class Rig:
    """A pool `pool` whose replicas run the app of `tests/cluster/app.py`."""

    loop: ControlLoop
    cluster: Cluster
    key: Key
    desk: Desk
    apply: Callable[[dict[str, Any]], Awaitable[None]]
    """A spec without its template, as `kubectl apply` would bring it."""
    kill: Callable[[str], Awaitable[None]]
    """SIGKILL to the worker of this replica."""
    cause: str
    """How such an end is called, as a regular expression."""
    told: list[str] = field(default_factory=list)
    """Reasons of the Events so far."""

    @property
    def fleet(self) -> Fleet:
        return self.cluster.fleet(self.key)

    @property
    def scalings(self) -> int:
        """Times that the number was changed."""
        steering = self.loop.pools.get(self.key)
        return 0 if steering is None else sum(steering.scalings.values())

    async def asked_for(self, number: int) -> None:
        await self._until(lambda: self.fleet.asked_for == number)

    async def ready(self, number: int) -> None:
        await self._until(lambda: self.fleet.ready == number)

    async def alone(self, number: int) -> None:
        """So many replicas, and none that still leaves."""
        await self._until(lambda: self.fleet.asked_for == number == len(self.fleet.pods))

    async def ticks(self, number: int) -> None:
        """So many whole ticks from now on; it returns right after the last one."""
        end = self.loop.numbers.ticks + number
        await self._until(lambda: self.loop.numbers.ticks >= end)

    async def running(self, task_id: str) -> str:
        """The replica that runs the task, once one does."""
        seen = await self.desk.until(task_id, lambda view: view.state is State.PROCESSING)
        return str(seen.worker).rpartition(":")[0]

    async def _until(self, good: Callable[[], bool]) -> None:
        async def look() -> bool:
            return good()

        await eventually(look, timeout_s=60)


class Fate(NamedTuple):
    """What became of a task."""

    state: State
    attempts: int
    crashes: int
    interruptions: int


UNDISTURBED = Fate(State.COMPLETED, 1, 0, 0)


def fate(task: TaskView) -> Fate:
    return Fate(task.state, task.counters.attempts, task.counters.crashes, task.counters.interruptions)


async def submit_at_once(desk: Desk, number: int, **payload: Any) -> list[str]:
    """So many tasks `nap` by one call, so that no look can see only some of them."""
    raw = msgspec.Raw(msgspec.json.encode(payload))
    ids = [new_id(desk.queue.name) for _ in range(number)]
    envelopes = [Envelope(1, 1, each, type="nap", created_ms=1, payload=raw) for each in ids]
    news = [NewTask(each.id, encode_envelope(each), 1) for each in envelopes]
    await desk.client.call(desk.queue.submit(news))
    return ids


def spec(**changes: Any) -> dict[str, Any]:
    return {**SPEC, **changes}


class PoolContract:
    """Inherited by the tests of each place."""

    async def test_from_zero_at_once_in_one_write_and_to_zero_when_idle(self, rig: Rig) -> None:
        await rig.apply(spec())
        await rig.ticks(2)
        assert (rig.fleet.asked_for, rig.fleet.pods) == (0, ()), "a pool with nothing to do starts nothing"
        began = monotonic()
        ids = await submit_at_once(rig.desk, 40, seconds=0.05)
        await rig.asked_for(3)
        assert monotonic() - began < WAKE_S
        assert rig.scalings == 1
        ended = [await rig.desk.ended(task_id) for task_id in ids]
        await rig.alone(0)
        assert {fate(task) for task in ended} == {UNDISTURBED}
        assert rig.told[0] == "WokeFromZero" and rig.told[-1] == "ScaledToZero"

    async def test_a_busy_one_is_never_stopped(self, rig: Rig) -> None:
        """Asked for none, the idle one goes at once; the busy one when its task has ended, and that undisturbed."""
        await rig.apply(spec(mode="External", replicas=2))
        await rig.ready(2)
        task_id = await rig.desk.submit("nap", {"seconds": 5.0})
        busy = await rig.running(task_id)
        await rig.ticks(2)
        await rig.apply(spec(mode="External", replicas=0))
        await rig.alone(1)
        assert [pod.name for pod in rig.fleet.pods] == [busy]
        assert (await rig.desk.look(task_id)).state is State.PROCESSING, "else this shows nothing"
        await rig.alone(0)
        assert fate(await rig.desk.look(task_id)) == UNDISTURBED

    async def test_the_task_of_a_killed_one_goes_on_at_once_with_the_cause(self, rig: Rig) -> None:
        await rig.apply(spec())
        task_id = await rig.desk.submit("nap", {"seconds": 1.5})
        victim = await rig.running(task_id)
        await rig.kill(victim)
        began = monotonic()
        crashed = await rig.desk.until(task_id, lambda view: view.counters.crashes == 1)
        assert monotonic() - began < HAND_ON_S
        assert re.search(rig.cause, crashed.attempts[0].cause or "")
        task = await rig.desk.ended(task_id)
        assert fate(task) == Fate(State.COMPLETED, 2, 1, 0)
        assert {"WorkerDied", "TasksHandedOn"} <= set(rig.told)
        await rig.alone(0)

    async def test_external_has_what_somebody_else_asks_for(self, rig: Rig) -> None:
        await rig.apply(spec(mode="External", replicas=2))
        await rig.ready(2)
        await rig.apply(spec(mode="External", replicas=1))
        await rig.alone(1)
        await rig.ticks(2)
        assert rig.fleet.asked_for == 1, "nothing waits, and it stays"
        await rig.apply(spec(mode="External", replicas=0))
        await rig.alone(0)

    async def test_paused_does_nothing_until_it_is_resumed(self, rig: Rig) -> None:
        await rig.apply(spec(mode="Paused"))
        task_id = await rig.desk.submit("nap")
        await rig.ticks(3)
        assert (rig.fleet.asked_for, rig.fleet.pods) == (0, ())
        await rig.apply(spec())
        assert (await rig.desk.ended(task_id)).state is State.COMPLETED
        assert {"Paused", "Resumed", "WokeFromZero"} <= set(rig.told)
