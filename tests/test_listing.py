"""Lists of tasks: what is in them, in which order, how far one looks, and that pages neither lose nor repeat."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from headrace import listing, task
from headrace.broker.broker import Call, NewTask, Queue, Reclaim
from headrace.broker.keys import STREAMS
from headrace.listing import Position
from headrace.task import Envelope, State
from list_kit import ids, in_every_state, listed, page, pages, states
from model_desk import NOW, Desk
from model_task import new, task_id
from redis_server import RedisServer

A, B, C = (task_id(n) for n in (1, 2, 3))


@pytest.fixture
def desk(redis_server: RedisServer, redis_url: str) -> Iterator[Desk]:
    desk = Desk.at(redis_server.socket)
    yield desk
    desk.wire.close()


def tagged(id_: str, payload: object, *tags: str, expires_ms: int | None = None) -> NewTask:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    made = Envelope(
        1, 1, id_, type="noop", created_ms=NOW, payload=msgspec.Raw(raw), tags=tags, expires_ms=expires_ms
    )  # fmt: skip
    return NewTask(id_, task.encode_envelope(made), 1)


# -- what is in a list


def test_a_task_in_any_state_is_listed_once_with_its_state(desk: Desk) -> None:
    expected = in_every_state(desk)
    assert states(desk) == expected
    assert len(listed(desk)) == len(expected)


@pytest.mark.parametrize("state", State)
def test_a_filter_by_state_gives_the_tasks_of_that_state(desk: Desk, state: State) -> None:
    expected = {id_: name for id_, name in in_every_state(desk).items() if name == state}
    assert states(desk, f"state:{state}") == expected != {}


def test_a_listed_task_says_what_a_look_at_it_says(desk: Desk) -> None:
    in_every_state(desk)
    for seen in listed(desk):
        alone = desk.view(seen.id)
        assert alone is not None
        assert (seen.state, seen.counters, seen.worker, seen.ended_ms, seen.due_ms) == (
            alone.state, alone.counters, alone.worker, alone.ended_ms, alone.due_ms,
        )  # fmt: skip
        assert seen.envelope == alone.envelope
        assert seen.attempts == alone.attempts[-1:]


def test_the_order_of_a_list(desk: Desk) -> None:
    """Delayed (soonest first), parked, pending (newest first in a stream), processing, failed and ended (newest)."""
    first, second, third, fourth, fifth, sixth, seventh = (task_id(n) for n in range(1, 8))
    desk.submit(new(first), new(second))
    desk.report(desk.one().report("failed"))
    desk.now += 1
    desk.report(desk.one().report("failed"))
    desk.submit(new(third, delay_ms=9_000), new(fourth, delay_ms=5_000))
    desk.submit(new(fifth), new(sixth), new(seventh, 3))
    assert ids(desk) == [fourth, third, seventh, sixth, fifth, second, first]


def test_results_and_past_attempts_stay_out(desk: Desk) -> None:
    """A list of 200 tasks must not carry 200 results."""
    desk.submit(new(A))
    claim = desk.one()
    desk.report(claim.report("retrying", 0))
    desk.promote()
    again = desk.one()
    line = task.encode_attempt(task.Attempt(again.place, "completed", "w", 1, 2, result=msgspec.Raw(b'{"x":[1,"r"]}')))
    carried = task.extend(again.carried, task.Counters(2, 1), line)
    report = replace(again.report("completed"), record=task.record("completed", again.envelope, carried))
    assert desk.report(report) == []
    [seen] = listed(desk)
    assert (seen.state, seen.result, len(seen.attempts), seen.counters.attempts) == (State.COMPLETED, None, 1, 2)


@pytest.mark.parametrize("tags", [(), ("acme",), ("acme", "x/y:z@1.2-3_4")])
@pytest.mark.parametrize("expires_ms", [None, NOW + 5_000])
@pytest.mark.parametrize("tail", ["", ',"g":["forged"]', ',"x":7', "}", '","a":{', "\\"])
def test_a_large_payload_stays_out_and_nothing_else_does(
    desk: Desk, tags: tuple[str, ...], expires_ms: int | None, tail: str
) -> None:
    """What a client puts into its payload cannot be taken for what stands behind it."""
    payload = {"text": "x" * 3_000 + tail, "last": {"g": ["forged"], "x": 7}}
    desk.submit(tagged(A, payload, *tags, expires_ms=expires_ms))
    [seen] = listed(desk)
    [whole] = listed(desk, payloads=True)
    assert seen.envelope is not None and whole.envelope is not None
    assert bytes(seen.envelope.payload) == b"{}"
    assert json.loads(bytes(whole.envelope.payload)) == payload
    assert (seen.envelope.tags, seen.envelope.expires_ms) == (tags, expires_ms)
    assert (whole.envelope.tags, whole.envelope.expires_ms) == (tags, expires_ms)


def test_several_queues_come_by_name_and_a_filter_chooses(desk: Desk) -> None:
    other = Queue("mail", "default")
    desk.wire.run(other.init())
    desk.submit(new(A), new(B))
    mine = task.new_id("mail")
    envelope = task.encode_envelope(Envelope(1, 1, mine, type="noop"))
    desk.wire.run(other.submit([NewTask(mine, envelope, 1)]))
    both = [desk.queue, other]
    first = page(desk, "", None, *both, limit=1)
    assert [seen.id for seen in first.items] == [mine]
    rest = page(desk, "", first.next, *both)
    assert [(seen.id, seen.queue) for seen in rest.items] == [(B, "orders"), (A, "orders")]
    assert rest.next is None
    assert [seen.id for seen in page(desk, "queue:mail", None, *both).items] == [mine]


# -- the ended ones


def test_an_ended_task_is_listed_by_its_last_end_only(desk: Desk) -> None:
    """The journal is history: failed, replayed and completed is one task."""
    desk.submit(new(A))
    desk.report(desk.one().report("failed"))
    assert desk.replay(A) == "replayed"
    assert states(desk) == {A: "pending"}
    desk.report(desk.one().report("completed"))
    assert [(seen.id, seen.state) for seen in listed(desk)] == [(A, State.COMPLETED)]


def test_an_ended_task_whose_record_expired_is_not_listed(desk: Desk) -> None:
    desk.submit(new(A), new(B))
    desk.report(*(claim.report("completed") for claim in desk.claim(slots=2)))
    desk.expire(A)
    assert ids(desk) == [B]


def test_many_ends_of_one_call_are_paged(desk: Desk) -> None:
    """One entry of the journal has as many lines as a worker reported at once."""
    made = [task_id(n) for n in range(1, 31)]
    for start in (0, 10, 20):
        desk.submit(*(new(id_) for id_ in made[start : start + 10]))
        desk.report(*(claim.report("completed") for claim in desk.claim(slots=10)))
    assert ids(desk, "state:completed", limit=7) == made[::-1]


def test_a_journal_without_anything_wanted_is_left_within_the_budget(desk: Desk) -> None:
    for n in range(60):
        desk.submit(new(task_id(n + 1)))
        desk.report(desk.one().report("failed"))
    found = page(desk, "state:completed", budget=20)
    assert (found.items, found.truncated) == ([], True)
    assert ids(desk, "state:completed", budget=20) == []


def test_a_crashed_and_a_cancelled_task_are_found_by_what_happened(desk: Desk) -> None:
    desk.submit(new(A), new(B))
    desk.claim(slots=1)
    desk.wire.run(desk.queue.reclaim(Reclaim("w", "*", "n", "OOMKilled", max_crashes=1), now_ms=desk.now))
    desk.cancel(B)
    assert ids(desk, "error:oomkilled") == [A]
    assert ids(desk, "exception:Crashed") == [A]
    assert ids(desk, 'error:"the worker that ran it DIED" place:-') == [A]
    assert ids(desk, "state:cancelled") == [B]


# -- how far one looks


def test_a_page_is_full_or_the_list_ends_or_it_says_truncated(desk: Desk) -> None:
    desk.submit(*(new(task_id(n), type_="rare" if n == 3 else "noop") for n in range(1, 51)))
    found = page(desk, "type:rare", budget=20)
    assert (found.items, found.scanned, found.truncated) == ([], 20, True)
    assert ids(desk, "type:rare", budget=20) == [task_id(3)]
    whole = page(desk, "type:rare")
    assert (len(whole.items), whole.scanned, whole.truncated, whole.next) == (1, 50, False, None)
    some = page(desk, limit=10)
    assert (len(some.items), some.scanned, some.truncated) == (10, 10, False)


class Slow:
    """A clock by which each call to Redis takes as long as the test says; nothing else takes any time."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch, *call_s: float) -> None:
        self.now = 1_000.0
        durations, run = itertools.chain(call_s, itertools.repeat(call_s[-1])), desk.wire.run

        def slow(call: Call[Any]) -> Any:
            self.now += next(durations)
            return run(call)

        monkeypatch.setattr(desk.wire, "run", slow)

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("call_s", "limit_s", "scanned"),
    [
        ([0.01], 0.045, 40),  # a fifth call would end too late
        ([0.01], 0.05, 50),
        ([0.001, 0.02], 0.045, 30),  # one that took long is expected to come again
        ([5.0], 0.045, 10),  # the first one is always made: no page leads nowhere
    ],
)
def test_a_page_ends_before_its_time_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, call_s: list[float], limit_s: float, scanned: int
) -> None:
    """It says so, and its cursor goes on where it stopped: the pages put together are the list."""
    monkeypatch.setattr(listing, "CALL_BUDGET", 10)
    desk.submit(*(new(task_id(n)) for n in range(1, 96)))
    desk.submit(tagged(task_id(96), {}, "rare"))
    desk.submit(*(new(task_id(n)) for n in range(97, 101)))
    clock = Slow(desk, monkeypatch, *call_s)
    found = page(desk, "tag:none", seconds=limit_s, clock=clock)
    assert (found.items, found.scanned, found.truncated) == ([], scanned, True)
    assert [each.scanned for each in pages(desk, "tag:none", seconds=limit_s, clock=clock)][:-1] != []
    assert sum(each.scanned for each in pages(desk, "tag:none", seconds=limit_s, clock=clock)) == 100
    assert ids(desk, "tag:rare", seconds=limit_s, clock=clock) == [task_id(96)]


def test_time_is_over_between_two_queues_as_well(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand empty queues are a thousand calls."""
    queues = [Queue(f"q{n}") for n in range(10)]
    clock = Slow(desk, monkeypatch, 0.01)
    found = page(desk, "", None, *queues, seconds=0.035, clock=clock)
    assert (found.items, found.truncated, found.next and found.next.queue) == ([], True, "q3")


def test_large_tasks_use_up_the_budget_sooner(desk: Desk) -> None:
    """A page must not read a gigabyte because tasks are large."""
    desk.submit(*(tagged(task_id(n), {"x": "y" * 60_000}) for n in range(1, 41)))
    found = page(desk, "args.x:z", budget=100)
    assert found.scanned < 10
    assert found.truncated
    assert ids(desk, "args.x:z", budget=100) == []


def test_old_tasks_are_not_looked_at_where_the_order_shows_that_they_are_old(desk: Desk) -> None:
    desk.submit(*(new(task_id(n)) for n in range(1, 101)))
    for age in range(100):
        desk.now = NOW - age * 60_000
        desk.report(desk.one().report("failed"))
    found = page(desk, "state:failed until:2026-01-01 since:2025-01-01")
    assert found.scanned == 0


def test_what_a_filter_looks_for_in_redis_it_finds_however_it_is_written(desk: Desk) -> None:
    """The script leaves out what is sure not to match, and JSON has many ways to write a text."""
    written = [
        b'{"k":"caf\\u00e9 \\/ \\"q\\""}',
        '{"k" : "caf\u00e9 / \\"q\\""}'.encode(),
        b'{"\\u006b":"caf\\u00e9 / \\"q\\""}',
    ]
    desk.submit(*(tagged(task_id(n), text) for n, text in enumerate(written, 1)))
    assert len(ids(desk, 'args.k:"café / \\"q\\""')) == 3
    assert ids(desk, 'args.k:"cafe / \\"q\\""') == []


# -- pages


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_pages_put_together_are_the_list(desk: Desk, limit: int) -> None:
    in_every_state(desk)
    desk.submit(*(new(task_id(n), n % 4) for n in range(100, 120)))
    assert ids(desk, limit=limit) == ids(desk, limit=200)
    assert ids(desk, limit=200, budget=limit) == ids(desk, limit=200)


@pytest.mark.parametrize("state", ["scheduled", "retrying", "failed", "parked"])
def test_equal_times_and_vanished_neighbours_do_not_stop_a_list(desk: Desk, state: str) -> None:
    """A thousand tasks may be due in the same millisecond, and the one at the end of a page may be gone at the next."""
    made = [task_id(n) for n in range(1, 41)]
    if state == "scheduled":
        desk.submit(*(new(id_, due_ms=NOW + 60_000) for id_ in made))
    else:
        desk.submit(*(new(id_) for id_ in made))
        desk.report(*(claim.report(state, "noop" if state == "parked" else 60_000) for claim in desk.claim(slots=40)))
    seen: list[str] = []
    gone: set[str] = set()
    for found in pages(desk, f"state:{state}", limit=4):
        seen += [each.id for each in found.items]
        last = found.items[-1].id if found.items else None
        if last and len(gone) < 5:
            gone.add(last)
            if state == "failed":
                desk.replay(last)
            else:
                desk.cancel(last)
    assert sorted(seen) == sorted(made)


def test_new_tasks_do_not_lengthen_a_list_that_has_begun(desk: Desk) -> None:
    """Else a busy queue's list would have no end."""
    desk.submit(*(new(task_id(n), n % 4) for n in range(1, 21)))
    numbers = itertools.count(1_000)
    seen = []
    for found in pages(desk, limit=3):
        seen += [each.id for each in found.items]
        desk.submit(*(new(task_id(next(numbers)), digit) for digit in (3, 2, 1, 0)))
        assert len(seen) < 60
    assert set(seen) >= {task_id(n) for n in range(1, 21)}
    assert len(seen) == len(set(seen))


def test_what_comes_to_a_stream_after_the_list_began_is_left_out(desk: Desk) -> None:
    """Else a task that is retried meanwhile would come again, from the stream it went to."""
    desk.submit(*(new(task_id(n), 3) for n in range(1, 6)))
    first = page(desk, "", None, limit=2)
    assert first.next is not None and first.next.as_of_ms is not None
    seconds, micros = desk.wire.command("TIME")
    while int(seconds) * 1000 + int(micros) // 1000 <= first.next.as_of_ms:
        seconds, micros = desk.wire.command("TIME")
    [claim] = desk.claim()
    desk.report(claim.report("retrying", 0))
    desk.submit(new(C.replace("3", "f"), 0))
    desk.promote()
    rest = page(desk, "", first.next)
    assert [seen.id for seen in (*first.items, *rest.items)] == [task_id(n) for n in (5, 4, 3, 2)]
    assert len(ids(desk)) == 6


def test_a_task_that_is_claimed_and_comes_back_is_not_listed_twice_as_pending(desk: Desk) -> None:
    desk.submit(*(new(task_id(n), 3) for n in range(1, 6)))
    seen = []
    for count, found in enumerate(pages(desk, "state:pending", limit=2)):
        seen += [each.id for each in found.items]
        if count == 0:
            [claim] = desk.claim()
            desk.report(claim.report("retrying", 0))
            desk.promote()
    assert len(seen) == len(set(seen))


def test_a_position_that_is_none_is_refused(desk: Desk) -> None:
    for text in ["", "x", "é", "AAAA", "k6A", "\0"]:
        with pytest.raises(ValueError, match="no position"):
            Position.parse(text)


# -- what something foreign wrote

HOSTILE = [
    ("x", "1"),
    ("d", ""),
    ("d", "not json"),
    ("d", '{"v":"1","p":"high","i":7}'),
    ("d", '{"v":1,"p":9,"i":"a"}'),
    ("n", "1,1,1,1", "d", "{}"),
    ("d", "{}", "n", "many\n\n,"),
    ("d", '{"v":1,"p":1,"i":""}', "n", "9,9,9,9", "x", "y"),
    ("d", '{"v":1,"p":1,"i":"' + A + '","t":"forged"}'),
    ("d", b"\xff\xfe" * 2_000 + b',"a":{' * 3),
]


@pytest.mark.parametrize("fields", HOSTILE, ids=lambda fields: repr(fields)[:40])
def test_a_foreign_entry_in_a_stream_breaks_no_list(desk: Desk, fields: tuple[str | bytes, ...]) -> None:
    """It is no task yet: whoever claims it makes a dead letter of it. A forged id shows no task twice."""
    desk.submit(new(A, 2), new(B, 2))
    for digit in STREAMS:
        desk.raw("XADD", digit, "*", *fields)
    assert ids(desk) == [B, A]
    desk.claim(slots=2)
    desk.wire.command("XREADGROUP", "GROUP", "g", "w2", "STREAMS", *map(desk.key, "3210"), *">>>>")
    assert sorted(ids(desk)) == [A, B]
    assert sorted(ids(desk, "args.a:1 tag:x error:y")) == []


@pytest.mark.parametrize(
    "text", ["", "nothing", "scheduled 5\n12345", "scheduled 99999999\nx", "retrying 2\n{}9,9", "Failed 2\n{}"]
)
def test_a_record_that_cannot_be_read_breaks_no_list(desk: Desk, text: str) -> None:
    desk.raw("ZADD", "later", 1, A)
    desk.raw("ZADD", "parked", 0, f"odd\n{B}")
    desk.raw("ZADD", "dead", 1, C)
    desk.raw("HSET", "body", A, text, B, text)
    desk.wire.command("SET", desk.key("t") + C, text)
    assert {seen.id for seen in listed(desk, limit=1)} == {A, B, C}


def test_foreign_members_and_lines_break_no_list(desk: Desk) -> None:
    for key in ("later", "dead", "parked"):
        desk.raw("ZADD", key, 0, b"\xff\x00 \n", 0, "", 0, "a b\nc d")
    desk.raw("XADD", "journal", "*", "e", "no line at all\n\n x")
    desk.raw("XADD", "journal", "*", "other", f"{A}  completed")
    desk.submit(new(A))
    desk.report(desk.one().report("completed"))
    assert A in ids(desk, limit=1)
    assert ids(desk, "state:completed", limit=1) == [A]


def test_a_queue_that_does_not_exist_is_empty(desk: Desk) -> None:
    assert page(desk, "", None, Queue("nowhere")).items == []


def test_a_queue_that_lost_its_groups_is_listed_as_pending(desk: Desk) -> None:
    desk.submit(new(A), new(B))
    desk.claim()
    for digit in STREAMS:
        desk.destroy_group(digit)
    assert states(desk) == {A: "pending", B: "pending"}
