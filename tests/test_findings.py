"""Each violation that the first model check found (V1 to V21) as a shortest sequence, on real servers.

V9 to V12 and V20 concern what a worker does with answers; here stands what the scripts give it to do so, and the
modelled worker of model_worker.py follows the rules themselves. The runtime has tests of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.broker.broker import Report
from model_desk import Desk
from model_redis import RefusedError
from model_task import Claim, new, task_id
from redis_server import RedisServer

A, B, C = (task_id(n) for n in (1, 2, 3))


@pytest.fixture
def desk(redis_server: RedisServer, redis_url: str) -> Iterator[Desk]:
    desk = Desk.at(redis_server.socket)
    yield desk
    desk.wire.close()


def test_v1_a_delayed_task_is_known_to_a_second_submit(desk: Desk) -> None:
    assert desk.submit(new(A, delay_ms=1000)) == ["new"]
    assert desk.submit(new(A)) == ["known"]
    desk.now += 1000
    assert desk.promote() == 1
    assert desk.submit(new(A)) == ["known"]
    assert len(desk.claim(slots=5)) == 1


def test_v1_a_retrying_and_a_parked_task_are_known_too(desk: Desk) -> None:
    desk.submit(new(A), new(B))
    first, second = desk.claim(slots=2)
    desk.report(first.report("retrying", 5), second.report("parked", "noop"))
    assert desk.submit(new(A), new(B)) == ["known", "known"]
    assert desk.depth().live == 2


def test_v2_a_submit_that_arrives_after_the_end_adds_nothing(desk: Desk) -> None:
    desk.submit(new(A))
    desk.report(desk.one().report("completed"))
    assert desk.submit(new(A)) == ["finished"]
    assert desk.claim() == []
    assert desk.completed() == 1


def test_v3_the_same_id_twice_in_one_call_is_one_task(desk: Desk) -> None:
    assert desk.submit(new(A), new(A), new(B)) == ["new", "known", "new"]
    assert len(desk.claim(slots=5)) == 2


def test_v3_the_same_unique_key_twice_in_one_call_is_one_task(desk: Desk) -> None:
    assert desk.submit(new(A, unique="k"), new(B, unique="k")) == ["new", "unique"]
    assert len(desk.claim(slots=5)) == 1


def test_v4_counters_count_accepted_reports_only(desk: Desk) -> None:
    desk.submit(new(A))
    report = desk.one().report("completed")
    assert desk.report(report) == []
    assert desk.report(report) == [b"dup"]
    assert desk.report(report, report) == [b"dup", b"dup"]
    assert desk.completed() == 1


def test_v5_a_completion_forgets_that_its_cancellation_was_asked(desk: Desk) -> None:
    desk.submit(new(A))
    claim = desk.one()
    assert desk.cancel(A) == "asked"
    desk.report(claim.report("completed"))
    assert desk.state(A) == "completed"
    desk.expire(A)
    desk.submit(new(A))
    desk.one()
    assert desk.beat().asked == []


@pytest.mark.parametrize("way", ["retrying", "parked", "failed", "reclaim", "hand_back"])
def test_v6_who_was_asked_to_cancel_never_runs_again(desk: Desk, way: str) -> None:
    desk.submit(new(A))
    claim = desk.one()
    assert desk.cancel(A) == "asked"
    assert desk.beat().asked == [A]
    if way == "reclaim":
        desk.reclaim()
    elif way == "hand_back":
        desk.hand_back()
    else:
        assert desk.report(claim.report(way, 5 if way == "retrying" else "noop")) == []
    assert desk.state(A) == "cancelled"
    assert desk.is_idle()


def test_v7_a_worker_that_beats_is_not_reclaimed_by_a_stale_look(desk: Desk) -> None:
    desk.submit(new(A))
    desk.one()
    assert desk.reclaim(seen="") == ("marked", 0)  # reclaimer 1 saw no beat
    desk.beat(counter=1)
    assert desk.reclaim(seen="?n") == ("alive", 0)
    assert desk.reclaim(seen="1") == ("done", 1)  # it stood still
    assert len(desk.claim()) == 1  # it lives, and has not beaten since
    assert desk.reclaim(seen="") == ("marked", 0)  # reclaimer 2, with a look from before all that
    desk.beat(counter=2)
    assert desk.reclaim(seen="1") == ("alive", 0)
    assert len(desk.reconcile()) == 1


def test_v7_a_mark_is_left_once_and_then_has_to_stay(desk: Desk) -> None:
    desk.submit(new(A))
    desk.one()
    assert desk.reclaim(seen="", nonce="first") == ("marked", 0)
    assert desk.reclaim(seen="", nonce="second") == ("alive", 0)
    assert desk.workers()["w"].beat == "?first"
    assert desk.reclaim(seen="?first") == ("done", 1)


def test_v8_who_holds_a_task_and_never_beat_is_seen(desk: Desk) -> None:
    desk.submit(new(A))
    desk.one("never-beat")
    seen = desk.workers()["never-beat"]
    assert (seen.beat, seen.held) == ("", 1)


def test_v8_a_claim_that_arrives_after_the_clean_up_is_seen(desk: Desk) -> None:
    desk.submit(new(A))
    desk.beat()
    desk.hand_back(leave=True)
    assert desk.workers() == {}
    desk.one()
    assert desk.workers()["w"].held == 1


def test_v9_reconcile_lists_what_is_held_and_nothing_that_is_reported(desk: Desk) -> None:
    desk.submit(new(A), new(B))
    first, second = desk.claim(slots=2)
    desk.report(first.report("completed"))
    assert desk.reconcile() == [second]


def test_v9_reconcile_brings_payloads_only_of_what_the_worker_does_not_know(desk: Desk) -> None:
    """Else every beat would carry every payload that it holds."""
    desk.submit(new(A), new(B))
    first, second = desk.claim(slots=2)
    gone = b"11-1"
    held = desk.wire.run(desk.queue.reconcile("w", [first.place.encode(), gone]))
    assert held.known == [first.place.encode()]
    assert held.others == [(second.place.encode(), second.envelope, b"")]


def test_v10_reconcile_shows_sets_where_counts_would_agree(desk: Desk) -> None:
    desk.submit(new(A))
    running = desk.one()
    desk.reclaim()  # it takes the task from under its live owner …
    desk.submit(new(B, priority=3))
    desk.cycle("w", 1, order="3210")  # … who claims another, in a reply that gets lost
    (orphan,) = desk.reconcile()
    assert orphan.id == B
    assert orphan.place != running.place


def test_v11_a_resend_that_claims_nothing_leaves_the_lost_claims_to_reconcile(desk: Desk) -> None:
    desk.submit(*(new(task_id(n)) for n in range(1, 7)))
    lost = desk.claim(slots=3)
    assert desk.claim(slots=0) == []
    assert desk.reconcile() == lost


def test_v12_a_claim_never_takes_more_than_its_slots(desk: Desk) -> None:
    desk.submit(*(new(task_id(n), priority=n % 4) for n in range(1, 9)))
    desk.submit(new(task_id(20)))
    assert len(desk.claim("dying", 2)) == 2
    desk.reclaim("dying")
    assert len(desk.claim(slots=1)) == 1
    assert len(desk.claim(slots=3)) == 3


def test_v13_another_boot_of_the_same_worker_owns_nothing_of_the_first(desk: Desk) -> None:
    desk.submit(new(A))
    desk.one("w:boot1")
    assert desk.reconcile("w:boot2") == []
    desk.reclaim("w:boot1")
    assert desk.counters(A).crashes == 1


def test_v14_a_report_after_the_cancellation_at_the_same_place_is_stale(desk: Desk) -> None:
    desk.submit(new(A))
    claim = desk.one()
    desk.cancel(A)
    desk.reclaim()
    assert desk.state(A) == "cancelled"
    assert desk.report(claim.report("completed")) == [b"stale"]
    assert desk.state(A) == "cancelled"


def test_v14_also_after_the_last_crash_and_a_forced_cancellation(desk: Desk) -> None:
    desk.submit(new(A), new(B))
    first, second = desk.claim(slots=2)
    desk.cancel(B, force=True)
    desk.reclaim(max_crashes=1)
    assert (desk.state(A), desk.state(B)) == ("failed", "cancelled")
    assert desk.report(first.report("failed"), second.report("completed")) == [b"stale", b"stale"]


@pytest.mark.parametrize(("outcome", "argument"), [("retrying", 5), ("parked", "noop")])
def test_v15_a_resent_report_without_a_record_is_recognised(desk: Desk, outcome: str, argument: int | str) -> None:
    desk.submit(new(A))
    report = desk.one().report(outcome, argument)
    assert desk.report(report) == []
    assert desk.report(report) == [b"dup"]
    assert desk.promote(A) + desk.release("noop") == 1
    assert desk.report(report) == [b"dup"]
    again = desk.one()
    assert desk.report(report) == [b"dup"]
    desk.report(again.report("completed"))
    assert desk.report(report) == [b"dup"]
    desk.expire(A)
    assert desk.report(report) == [b"gone"]


def test_v16_a_dead_task_is_replayed_once_by_one_request(desk: Desk) -> None:
    desk.submit(new(A))
    claim = desk.one()
    desk.report(claim.report("failed"))
    assert desk.replay(A, claim.place) == "replayed"
    assert desk.replay(A, claim.place) == "pending"
    desk.report(desk.one().report("failed"))
    assert desk.replay(A, claim.place) == "other"
    assert desk.state(A) == "failed"
    assert desk.counters(A).attempts == 2


def test_v17_a_parked_task_is_not_claimed_and_hides_nobody(desk: Desk) -> None:
    desk.submit(new(A, type_="unknown", priority=3), new(B))
    claim = desk.one()
    assert desk.report(claim.report("parked", "unknown")) == []
    assert desk.one().id == B
    assert desk.claim() == []
    assert desk.release("noop") == 0
    assert desk.release("unknown") == 1
    assert desk.one().id == A


def test_v18_a_worker_runs_one_suspect_at_a_time(desk: Desk) -> None:
    desk.submit(*(new(task_id(n)) for n in range(1, 4)))
    desk.claim("dying", 3)
    assert desk.reclaim("dying") == ("done", 3)
    assert [c.place[0] for c in desk.claim("w1", 3)] == ["s"]
    assert desk.claim("w1", 3) == []
    assert [c.place[0] for c in desk.claim("w2", 3)] == ["s"]


def test_v18_one_pill_among_a_hundred_kills_no_neighbour(desk: Desk) -> None:
    """Two workers of 50 slots; whoever runs the pill dies with all it runs."""
    pill = task_id(77)
    desk.submit(*(new(task_id(n)) for n in range(1, 101)))
    serial, deaths, held = 0, 0, {"a": list[Claim](), "b": list[Claim]()}
    while desk.depth().live:
        for name in ("a", "b"):
            worker = f"{name}:{serial}"
            held[name] = desk.claim(worker, 50)
            if any(claim.id == pill for claim in held[name]):
                deaths, serial = deaths + 1, serial + 1
                desk.reclaim(worker)
            else:
                desk.report(*(claim.report("completed") for claim in held[name]), worker=worker)
        desk.now += 10_000
        desk.promote()
    assert deaths == 3
    assert desk.completed() == 99
    assert desk.state(pill) == "failed"


@pytest.mark.parametrize("digit", list("rs3210"))
def test_v19_a_missing_group_hides_no_report_and_is_told(desk: Desk, digit: str) -> None:
    desk.submit(new(B, priority=2 if digit == "3" else 3))
    claim = desk.one("reporter")
    put_into(desk, digit)
    desk.destroy_group(digit)
    reply = desk.cycle("reporter", 5, [claim.report("completed")])
    assert (reply.verdicts, reply.missing, reply.claims) == ({}, True, [])
    desk.init()
    assert [c.place[0] for c in desk.claim("other")] == [digit]


def put_into(desk: Desk, digit: str) -> None:
    """Task A comes to wait in this stream."""
    desk.submit(new(A, priority=0 if digit in "rs" else int(digit)))
    if digit == "r":
        desk.claim("another")
        desk.hand_back("another")
    elif digit == "s":
        desk.claim("another")
        desk.reclaim("another")


def test_v20_a_reader_that_waits_too_long_loses_at_most_the_marker(desk: Desk) -> None:
    """The wait is on a marker, not on a stream: whoever closes it leaves every task where it lies."""
    desk.submit(new(A))
    assert desk.raw("LPOP", "wake") == b"1"  # taken by a connection that is closed
    assert desk.marker() == 0
    desk.submit(new(B))
    assert desk.marker() == 1  # the next submission wakes again
    assert [c.id for c in desk.claim(slots=2)] == [A, B]


def test_v21_a_known_task_is_told_before_the_limit(desk: Desk) -> None:
    assert desk.submit(new(A), new(B, delay_ms=5), max_depth=2) == ["new", "new"]
    assert desk.submit(new(A), new(C), new(B), max_depth=2) == ["known", "full", "known"]
    assert desk.depth().live == 2


def test_v21_a_request_beside_a_refused_one_is_refused_too(desk: Desk) -> None:
    """Two equal requests share a call: neither may hear that the task is known, for it was not added."""
    desk.submit(new(A))
    assert desk.submit(new(B), new(B), max_depth=1) == ["full", "full"]
    assert desk.submit(new(B, unique="k"), new(C, unique="k"), max_depth=1) == ["full", "full"]
    assert desk.state(B) == "absent"


def test_at_full_memory_submit_and_replay_are_refused_and_the_rest_works(desk: Desk) -> None:
    desk.submit(new(A), new(B), new(C, delay_ms=1))
    first = desk.one()
    desk.report(first.report("failed"))
    desk.wire.command("CONFIG", "SET", "maxmemory", "1")
    try:
        for refused in (lambda: desk.submit(new(task_id(9))), lambda: desk.replay(A)):
            with pytest.raises(RefusedError, match="OOM"):
                refused()
        desk.now += 1
        assert desk.promote() == 1
        assert desk.beat().oldest.keys() == {"1"}
        desk.hand_back("w")
        claims = desk.claim(slots=5)
        assert desk.cancel(claims[0].id) == "asked"
        reports: list[Report] = [claims[0].report("retrying", 1), claims[1].report("completed")]
        assert desk.report(*reports) == []
        desk.pause()
        desk.pause(False)
        desk.init("x")
        assert desk.is_idle()
    finally:
        desk.wire.command("CONFIG", "SET", "maxmemory", "0")
