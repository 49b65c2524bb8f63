"""What something foreign wrote into Redis: it ends in the dead letter and makes no script fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from headrace import task
from headrace.broker.keys import STREAMS
from model_desk import Desk
from model_dump import complaints, look
from model_task import new, task_id
from redis_server import RedisServer

A, B = task_id(1), task_id(2)


@pytest.fixture
def desk(redis_server: RedisServer, redis_url: str) -> Iterator[Desk]:
    desk = Desk.at(redis_server.socket)
    yield desk
    desk.wire.close()


HOSTILE = [
    ("x", "1"),
    ("d", ""),
    ("d", "not json"),
    ("d", '{"v":"1","p":"high","i":7}'),
    ("d", '{"v":1,"p":9,"i":"a"}'),
    ("d", '{"v":1,"p":1,"i":"a\\"b"}'),
    ("n", "1,1,1,1", "d", "{}"),
    ("d", "{}", "n", "many"),
    ("d", '{"v":1,"p":1,"i":""}', "n", "9,9,9,9", "x", "y"),
]


@pytest.mark.parametrize("digit", list(STREAMS))
@pytest.mark.parametrize("fields", HOSTILE, ids=str)
@pytest.mark.parametrize("way", ["reclaim", "hand_back"])
def test_an_entry_that_cannot_be_read_ends_in_the_dead_letter(
    desk: Desk, digit: str, fields: tuple[str, ...], way: str
) -> None:
    desk.submit(new(A, 2))
    entry = desk.raw("XADD", digit, "*", *fields).decode()
    (claim,) = [claim for claim in desk.claim(slots=2) if claim.place[0] == digit and claim.place[1:] == entry]
    _ = desk.hand_back() if way == "hand_back" else desk.reclaim()
    dump = look(desk.wire, desk.queue)
    assert complaints(dump) == []
    ((id_, text),) = dump.records.items()
    assert task.queue_of(id_) == desk.queue.name
    assert task.cut(text)[0] == "failed"
    seen = desk.view(id_)
    assert seen is not None
    assert seen.last_place == claim.place
    assert seen.attempts[-1].error is not None
    assert seen.attempts[-1].error.reason == "malformed"
    assert desk.replay(id_) == "foreign"
    assert desk.depth().live == 1


@pytest.mark.parametrize("text", ["", "nothing", "scheduled 5\n12345", "scheduled 99999999\nx", "retrying 2\n{}9,9"])
def test_a_body_that_cannot_be_read_ends_in_the_dead_letter(desk: Desk, text: str) -> None:
    for id_, place in ((A, "z"), (B, "podd")):
        desk.raw("HSET", "body", id_, text)
        desk.raw("HSET", "loc", id_, place)
    desk.raw("ZADD", "later", 1, A)
    desk.raw("ZADD", "parked", 0, f"odd\n{B}")
    for id_ in (A, B):
        assert desk.view(id_) is not None
    assert desk.promote() == 1
    assert desk.release("odd") == 1
    assert complaints(look(desk.wire, desk.queue)) == []
    assert (desk.state(A), desk.state(B), desk.depth().live) == ("failed", "failed", 0)


@pytest.mark.parametrize("text", ["", "nothing", "scheduled 5\n12345"])
def test_a_body_that_cannot_be_read_can_be_cancelled(desk: Desk, text: str) -> None:
    desk.raw("HSET", "body", A, text)
    desk.raw("HSET", "loc", A, "z")
    desk.raw("ZADD", "later", 1, A)
    assert desk.cancel(A) == "cancelled"
    assert desk.state(A) == "cancelled"


def test_a_missing_body_leaves_nothing_behind(desk: Desk) -> None:
    desk.raw("HSET", "loc", A, "z")
    desk.raw("ZADD", "later", 1, A)
    desk.promote()
    assert complaints(look(desk.wire, desk.queue)) == []
    assert desk.depth().live == 0


@pytest.mark.parametrize("place", ["", "x", "1nonsense", "3", "tzz", "u1-1", "99-9"])
def test_a_place_that_is_none_makes_nothing_fail(desk: Desk, place: str) -> None:
    desk.submit(new(B))
    report = desk.one().report("completed")
    desk.raw("HSET", "loc", A, place)
    assert desk.view(A) is not None
    assert desk.replay(A) == "pending"
    assert desk.hand_back("w", place) == (0, True)
    assert desk.report(replace(report, place=b"1" + b"9-9", id=A)) == [b"stale"]
    assert desk.cancel(A) == "cancelled"
    assert desk.state(A) == "cancelled"


@pytest.mark.parametrize("text", ["", "junk", "failed x\n{}", "Failed 2\n{}", "nowhere 2\n{}"])
def test_a_record_that_is_none_makes_nothing_fail(desk: Desk, text: str) -> None:
    desk.wire.command("SET", desk.key("t") + A, text)
    assert desk.view(A) is not None
    assert desk.submit(new(A)) == ["finished"]
    assert desk.replay(A) in {"foreign", "nowhere"}
    assert desk.cancel(A) in {"unknown", "nowhere"}


def test_a_worker_with_a_hostile_name_forges_no_history(desk: Desk) -> None:
    name = 'x"}\n{"p":"1-1","o":"completed","w":"'
    desk.submit(new(A), new(B))
    desk.claim(name, 2)
    desk.hand_back(name, desk.reconcile(name)[0].place)
    desk.reclaim(name)
    for id_ in (A, B):
        seen = desk.view(id_)
        assert seen is not None
        assert [attempt.place for attempt in seen.attempts] == [seen.last_place]
        assert seen.last_place != "1-1"


def test_a_type_with_a_line_break_is_not_released_under_another_name(desk: Desk) -> None:
    desk.submit(new(A, type_="a"))
    desk.report(desk.one().report("parked", "a\nb"))
    assert desk.release("a") == 0
    assert desk.state(A) == "parked"
    assert desk.release("a\nb") == 1


def test_an_entry_deleted_under_its_owner_is_let_go(desk: Desk) -> None:
    desk.submit(new(A), new(B))
    for claim in desk.claim(slots=2):
        desk.raw("XDEL", "1", claim.place[1:])
    assert [claim.envelope for claim in desk.reconcile()] == [b"", b""]
    assert desk.hand_back("w", desk.reconcile()[0].place) == (1, True)
    assert desk.reclaim() == ("done", 1)
    assert desk.depth().streams["1"].pending == 0
    assert desk.cancel(A) == "cancelled"
