"""What a WorkerPool does wherever its replicas run: one suite for pods of a cluster and for processes of a laptop.

A module that has such a place gives a fixture `rig` and a subclass of :class:`PoolContract`. Redis and workers are
real, and so is the operator's loop, which looks once a second and is woken by submissions.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from headrace.broker.broker import NewTask, TaskView
from headrace.task import Envelope, State, encode_envelope, new_id
from worker_harness import Desk, eventually

PATIENCE_S = 60.0
WAKE_S = 0.5
"""From the submission to the number that is asked for; half a tick."""
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


class Rig(ABC):
    """A pool whose replicas run the app of `tests/cluster/app.py`, and an operator that looks after it."""

    def __init__(self, desk: Desk, cause: str) -> None:
        self.desk = desk
        self.cause = cause
        """How a violent end is called, as a regular expression."""

    @abstractmethod
    async def apply(self, spec: dict[str, Any]) -> None:
        """A spec without its template, as somebody applies it."""

    @abstractmethod
    async def kill(self, replica: str) -> None:
        """SIGKILL to the worker of this replica."""

    @abstractmethod
    async def asked_for(self) -> int | None:
        """The number of replicas that is asked for; None before anything is."""

    @abstractmethod
    async def there(self) -> list[str]:
        """All replicas, those with them that leave."""

    @abstractmethod
    async def ready(self) -> int:
        """Replicas that work and stay."""

    @abstractmethod
    async def told(self) -> set[str]:
        """Reasons of the Events so far."""

    @abstractmethod
    async def ticks(self, number: int) -> None:
        """Let the operator look so many times; where that can be seen, it returns right after the last look."""

    async def running(self, task_id: str) -> str:
        """The replica that runs the task, once one does."""
        seen = await self.desk.until(task_id, lambda view: view.state is State.PROCESSING)
        return str(seen.worker).rpartition(":")[0]


async def until(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Until it is so."""

    async def good() -> bool:
        return await look() == wanted

    await eventually(good, PATIENCE_S)


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
        await until(rig.asked_for, 0)
        await rig.ticks(2)
        assert await rig.there() == [], "a pool with nothing to do starts nothing"
        began = monotonic()
        ids = await submit_at_once(rig.desk, 40, seconds=0.05)
        await until(rig.asked_for, 3)
        assert monotonic() - began < WAKE_S
        ended = [await rig.desk.ended(task_id) for task_id in ids]
        await until(rig.asked_for, 0)
        await until(rig.there, [])
        assert {fate(task) for task in ended} == {UNDISTURBED}
        told = await rig.told()
        assert {"WokeFromZero", "ScaledToZero"} <= told
        assert "ScaledUp" not in told, "one write"

    async def test_a_busy_one_is_never_stopped(self, rig: Rig) -> None:
        """Asked for none, the idle one goes at once; the busy one when its task has ended, and that undisturbed."""
        await rig.apply(spec(mode="External", replicas=2))
        await until(rig.ready, 2)
        task_id = await rig.desk.submit("nap", {"seconds": 6.0})
        busy = await rig.running(task_id)
        await rig.apply(spec(mode="External", replicas=0))
        await until(rig.asked_for, 1)
        await until(rig.there, [busy])
        assert (await rig.desk.look(task_id)).state is State.PROCESSING, "else this shows nothing"
        await until(rig.asked_for, 0)
        await until(rig.there, [])
        assert fate(await rig.desk.look(task_id)) == UNDISTURBED

    async def test_the_task_of_a_killed_one_goes_on_at_once_with_the_cause(self, rig: Rig) -> None:
        await rig.apply(spec())
        task_id = await rig.desk.submit("nap", {"seconds": 2.5})
        victim = await rig.running(task_id)
        await rig.kill(victim)
        began = monotonic()
        crashed = await rig.desk.until(task_id, lambda view: view.counters.crashes == 1)
        assert monotonic() - began < HAND_ON_S
        assert re.search(rig.cause, crashed.attempts[0].cause or "")
        assert fate(await rig.desk.ended(task_id)) == Fate(State.COMPLETED, 2, 1, 0)
        assert {"WorkerDied", "TasksHandedOn"} <= await rig.told()

    async def test_external_has_what_somebody_else_asks_for(self, rig: Rig) -> None:
        await rig.apply(spec(mode="External", replicas=2))
        await until(rig.ready, 2)
        await rig.apply(spec(mode="External", replicas=1))
        await until(rig.asked_for, 1)
        await rig.ticks(2)
        assert await rig.asked_for() == 1, "nothing waits, and it stays"
        await rig.apply(spec(mode="External", replicas=0))
        await until(rig.asked_for, 0)
        await until(rig.there, [])

    async def test_paused_does_nothing_until_it_is_resumed(self, rig: Rig) -> None:
        await rig.apply(spec(mode="Paused"))
        task_id = await rig.desk.submit("nap")
        await until(rig.asked_for, 0)
        await rig.ticks(3)
        assert (await rig.asked_for(), await rig.there()) == (0, [])
        await rig.apply(spec())
        assert (await rig.desk.ended(task_id)).state is State.COMPLETED
        assert {"Paused", "Resumed", "WokeFromZero"} <= await rig.told()
