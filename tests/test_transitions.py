"""What the table of test_scripts.py has no room for: looks, bounds, and limits of a call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace import task
from headrace.broker.broker import Queue
from headrace.broker.scripts import all_scripts, written_out
from model_desk import Desk
from model_dump import complaints, look
from model_task import new, task_id
from redis_server import RedisServer

A, B, C = (task_id(n) for n in (1, 2, 3))


@pytest.fixture
def desk(redis_server: RedisServer, redis_url: str) -> Iterator[Desk]:
    desk = Desk.at(redis_server.socket)
    yield desk
    desk.wire.close()


def test_get_shows_a_task_wherever_it_lies(desk: Desk) -> None:
    desk.submit(new(A), new(B, delay_ms=5))
    assert (desk.state(A), desk.state(B), desk.state(C)) == ("pending", "scheduled", "absent")
    claim = desk.one()
    seen = desk.view(A)
    assert seen is not None
    assert (seen.state, seen.worker, seen.envelope) == ("processing", "w", task.decode_envelope(claim.envelope))
    desk.report(claim.report("retrying", 8, message="no luck"))
    seen = desk.view(A)
    assert seen is not None
    assert (seen.state, seen.due_ms, seen.last_place) == ("retrying", desk.now + 8, claim.place)
    desk.promote(A)
    again = desk.one()
    assert again.carried
    desk.report(again.report("parked", "noop"))
    assert desk.state(A) == "parked"
    desk.release("noop")
    desk.report(desk.one().report("completed"))
    seen = desk.view(A)
    assert seen is not None
    assert [attempt.outcome for attempt in seen.attempts] == ["retrying", "parked", "completed"]


def test_depth_counts_what_lies_where(desk: Desk) -> None:
    desk.submit(*(new(task_id(n), priority=n % 2) for n in range(1, 6)), new(task_id(9), delay_ms=3))
    desk.submit(new(task_id(7), type_="odd", priority=3))
    desk.report(desk.one().report("parked", "odd"))
    desk.claim(slots=2)
    depth = desk.depth()
    assert (depth.live, depth.delayed, depth.parked, depth.waiting, depth.processing) == (7, 1, 1, 3, 2)
    assert depth.streams["1"].waiting == 1
    assert depth.next_due_ms == desk.now + 3
    desk.destroy_group("1")
    with pytest.raises(ValueError, match="no consumer group"):
        desk.depth()


def test_depth_below_zero_is_an_error(desk: Desk) -> None:
    """Somebody deleted an entry that is claimed: a number would be a lie."""
    desk.submit(new(A))
    claim = desk.one()
    desk.raw("XDEL", "1", claim.place[1:])
    with pytest.raises(ValueError, match="more claimed than there is"):
        desk.depth()


def test_the_history_keeps_eight_attempts(desk: Desk) -> None:
    desk.submit(new(A))
    for _ in range(10):
        desk.report(desk.one().report("retrying", 0))
        desk.promote()
    seen = desk.view(A)
    assert seen is not None
    assert (len(seen.attempts), seen.counters.attempts) == (8, 10)


def test_enlist_is_bounded(desk: Desk) -> None:
    assert desk.wire.run(desk.queue.enlist(max_queues=1))
    assert desk.wire.run(desk.queue.enlist(max_queues=1))
    desk.wire.command("SADD", "hr:{default}:queues", "x")
    desk.wire.command("SREM", "hr:{default}:queues", desk.queue.name)
    assert not desk.wire.run(desk.queue.enlist(max_queues=1))


def test_the_epoch_only_grows(desk: Desk) -> None:
    first = desk.init("server-1")[0]
    assert desk.init("server-1")[0] == first
    assert desk.init("server-2")[0] == first + 1
    desk.now += 10_000_000
    assert desk.init("server-1")[0] == desk.now // 1000
    assert desk.init()[0] == desk.now // 1000


@pytest.mark.parametrize("retention_s", [0, 0.2, 1.5])
def test_a_retention_below_a_second_or_broken_loses_nothing(desk: Desk, retention_s: float) -> None:
    desk.submit(new(A), new(B))
    first, second = desk.claim(slots=2)
    call = desk.queue.cycle("w", 0, [first.report("completed")], retention_s=retention_s)
    assert desk.wire.run(call).verdicts == {}
    assert desk.wire.run(desk.queue.cancel(second.id, force=True, retention_s=retention_s)) == "cancelled"
    dump = look(desk.wire, desk.queue)
    assert complaints(dump) == []
    assert all(1 <= ttl <= 2 for ttl in dump.ttl.values())


def test_as_many_reports_as_a_call_takes_are_accepted(desk: Desk) -> None:
    ids = [task_id(n) for n in range(1, 1001)]
    desk.submit(*(new(id_) for id_ in ids))
    reports = [claim.report("completed") for claim in desk.claim(slots=1000)]
    assert desk.report(*reports) == []
    assert desk.completed() == 1000
    with pytest.raises(ValueError, match="1,000 reports"):
        desk.queue.cycle("w", 0, [*reports, reports[0]])


def test_reports_of_one_call_are_judged_one_by_one(desk: Desk) -> None:
    """They are acknowledged together; if one was not pending, the others are accepted all the same, and once."""
    desk.submit(new(A))
    stale = desk.one().report("completed")
    desk.reclaim()
    desk.submit(new(B), new(C))
    b, c = (claim.report("completed") for claim in desk.claim("v", slots=3)[-2:])
    assert desk.report(b, stale, c, b, worker="v") == [b"dup", b"stale", b"dup"]
    assert (desk.completed(), desk.state(B), desk.state(C)) == (2, "completed", "completed")
    assert complaints(look(desk.wire, desk.queue)) == []


def test_what_waits_again_is_not_ended_by_a_report_of_before(desk: Desk) -> None:
    """The group was lost and made again: the entry is there, and nobody holds it."""
    desk.submit(new(A))
    before = desk.one().report("completed")
    desk.destroy_group("1")
    desk.init()
    assert desk.report(before) != []
    assert desk.state(A) == "pending"


def test_a_submission_beyond_what_a_call_takes_is_refused_before_it_is_sent(desk: Desk) -> None:
    batch = [new(task_id(n)) for n in range(1, 1002)]
    assert set(desk.submit(*batch[:1000])) == {"new"}
    with pytest.raises(ValueError, match="1,000 tasks"):
        desk.queue.submit(batch)


def test_a_script_cannot_name_a_key_that_it_is_not_given() -> None:
    """A missing one would show only where that line runs."""
    assert written_out("call('GET', K.t .. id) KEYS[1]", ("loc", "t")) == "call('GET', P..'t:' .. id) KEYS[1]"
    with pytest.raises(ValueError, match="not in tuple"):
        written_out("call('GET', K.t .. id)", ("loc",))
    assert not [name for name, made in all_scripts().items() if "K." in made.source]


def test_reads_answer_where_writes_are_refused(desk: Desk) -> None:
    """Too few replicas, or a full disk: a task can still be asked about."""
    desk.submit(new(A))
    desk.wire.command("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        assert desk.state(A) == "pending"
        assert desk.depth().live == 1
        assert desk.workers() == {}
        assert desk.reconcile() == []
    finally:
        desk.wire.command("CONFIG", "SET", "min-replicas-to-write", "0")


def test_no_call_touches_another_queue(desk: Desk) -> None:
    """The same ids lie in both; whatever one is told, the other stays as it is."""
    other = Desk(desk.wire, Queue("orders-archive"))
    other.init()
    for each in (desk, other):
        each.submit(new(A, unique="k"), new(B), new(C, delay_ms=5))
        each.beat()
        each.claim()
    before = look(desk.wire, other.queue)
    (claim,) = desk.reconcile()
    desk.cancel(A)
    desk.report(claim.report("failed"))
    desk.replay(A)
    desk.report(desk.one().report("parked", "noop"))
    desk.release("noop")
    desk.claim(slots=5)
    desk.hand_back()
    desk.claim(slots=5)
    desk.reclaim()
    desk.promote(C)
    desk.pause()
    desk.wire.run(desk.queue.purge(keep=0))
    after = look(desk.wire, other.queue)
    before.others, after.others = [], []
    assert after == before
