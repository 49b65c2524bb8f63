"""The claim loop alone, on a connection that a test answers: what is sent, kept, handed back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
import pytest

from headrace.broker.broker import Call, Queue, Report
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.runtime.claims import MAX_REPORTS, RETRY_S, QueueClaims
from headrace.runtime.shares import Shares
from headrace.settings import Durabilities, Replicated
from worker_harness import quick


class Wire:
    """In place of a connection: keeps what is sent until the test answers it, in order."""

    version = (7, 2, 0)

    def __init__(self) -> None:
        self.settings = RedisSettings()
        self.lost: StoreUnavailable | None = None
        self.out: list[tuple[Call[Any], Callable[[Any], None]]] = []

    @property
    def outstanding(self) -> int:
        return len(self.out)

    def send_call(self, call: Call[Any], answer: Callable[[Any], None]) -> None:
        self.out.append((call, answer))

    def send_confirmed(self, call: Call[Any], follow: Any, answer: Callable[[Any, Any], None]) -> None:
        self.out.append((call, lambda pair: answer(*pair)))

    def close(self, reason: str = "", *, answered: bool = False) -> None:
        self.lost = StoreUnavailable("here", reason, answered)

    def names(self) -> list[str]:
        return [call.script.name for call, _ in self.out]

    def slots(self) -> list[int]:
        """What the cycles that are out ask for."""
        return [wanted(call) for call, _ in self.out if call.script.name == "cycle"]

    def answer(self, reply: Any) -> None:
        self.out.pop(0)[1](reply)


def cycle(*places: str, verdicts: tuple[bytes, ...] = (), flags: int = 0) -> list[Any]:
    claims = [[place[:1].encode(), place[1:].encode(), b"{}"] for place in places]
    return [list(verdicts), flags, b"", claims, []]


def report(place: str) -> Report:
    return Report(place.encode(), f"id-{place}", "completed", "", "t", b"record")


def wanted(call: Call[Any]) -> int:
    """The slots that a cycle asks for."""
    return int(call.words[5])


def queue_of(call: Call[Any]) -> str:
    return call.head.key.decode().partition("/")[2].partition("}")[0]


class Hands:
    """In place of the executor: counts slots, keeps what was begun."""

    def __init__(self, slots: int) -> None:
        self.free = slots
        self.begun: list[bytes] = []
        self.accepted: list[Report] = []
        self.on_begin: Callable[[bytes], None] = lambda place: None
        self.shares = Shares()

    def free_for(self, claims: QueueClaims) -> int:
        return self.shares.part(claims, self.free)

    def offer(self, claims: QueueClaims) -> None:
        self.shares.offer(claims)

    def join(self, claims: QueueClaims) -> None:
        self.shares.join(claims)

    def begin(self, claims: QueueClaims, place: bytes, envelope: bytes, carried: bytes) -> None:
        self.begun.append(place)
        self.free -= 1
        self.on_begin(place)

    def runs(self, claims: QueueClaims, place: bytes) -> bool:
        return place in self.begun

    def places(self, claims: QueueClaims) -> list[bytes]:
        return self.begun

    def lose(self, claims: QueueClaims, held: set[bytes]) -> None: ...

    def answered(self, reports: list[Report], verdicts: dict[bytes, bytes]) -> None:
        self.accepted += reports


def make(hands: Hands, name: str = "default", weight: int = 1, **settings: Any) -> tuple[QueueClaims, Wire]:
    claims = QueueClaims(Queue(name), weight, quick(concurrency=max(1, hands.free), **settings), "w:1", hands)
    return claims, Wire()


def connect(claims: QueueClaims, wire: Wire) -> None:
    """Connected, and the first reconcile answered with nothing."""
    claims.connected(wire)  # type: ignore[arg-type]
    assert wire.names() == ["reconcile"]
    wire.answer([[], []])


async def test_what_begin_ends_at_once_is_not_replaced_too_early() -> None:
    """Half of what was claimed ends while the rest is not begun: the call that tells it asks for no slot twice."""
    hands = Hands(4)
    claims, wire = make(hands)

    def end_two(place: bytes) -> None:
        if len(hands.begun) <= 2:
            hands.free += 1
            claims.ended(report(place.decode()))

    hands.on_begin = end_two
    connect(claims, wire)
    assert wire.slots() == [4]
    wire.answer(cycle("31-1", "31-2", "31-3", "31-4"))
    assert sum(wire.slots()) <= hands.free == 2


async def test_claims_that_come_while_draining_are_handed_back() -> None:
    """They are not begun, and the loop is busy until Redis has them back."""
    hands = Hands(2)
    claims, wire = make(hands)
    connect(claims, wire)
    claims.draining = True
    wire.answer(cycle("31-1", "31-2"))
    assert hands.begun == [] and wire.names() == ["hand_back"]
    assert list(wire.out[0][0].args[-2:]) == [b"31-1", b"31-2"]
    assert claims.busy
    wire.answer([2, 0])
    assert not claims.busy


async def test_a_refused_call_keeps_its_reports_whatever_the_next_one_brings() -> None:
    """Two calls are out, the first is refused: its reports go again on the next connection."""
    hands = Hands(8)
    claims, wire = make(hands)
    connect(claims, wire)
    wire.answer(cycle("31-1", "31-2"))
    claims.ended(report("31-1"))
    await asyncio.sleep(0)
    claims.ended(report("31-2"))
    await asyncio.sleep(0)
    assert wire.names() == ["cycle", "cycle"]
    first, second = wire.out
    second[1](cycle())  # answered out of order, as after a lost script cache
    assert [told.place for told in hands.accepted] == [b"31-2"]
    first[1](hiredis.ReplyError("READONLY You can't write against a read only replica."))
    assert wire.lost is not None
    claims.disconnected()
    again = Wire()
    claims.connected(again)  # type: ignore[arg-type]
    assert again.names() == ["cycle", "reconcile"] and again.slots() == [0]
    assert b"1-1" in again.out[0][0].words and b"1-2" not in again.out[0][0].words


async def test_a_full_worker_that_pops_a_marker_passes_it_on_and_remembers() -> None:
    """It runs a cycle for nothing, and claims as soon as it has a slot, without another marker."""
    hands = Hands(1)
    claims, wire = make(hands)
    connect(claims, wire)
    wire.answer(cycle())
    hands.free = -1  # an adopted task more than there are slots
    claims.waiter._popped()
    assert wire.slots() == [0]
    wire.answer(cycle())
    assert wire.out == []
    hands.free = 1
    claims.wake()
    assert wire.slots() == [1]


@pytest.mark.parametrize("said", [0, hiredis.ReplyError("ERR WAIT cannot be used with replica instances")])
async def test_unconfirmed_reports_go_again_but_not_at_once(said: Any) -> None:
    """A confirmation that fails at once must not make the worker spin; what was never sent is not held up by it."""
    hands = Hands(1)
    claims, wire = make(hands, durability=Durabilities({"default": Replicated(1)}))
    connect(claims, wire)
    wire.answer(cycle("31-1"))
    claims.ended(report("31-1"))
    wire.answer((cycle(), said))
    assert wire.out == [] and hands.accepted == [] and claims.unreported == 1
    claims.look(asyncio.get_running_loop().time() + RETRY_S + 0.1)
    assert wire.names() == ["cycle"]
    wire.answer((cycle(verdicts=(b"31-1", b"dup")), 1))
    assert [told.place for told in hands.accepted] == [b"31-1"] and claims.unreported == 0


async def test_with_too_much_unconfirmed_nothing_more_is_claimed() -> None:
    """What Redis does not confirm is kept here, and that must end somewhere."""
    hands = Hands(1000)
    claims, wire = make(hands, durability=Durabilities({"default": Replicated(1)}))
    connect(claims, wire)
    wire.answer(cycle(*(f"31-{n}" for n in range(600))))
    while wire.out:
        wire.answer(cycle())
    for n in range(600):
        claims.ended(report(f"31-{n}"))
    await asyncio.sleep(0)
    while wire.out:
        wire.answer((cycle(), 0))
    assert claims.unreported >= MAX_REPORTS
    claims.wake()
    claims._popped()
    assert sum(wire.slots()) == 0


async def test_only_claims_count_as_turns() -> None:
    """Every tenth call that claims has the other order, however many calls only report in between."""
    hands = Hands(1)
    claims, wire = make(hands)
    claims.late_order = "0rs321"
    connect(claims, wire)
    orders = []
    for n in range(20):
        place = f"31-{n}"
        orders.append(wire.out[0][0].args[2])
        wire.answer(cycle(place))
        claims.ended(report(place))  # no slot is free yet: this call only reports
        await asyncio.sleep(0)
        wire.answer(cycle())
        hands.free = 1
        claims.wake()
    assert orders.count("0rs321") == 2


async def test_one_reconcile_at_a_time() -> None:
    """Beats go on while the claim connection stalls; what they ask for does not pile up on it."""
    hands = Hands(1)
    claims, wire = make(hands)
    connect(claims, wire)
    for _ in range(3):
        claims.reconcile()
    assert wire.names() == ["cycle", "reconcile"]


async def test_queues_that_all_have_more_share_by_weight() -> None:
    """One slot, two backlogs: three turns for one; none has to wait for the other's end."""
    hands = Hands(1)
    pairs = {name: make(hands, name, weight) for name, weight in (("orders", 3), ("mails", 1))}
    hands.shares.serve([claims for claims, _ in pairs.values()])
    wire = Wire()
    for claims, _ in pairs.values():
        claims.connected(wire)  # type: ignore[arg-type]
    assert wire.names() == ["reconcile", "reconcile"]
    wire.answer([[], []])
    wire.answer([[], []])
    turns: list[str] = []
    for n in range(40):
        call, answer = wire.out.pop(0)
        name = queue_of(call)
        assert wanted(call) == 1 and wire.slots() == []
        turns.append(name)
        answer(cycle(f"31-{n}"))
        hands.free = 1
        pairs[name][0].ended(report(f"31-{n}"))
        while wire.slots()[:1] == [0]:
            wire.answer(cycle())
    assert 28 <= turns.count("orders") <= 32, turns


async def test_an_idle_queue_waits_for_its_marker_though_others_have_every_slot() -> None:
    """Its marker makes it want a slot, and it gets the next one in turn."""
    hands = Hands(1)
    busy, wire = make(hands, "busy")
    rare, _ = make(hands, "rare")
    hands.shares.serve([busy, rare])
    rare.connected(wire)  # type: ignore[arg-type]
    wire.answer([[], []])
    wire.answer(cycle())
    busy.connected(wire)  # type: ignore[arg-type]
    wire.answer([[], []])
    wire.answer(cycle("31-1"))
    assert hands.free == 0 and rare.waiter._armed
    rare.waiter._popped()
    wire.answer(cycle())
    turns = []
    for n in (1, 2):
        hands.free = 1
        busy.ended(report(f"31-{n}"))
        turns += [queue_of(call) for call, _ in wire.out if wanted(call)]
        while wire.out:
            wire.answer(cycle(f"31-{n + 1}") if wire.slots()[0] else cycle())
    assert "rare" in turns


async def test_what_redis_refuses_is_told_as_it_said_it() -> None:
    """It is there: nobody is told to start it."""
    claims, wire = make(Hands(1))
    connect(claims, wire)
    wire.answer(hiredis.ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value"))
    assert str(wire.lost) == (
        "Redis at here cannot be used now: queue default: WRONGTYPE Operation against a key holding the wrong kind of "
        "value. Mend what it says, or try again later."
    )
