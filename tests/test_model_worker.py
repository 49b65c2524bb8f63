"""The worker's own rules, at the sequences that once broke them (V9 to V12, V20): a world, stepped by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.broker.broker import Reclaim
from headrace.broker.keys import STREAMS
from model_end import arrive_all
from model_net import Conn
from model_redis import Wire
from model_task import new, task_id
from model_worker import SLOTS, Worker
from model_world import BrokenError, World
from redis_server import RedisServer


@pytest.fixture
def world(redis_server: RedisServer, redis_url: str) -> Iterator[World]:
    with Wire(redis_server.socket) as wire:
        world = World(wire)
        arrive_all(world)
        yield world


def arrive(world: World, conn: Conn) -> None:
    """All that was sent on it is carried out and answered."""
    while conn.requests or conn.replies:
        if conn.requests:
            world.execute(conn)
        else:
            world.deliver(conn)


def carry_out(world: World, conn: Conn, requests: int = 1) -> None:
    """So many are carried out; the answers are on their way."""
    for _ in range(requests):
        world.execute(conn)


def submit(world: World, *numbers: int) -> None:
    world.at_once(world.calls.submit([new(task_id(n)) for n in numbers], 0, touch=False))


def claim(worker: Worker, slots: int) -> None:
    worker.cycle(slots, 0, STREAMS, touch=False)


def report(worker: Worker) -> None:
    worker.cycle(0, SLOTS, STREAMS, touch=False)


def test_v9_a_reconcile_between_two_cycles_adopts_nothing_twice(world: World) -> None:
    """It is answered while a claim is on its way before it, and another after it."""
    worker = world.workers[0]
    submit(world, 1, 2)
    claim(worker, 1)
    worker.reconcile()
    claim(worker, 1)
    carry_out(world, worker.claims, 3)
    arrive(world, worker.claims)
    assert len(worker.running) == 2
    assert not world.counts["adopted"]


def test_v9_a_task_whose_report_is_on_its_way_is_known(world: World) -> None:
    worker = world.workers[0]
    submit(world, 1)
    claim(worker, 1)
    arrive(world, worker.claims)
    (place,) = worker.running
    worker.finish(place, "completed", "")
    worker.reconcile()
    report(worker)
    arrive(world, worker.claims)
    assert worker.running == {}
    assert world.counts["V9"]


def test_v9_what_is_not_remembered_would_be_started_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the check: a worker that forgets what it is about to report breaks the promise."""
    worker = world.workers[0]
    submit(world, 1)
    claim(worker, 1)
    arrive(world, worker.claims)
    (place,) = worker.running
    monkeypatch.setattr(Worker, "known", lambda self: set(self.running))
    worker.finish(place, "completed", "")
    worker.reconcile()
    with pytest.raises(BrokenError, match="started twice"):
        arrive(world, worker.claims)


def test_v10_equal_counts_and_other_sets(world: World) -> None:
    """One task was taken from it, another was given to it in a reply that got lost."""
    worker = world.workers[0]
    submit(world, 1)
    claim(worker, 1)
    arrive(world, worker.claims)
    world.at_once(world.calls.reclaim(Reclaim(worker.name, "1", "n")))
    submit(world, 2)
    worker.cycle(1, 0, "3210rs", touch=False)
    carry_out(world, worker.claims)
    world.cut(worker.claims)
    worker.reconcile()
    arrive(world, worker.claims)
    assert [c.id for c in worker.running.values()] == [task_id(2)]
    assert world.counts["V10"] == 1


def test_v11_after_a_lost_reply_nothing_is_claimed_before_reconcile(world: World) -> None:
    worker = world.workers[0]
    submit(world, *range(1, 7))
    claim(worker, SLOTS)
    carry_out(world, worker.claims)
    world.cut(worker.claims)
    assert worker.may_claim == 0
    worker.reconcile()
    assert worker.may_claim == 0
    arrive(world, worker.claims)
    assert len(worker.running) == SLOTS


def test_v11_an_unanswered_report_goes_again_and_claims_nothing(world: World) -> None:
    worker = world.workers[0]
    submit(world, *range(1, 7))
    claim(worker, 1)
    arrive(world, worker.claims)
    worker.finish(next(iter(worker.running)), "completed", "")
    worker.cycle(2, 1, STREAMS, touch=False)
    carry_out(world, worker.claims)
    world.cut(worker.claims)
    worker.cycle(2, 1, STREAMS, touch=False)
    arrive(world, worker.claims)
    assert world.counts["V11"] == 1
    assert world.counts["V4"] == 1  # the report had arrived: dup
    assert worker.running == {}
    worker.reconcile()
    arrive(world, worker.claims)
    assert len(worker.running) == 2


def test_v12_what_does_not_fit_is_handed_back(world: World) -> None:
    """A claim of a closed connection arrives late, when the slots are full again."""
    worker = world.workers[0]
    claim(worker, SLOTS)
    old = worker.claims
    world.cut(old)
    worker.reconcile()
    arrive(world, worker.claims)
    submit(world, *range(1, 6))
    claim(worker, SLOTS)
    arrive(world, worker.claims)
    world.execute(old)
    worker.reconcile()
    arrive(world, worker.claims)
    assert len(worker.running) == SLOTS
    assert world.counts["V12"] == 1
    assert {entry.task and entry.task.id for entry in world.model.waiting("r")} == {task_id(4), task_id(5)}


def test_v20_a_wait_that_is_given_up_costs_no_task(world: World) -> None:
    """The marker may be lost with it; the look that every worker takes in time finds the work."""
    worker, other = world.workers
    claim(worker, 1)
    arrive(world, worker.claims)
    worker.arm()
    assert worker.wait is not None
    wait = worker.wait
    world.cut(wait)
    submit(world, 1)
    world.execute(wait)  # Redis serves the closed connection
    assert not world.model.marker
    claim(other, 1)
    arrive(world, other.claims)
    assert len(other.running) == 1


def test_who_takes_the_marker_owes_a_cycle(world: World) -> None:
    worker = world.workers[0]
    claim(worker, SLOTS)
    arrive(world, worker.claims)
    worker.arm()
    submit(world, 1)
    assert worker.wait is not None
    arrive(world, worker.wait)
    worker.stop()
    assert worker.has_work  # although it will claim nothing
    report(worker)
    arrive(world, worker.claims)
    assert world.model.marker  # it gave the marker back
