"""What nobody thought of hits one pool and no other, says so on that pool, and is over when its cause is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from headrace.broker import demand
from headrace.broker.broker import Queue
from headrace.broker.demand import Demand, WorkerBeat, parse_beat
from headrace_operator import steering
from headrace_operator.caps import Caps
from headrace_operator.decide import Decision, decide
from headrace_operator.fleet import Key
from headrace_operator.looker import Place
from headrace_operator.manifests import Pool
from headrace_operator.rest import Rest
from headrace_operator.sight import Seen, Sight
from headrace_operator.spec import PoolSpec
from operator_kit import KEY, Opener, Scene, resource, submit_to

OTHER = Key(KEY.namespace, "other")


async def with_another(pool: Scene) -> None:
    """A second pool at the same Redis, which has something to do."""
    raw = resource(queues=[{"name": "other"}])
    raw["metadata"] |= {"name": "other", "uid": "uid-2"}
    pool.loop.saw_pool(raw)
    await submit_to(pool.client, Queue("other"), 1)


async def test_a_beat_that_no_worker_of_ours_writes_stops_no_pool(scene: Opener) -> None:
    pool = scene()
    await pool.tick()
    await pool.client.call(pool.queue.beat("stranger:1", "1 0 - nan t=inf:1000 u=1e308:1000"))
    await pool.submit(60)
    await pool.tick()
    assert pool.replicas == 2
    assert pool.loop.numbers.errors == 0


def _cannot_decide(patch: pytest.MonkeyPatch) -> None:
    def broken(spec: PoolSpec, *given: Any) -> Decision:
        if spec.queues[0].name == "default":
            raise OverflowError("cannot convert float infinity to integer")
        return decide(spec, *given)

    patch.setattr(steering, "decide", broken)


def _cannot_see(patch: pytest.MonkeyPatch) -> None:
    def broken(self: Sight, pool: Pool, *given: Any) -> Seen:
        if pool.name == KEY.name:
            raise OverflowError("cannot convert float infinity to integer")
        return see(self, pool, *given)

    see = Sight.see
    patch.setattr(Sight, "see", broken)


@pytest.mark.parametrize("caps", [Caps(), Caps(cluster=10)], ids=["no caps", "caps"])
@pytest.mark.parametrize("fault", [_cannot_decide, _cannot_see])
async def test_a_fault_of_one_pool_is_its_own_and_it_says_so(
    scene: Opener, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None], caps: Caps
) -> None:
    pool = scene()
    pool.restart(caps)
    await with_another(pool)
    with monkeypatch.context() as patch:
        fault(patch)
        await pool.tick()
    assert pool.cluster.fleet(OTHER).asked_for == 1
    ready = pool.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InternalError")
    assert "OverflowError: cannot convert float infinity" in ready["message"]
    assert "tried again" in ready["message"] and "operator's log" in ready["message"]
    assert pool.loop.numbers.errors > 0
    await pool.ticks(2)
    assert pool.condition("Ready")["status"] == "True"


async def test_a_pool_that_cannot_tell_whether_it_rests_is_carried_on(
    scene: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bool:
        raise KeyError("demand")

    pool = scene()
    await pool.ticks(8)
    assert pool.loop.resting == 1
    await with_another(pool)
    await pool.submit()
    monkeypatch.setattr(Rest, "lasts", broken)
    await pool.tick()
    assert (pool.replicas, pool.cluster.fleet(OTHER).asked_for) == (1, 1)


async def test_what_nobody_can_read_of_a_queue_is_an_error_of_that_queue(
    scene: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(text: str) -> WorkerBeat:
        if text == "poison":
            raise IndexError("list index out of range")
        return parse_beat(text)

    pool = scene()
    await pool.client.call(pool.queue.init())
    await pool.client.call(pool.queue.beat("stranger:1", "poison"))
    await with_another(pool)
    monkeypatch.setattr(demand, "parse_beat", parse)
    await pool.tick()
    assert pool.cluster.fleet(OTHER).asked_for == 1
    reachable = pool.condition("QueueReachable")
    assert reachable["status"] == "False"
    assert "default: its data in Redis cannot be read (IndexError: list index out of range)" in reachable["message"]
    assert pool.loop.redis_up == {"default": True}


# the resource changes while a step is out


def _during_the_look(pool: Scene, change: Callable[[], None]) -> None:
    async def look(places: Iterable[Place]) -> dict[Place, Demand | Exception]:
        found = await whole(places)
        change()
        return found

    whole = pool.looker.look
    pool.looker.look = look  # type: ignore[method-assign]


def _during_the_apply(pool: Scene, change: Callable[[], None]) -> None:
    async def apply(made: Pool) -> None:
        await whole(made)
        change()

    whole = pool.cluster.apply
    pool.cluster.apply = apply  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize("caps", [Caps(), Caps(cluster=10)], ids=["no caps", "caps"])
@pytest.mark.parametrize("meanwhile", [_during_the_look, _during_the_apply])
async def test_a_queue_that_was_not_looked_at_yet_is_no_redis_that_is_away(
    scene: Opener, meanwhile: Callable[[Scene, Callable[[], None]], None], caps: Caps
) -> None:
    def change() -> None:
        if pool.generation == 1:
            pool.change(queues=[{"name": "default"}, {"name": "more"}])

    pool = scene()
    pool.restart(caps)
    meanwhile(pool, change)
    await pool.tick()
    assert pool.generation == 2, "else this shows nothing"
    assert pool.told == []
    await pool.tick()
    assert pool.told == []
    assert pool.condition("QueueReachable")["status"] == "True"
    assert [row["name"] for row in pool.cluster.statuses["emails"]["queues"]] == ["default", "more"]


async def test_a_look_that_is_ended_before_it_began_leaves_the_next_one_free(scene: Opener) -> None:
    pool = scene()
    tick = asyncio.create_task(pool.loop.tick())
    await asyncio.sleep(0)  # the look is made, and nothing of it was carried out
    await pool.loop.aclose()
    await tick
    assert pool.cluster.writes == [], "else this shows nothing"
    await pool.tick()
    assert pool.cluster.writes == [("apply", KEY)]
