"""Each script: one state, one call, and the whole key space after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from model_desk import NOW, Desk
from model_picture import picture
from model_task import Claim, new, task_id
from redis_server import RedisServer

A, B, C = (task_id(n) for n in (1, 2, 3))


@pytest.fixture
def desk(redis_server: RedisServer, redis_url: str) -> Iterator[Desk]:
    desk = Desk.at(redis_server.socket)
    yield desk
    desk.wire.close()


# -- the table


@dataclass
class Stage:
    """A desk, and what its worker `w` holds."""

    desk: Desk
    claims: list[Claim] = field(default_factory=list)


Seed = Callable[[Stage], object]
Act = Callable[[Stage], Any]


@dataclass(frozen=True)
class Row:
    """`seed`, then `act` (markers and journal start empty), then `answer` and `after`."""

    name: str
    seed: Seed
    act: Act
    answer: Any
    after: dict[str, str]

    def __str__(self) -> str:
        return self.name


def nothing(stage: Stage) -> None:
    """An empty queue."""


def waiting(stage: Stage) -> None:
    stage.desk.submit(new(A))


def waiting_unique(stage: Stage) -> None:
    stage.desk.submit(new(A, unique="k"))


def running(stage: Stage) -> None:
    waiting(stage)
    stage.claims = stage.desk.claim()


def running_unique(stage: Stage) -> None:
    waiting_unique(stage)
    stage.claims = stage.desk.claim()


def delayed(stage: Stage) -> None:
    stage.desk.submit(new(A, priority=3, delay_ms=100))


def asked(stage: Stage) -> None:
    running(stage)
    stage.desk.cancel(A)


def parked(stage: Stage) -> None:
    running(stage)
    stage.desk.report(stage.claims[0].report("parked", "noop"))


def dead(stage: Stage) -> None:
    running(stage)
    stage.desk.report(stage.claims[0].report("failed"))


def dead_unique(stage: Stage) -> None:
    running_unique(stage)
    stage.desk.report(stage.claims[0].report("failed"))


def completed(stage: Stage) -> None:
    running(stage)
    stage.desk.report(stage.claims[0].report("completed"))


def crashed(stage: Stage) -> None:
    running(stage)
    stage.desk.reclaim()


def crashed_twice(stage: Stage) -> None:
    crashed(stage)
    stage.claims = stage.desk.claim()
    stage.desk.reclaim(backoff_ms=0)


def paused(stage: Stage) -> None:
    waiting(stage)
    stage.desk.pause()


def own_depth(limit: int) -> Seed:
    def set_it(stage: Stage) -> None:
        stage.desk.wire.pipeline(("HSET", stage.desk.queue.keys["ctl"], "max_depth", limit))

    return set_it


def then(*steps: Seed) -> Seed:
    """One after the other."""

    def all_of_them(stage: Stage) -> None:
        for step in steps:
            step(stage)

    return all_of_them


def ends(outcome: str, argument: int | str = "") -> Act:
    return lambda s: s.desk.report(*(claim.report(outcome, argument) for claim in s.claims))


def submits(*batch: Any, **options: Any) -> Act:
    return lambda s: s.desk.submit(*batch, **options)


def forgets(*ended: tuple[str, str]) -> Act:
    return lambda s: s.desk.wire.run(s.desk.queue.forget(ended))


def claimed(worker: str, slots: int) -> Act:
    return lambda s: [c.place[0] for c in s.desk.claim(worker, slots)]


SUBMIT = [
    Row("adds", nothing, submits(new(A, 3)), ["new"], {"3": "a", "wake": "1"}),
    Row("adds each to its stream", nothing, submits(new(A, 2), new(B, 0), new(C, 2)), ["new"] * 3,
        {"2": "a c", "0": "b", "wake": "1"}),
    Row("adds a delayed one", nothing, submits(new(A, delay_ms=7)), ["new"],
        {"later": "a=scheduled@+7", "wake": "1"}),
    Row("adds one with a date", nothing, submits(new(A, due_ms=NOW + 9, delay_ms=5)), ["new"],
        {"later": "a=scheduled@+9", "wake": "1"}),
    Row("wakes nobody for a later one", delayed, submits(new(B, delay_ms=200)), ["new"],
        {"later": "a=scheduled@+100 b=scheduled@+200"}),
    Row("wakes for an earlier one", delayed, submits(new(B, delay_ms=50)), ["new"],
        {"later": "b=scheduled@+50 a=scheduled@+100", "wake": "1"}),
    Row("knows what waits", waiting, submits(new(A)), ["known"], {"1": "a"}),
    Row("knows what ended", completed, submits(new(A)), ["finished"],
        {"t": "a=completed[1,0,0,0]~", "stats": "completed:noop=1"}),
    Row("knows a dead letter", dead, submits(new(A)), ["finished"],
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "stats": "failed:noop=1"}),
    Row("touches", waiting, submits(new(A), touch=True), ["known"], {"1": "a", "ctl": "touch"}),
    Row("holds a unique key", nothing, submits(new(A, unique="k")), ["new"], {"1": "a", "u": "k=a", "wake": "1"}),
    Row("refuses a held unique key", waiting_unique, submits(new(B, unique="k"), new(C)), ["unique", "new"],
        {"1": "a c", "u": "k=a", "wake": "1"}),
    Row("refuses all new ones when full", waiting, submits(new(B), new(A), new(C), max_depth=2),
        ["full", "known", "full"], {"1": "a"}),
    Row("fills up to the limit", waiting, submits(new(B), max_depth=2), ["new"], {"1": "a b", "wake": "1"}),
    Row("asks for the limit of the queue first", then(waiting, own_depth(1)), submits(new(B), max_depth=9), ["full"],
        {"1": "a", "ctl": "max_depth"}),
    Row("lets in more than the settings say", then(waiting, own_depth(9)), submits(new(B), new(C), max_depth=1),
        ["new", "new"], {"1": "a b c", "ctl": "max_depth", "wake": "1"}),
    Row("pushes no marker while paused", paused, submits(new(B)), ["new"], {"1": "a b", "ctl": "paused"}),
]  # fmt: skip

CYCLE = [
    Row("claims", waiting, claimed("w", 1), ["1"], {"1": "a<w"}),
    Row("claims the highest first", submits(new(A, 0), new(B, 3), new(C, 1)), claimed("w", 2), ["3", "1"],
        {"0": "a", "3": "b<w", "1": "c<w", "wake": "1"}),
    Row("passes the marker on when full", submits(new(A), new(B)), claimed("w", 0), [], {"1": "a b", "wake": "1"}),
    Row("claims nothing while paused", paused, claimed("w", 1), [], {"1": "a", "ctl": "paused"}),
    Row("claims a suspect", crashed, claimed("v", 5), ["s"], {"s": "a[1,0,1,0]<v"}),
    Row("completes", running, ends("completed"), [],
        {"t": "a=completed[1,0,0,0]~", "stats": "completed:noop=1", "journal": "a:1:completed"}),
    Row("retries", running, ends("retrying", 40), [],
        {"later": "a=retrying[1,1,0,0]@+40", "stats": "retrying:noop=1"}),
    Row("retries at once", running, ends("retrying"), [],
        {"later": "a=retrying[1,1,0,0]@+0", "stats": "retrying:noop=1"}),
    Row("parks", running, ends("parked", "noop"), [],
        {"parked": "noop:a=parked[1,0,0,1]", "stats": "parked:noop=1"}),
    Row("buries", running, ends("failed"), [],
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "stats": "failed:noop=1", "journal": "a:1:failed"}),
    Row("cancels", running, ends("cancelled"), [],
        {"t": "a=cancelled[1,0,0,0]~", "stats": "cancelled:noop=1", "journal": "a:1:cancelled"}),
    Row("completes in spite of a request to cancel", asked, ends("completed"), [],
        {"t": "a=completed[1,0,0,0]~", "stats": "completed:noop=1", "journal": "a:1:completed"}),
    Row("cancels instead of retrying", asked, ends("retrying", 4), [],
        {"t": "a=cancelled[1,1,0,0]~", "stats": "cancelled:noop=1", "journal": "a:1:cancelled"}),
    Row("releases the unique key at the end", running_unique, ends("failed"), [],
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "stats": "failed:noop=1", "journal": "a:1:failed"}),
    Row("keeps the unique key on retry", running_unique, ends("retrying", 4), [],
        {"later": "a=retrying[1,1,0,0]@+4", "u": "k=a", "stats": "retrying:noop=1"}),
]  # fmt: skip

PASSES = [
    Row("promote what is due", delayed, lambda s: after(s, 100).promote(), 1, {"3": "a", "wake": "1"}),
    Row("promote nothing before", delayed, lambda s: after(s, 99).promote(), 0, {"later": "a=scheduled@+1"}),
    Row("promote by name", delayed, lambda s: s.desk.promote(B, A, A), 1, {"3": "a", "wake": "1"}),
    Row("promote a suspect", crashed_twice, lambda s: s.desk.promote(), 1, {"s": "a[2,0,2,0]", "wake": "1"}),
    Row("release", parked, lambda s: s.desk.release("other", "noop"), 1,
        {"1": "a[1,0,0,1]", "wake": "1", "stats": "parked:noop=1"}),
    Row("release nothing", parked, lambda s: s.desk.release("noo", "noop2"), 0,
        {"parked": "noop:a=parked[1,0,0,1]", "stats": "parked:noop=1"}),
    Row("reclaim", running, lambda s: s.desk.reclaim(), ("done", 1), {"s": "a[1,0,1,0]", "wake": "1"}),
    Row("reclaim nobody", waiting, lambda s: s.desk.reclaim(), ("done", 0), {"1": "a"}),
    Row("reclaim what was asked to cancel", asked, lambda s: s.desk.reclaim(), ("done", 1),
        {"t": "a=cancelled[1,0,1,0]~", "stats": "cancelled=1", "journal": "a:1:cancelled", "wake": "1"}),
    Row("reclaim at the bound", running_unique, lambda s: s.desk.reclaim(max_crashes=1), ("done", 1),
        {"t": "a=failed[1,0,1,0]", "dead": "a@+0", "stats": "failed=1", "journal": "a:1:failed", "wake": "1"}),
    Row("reclaim in steps", then(submits(new(A), new(B)), claimed("w", 2), lambda s: s.desk.beat()),
        lambda s: s.desk.reclaim(seen="1", limit=1), ("moved", 1),
        {"s": "a[1,0,1,0]", "1": "b<w", "w": "w=1", "wake": "1"}),
    Row("reclaim the living", then(running, lambda s: s.desk.beat(counter=2)), lambda s: s.desk.reclaim(seen="1"),
        ("alive", 0), {"1": "a<w", "w": "w=2"}),
    Row("hand back", running, lambda s: s.desk.hand_back(), (1, False), {"r": "a[1,0,0,1]", "wake": "1"}),
    Row("hand back by place", running, lambda s: s.desk.hand_back("w", s.claims[0].place, "11-1"), (1, False),
        {"r": "a[1,0,0,1]", "wake": "1"}),
    Row("hand back a suspect", then(crashed, claimed("w", 1)), lambda s: s.desk.hand_back(), (1, False),
        {"s": "a[2,0,1,1]", "wake": "1"}),
    Row("hand back what was asked to cancel", asked, lambda s: s.desk.hand_back(), (1, False),
        {"t": "a=cancelled[1,0,0,1]~", "stats": "cancelled=1", "journal": "a:1:cancelled", "wake": "1"}),
    Row("leave", lambda s: s.desk.beat("w", 3), lambda s: s.desk.hand_back(leave=True), (0, False), {}),
    Row("purge one", dead, lambda s: s.desk.wire.run(s.desk.queue.purge([A, B])), 1, {"stats": "failed:noop=1"}),
    Row("purge by age", dead, lambda s: s.desk.wire.run(s.desk.queue.purge(before_ms=NOW + 1)), 1,
        {"stats": "failed:noop=1"}),
    Row("purge by number", dead, lambda s: s.desk.wire.run(s.desk.queue.purge(keep=0)), 1,
        {"stats": "failed:noop=1"}),
    Row("purge nothing", dead, lambda s: s.desk.wire.run(s.desk.queue.purge(before_ms=NOW, keep=1)), 0,
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "stats": "failed:noop=1"}),
]  # fmt: skip

REQUESTS = [
    Row("forget the dead", dead, forgets((A, ""), (B, "")), ["deleted", "unknown"], {"stats": "failed:noop=1"}),
    Row("forget the completed", completed, forgets((A, "")), ["deleted"], {"stats": "completed:noop=1"}),
    Row("forget the one that was seen", dead, lambda s: forgets((A, s.claims[0].place))(s), ["deleted"],
        {"stats": "failed:noop=1"}),
    Row("forget none that ended again since", dead, forgets((A, "1777-0")), ["other"],
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "stats": "failed:noop=1"}),
    Row("forget none that lives", waiting, forgets((A, "")), ["live"], {"1": "a"}),
    Row("cancel only who waits", running, lambda s: s.desk.wire.run(s.desk.queue.cancel(A, if_waiting=True)),
        "processing", {"1": "a<w"}),
    Row("cancel who waits", waiting_unique, lambda s: s.desk.cancel(A), "cancelled",
        {"t": "a=cancelled[0,0,0,0]~", "stats": "cancelled=1", "journal": "a::cancelled"}),
    Row("cancel the delayed", delayed, lambda s: s.desk.cancel(A), "cancelled",
        {"t": "a=cancelled[0,0,0,0]~", "stats": "cancelled=1", "journal": "a::cancelled"}),
    Row("cancel the parked", parked, lambda s: s.desk.cancel(A), "cancelled",
        {"t": "a=cancelled[1,0,0,1]~", "stats": "cancelled=1 parked:noop=1", "journal": "a::cancelled"}),
    Row("ask who runs", running, lambda s: s.desk.cancel(A), "asked", {"1": "a<w", "rev": "a=w"}),
    Row("ask again", asked, lambda s: s.desk.cancel(A), "asked", {"1": "a<w", "rev": "a=w"}),
    Row("cancel by force", asked, lambda s: s.desk.cancel(A, force=True), "cancelled",
        {"t": "a=cancelled[1,0,0,0]~", "stats": "cancelled=1", "journal": "a:1:cancelled"}),
    Row("cancel the unknown", nothing, lambda s: s.desk.cancel(A), "unknown", {}),
    Row("cancel the dead", dead, lambda s: s.desk.cancel(A), "failed",
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "stats": "failed:noop=1"}),
    Row("replay", dead_unique, lambda s: s.desk.replay(A, s.claims[0].place), "replayed",
        {"1": "a[1,0,0,0]", "u": "k=a", "stats": "failed:noop=1", "wake": "1"}),
    Row("replay another death", dead, lambda s: s.desk.replay(A, "11-1"), "other",
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "stats": "failed:noop=1"}),
    Row("replay beside a holder of its key", then(dead_unique, submits(new(B, unique="k"))),
        lambda s: s.desk.replay(A), "unique",
        {"t": "a=failed[1,1,0,0]", "dead": "a@+0", "1": "b", "u": "k=b", "stats": "failed:noop=1"}),
    Row("replay what did not die", completed, lambda s: s.desk.replay(A), "completed",
        {"t": "a=completed[1,0,0,0]~", "stats": "completed:noop=1"}),
    Row("replay the unknown", nothing, lambda s: s.desk.replay(A), "unknown", {}),
    Row("pause", waiting, lambda s: s.desk.pause(), True, {"1": "a", "ctl": "paused"}),
    Row("pause again", paused, lambda s: s.desk.pause(), False, {"1": "a", "ctl": "paused"}),
    Row("resume", paused, lambda s: s.desk.pause(False), True, {"1": "a", "wake": "1"}),
    Row("beat", nothing, lambda s: s.desk.wire.run(s.desk.queue.beat("w", 7, b"{}")).asked, [],
        {"w": "w=7", "wd": "w={}"}),
    Row("beat tells its own", asked, lambda s: (s.desk.beat("v").asked, s.desk.beat("w", 2).asked), ([], [A]),
        {"1": "a<w", "rev": "a=w", "w": "v=1 w=2"}),
    Row("reconcile", running, lambda s: s.desk.reconcile() == s.claims, True, {"1": "a<w"}),
    Row("init again", running, lambda s: s.desk.init()[1], False, {"1": "a<w"}),
    Row("init a lost group", then(running, lambda s: s.desk.destroy_group("1")), lambda s: s.desk.init()[1], False,
        {"1": "a", "wake": "1"}),
]  # fmt: skip


def after(stage: Stage, ms: int) -> Desk:
    """The desk, some time later."""
    stage.desk.now += ms
    return stage.desk


@pytest.mark.parametrize("row", SUBMIT + CYCLE + PASSES + REQUESTS, ids=str)
def test_one_call(desk: Desk, row: Row) -> None:
    stage = Stage(desk)
    row.seed(stage)
    desk.drop_marker()
    desk.raw("DEL", "journal")
    assert row.act(stage) == row.answer
    assert picture(desk) == row.after
