"""The passes: promote, reclaim, purge. Time is a parameter everywhere; Redis is real."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from headrace.broker.broker import Buried, Cycle, NewTask, Queue, Reclaim, Report, WorkerSeen
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.runtime.promoter import promote
from headrace.runtime.reclaimer import Watch, new_nonce, reclaim, reclaim_pass
from headrace.runtime.retention import purge_pass
from headrace.settings import Limits
from headrace.task import Envelope, encode_envelope, new_id, parse_attempts, record

NOW_MS = 1_700_000_000_000
TTL_S = 10.0


class Desk:
    """One queue, and what the tests do to it."""

    def __init__(self, url: str) -> None:
        self.client = AsyncClient(RedisSettings.parse(url, "a test"))
        self.queue = Queue("default")

    async def submit(self, number: int, due_ms: int | None = None) -> list[str]:
        ids = [new_id() for _ in range(number)]
        envelopes = [encode_envelope(Envelope(version=1, priority=1, id=id_, type="t")) for id_ in ids]
        batch = [NewTask(id_, text, 1, due_ms=due_ms) for id_, text in zip(ids, envelopes, strict=True)]
        await self.client.call(self.queue.submit(batch, now_ms=NOW_MS))
        return ids

    async def claim(self, worker: str, number: int) -> Cycle:
        cycle = await self.client.call(self.queue.cycle(worker, number))
        assert len(cycle.claims) == number
        return cycle

    async def bury(self, number: int, now_ms: int) -> list[str]:
        """So many new dead letters, all died at `now_ms`."""
        ids = await self.submit(number)
        claims = (await self.claim("digger", number)).claims
        reports = [
            Report(place, id_, "failed", "", "t", record("failed", envelope, b""))
            for id_, (place, envelope, _) in zip(ids, claims, strict=True)
        ]
        await self.client.call(self.queue.cycle("digger", 0, reports, now_ms=now_ms))
        return ids

    async def beat(self, worker: str, counter: int) -> None:
        await self.client.call(self.queue.beat(worker, counter))

    async def holds(self, worker: str) -> int | None:
        """How many entries a worker holds; None if nothing is known of it."""
        seen = {each.name: each.held for each in await self.client.call(self.queue.workers())}
        return seen.get(worker)

    async def waiting(self) -> dict[str, int]:
        depth = await self.client.call(self.queue.depth())
        return {digit: stream.waiting for digit, stream in depth.streams.items() if stream.waiting}

    async def dead(self) -> int:
        return (await self.client.call(self.queue.depth())).dead


@pytest.fixture
async def desk(redis_url: str) -> AsyncIterator[Desk]:
    desk = Desk(redis_url)
    await desk.client.call(desk.queue.init())
    yield desk
    await desk.client.aclose()


# -- promote


async def test_all_that_is_due_is_promoted_over_several_slices(desk: Desk) -> None:
    """250 tasks take three calls; the pass returns when the rest is due."""
    await desk.submit(250, due_ms=NOW_MS + 1_000)
    await desk.submit(1, due_ms=NOW_MS + 9_000)
    assert await promote(desk.client, desk.queue, NOW_MS + 1_000) == NOW_MS + 9_000
    assert await desk.waiting() == {"1": 250}


@pytest.mark.parametrize("early_ms", [1, 60_000])
async def test_nothing_is_promoted_before_its_time(desk: Desk, early_ms: int) -> None:
    """Not even a millisecond early."""
    await desk.submit(1, due_ms=NOW_MS + 60_000)
    assert await promote(desk.client, desk.queue, NOW_MS + 60_000 - early_ms) == NOW_MS + 60_000
    assert await desk.waiting() == {}


async def test_with_nothing_delayed_there_is_no_next_time(desk: Desk) -> None:
    """None, not zero: nobody should plan a promotion."""
    assert await promote(desk.client, desk.queue, NOW_MS) is None


async def test_promoters_at_once_move_each_task_once(desk: Desk) -> None:
    """Four promoters, 500 tasks, 500 entries."""
    await desk.submit(500, due_ms=NOW_MS)
    others = [AsyncClient(desk.client.settings) for _ in range(3)]
    await asyncio.gather(*(promote(client, desk.queue, NOW_MS) for client in (desk.client, *others)))
    for other in others:
        await other.aclose()
    assert await desk.waiting() == {"1": 500}


# -- the watch


def seen(**beats: str) -> list[WorkerSeen]:
    return [WorkerSeen(name, beat, b"", 1) for name, beat in beats.items()]


def watch_over(*looks: tuple[float, list[WorkerSeen]]) -> list[list[tuple[str, str]]]:
    """(worker, seen beat) of the orders that each look gives."""
    watch = Watch(TTL_S, own="me")
    return [[(order.worker, order.seen) for order in watch.observe(now, who)] for now, who in looks]


def test_a_beat_that_does_not_change_for_the_ttl_is_a_death() -> None:
    """Neither before, nor if it changed once."""
    steady = [(t, seen(a="7")) for t in (100.0, 104.0, 109.9, 110.0)]
    assert watch_over(*steady) == [[], [], [], [("a", "7")]]
    changed = [(100.0, seen(a="7")), (105.0, seen(a="8")), (110.0, seen(a="8")), (114.9, seen(a="8"))]
    assert watch_over(*changed) == [[], [], [], []]


def test_the_order_stands_until_it_was_carried_out() -> None:
    """A reclaim that Redis did not answer is given again at the next look."""
    looks = [(t, seen(a="7")) for t in (0.0, 5.0, 10.0, 11.0)]
    assert watch_over(*looks) == [[], [], [("a", "7")], [("a", "7")]]


def test_a_counter_may_change_in_any_direction() -> None:
    """What counts is that it changed: no order of values is assumed, and no clock."""
    looks = [(0.0, seen(a="7")), (6.0, seen(a="3")), (12.0, seen(a="7")), (18.0, seen(a="7"))]
    assert watch_over(*looks) == [[], [], [], []]


def test_no_beat_is_answered_with_a_mark_which_then_has_its_own_ttl() -> None:
    """A worker that never beat gets the same time as one that stopped."""
    looks = [(0.0, seen(a="")), (1.0, seen(a="?n")), (7.0, seen(a="?n")), (10.9, seen(a="?n")), (11.0, seen(a="?n"))]
    assert watch_over(*looks) == [[("a", "")], [], [], [], [("a", "?n")]]


def test_a_worker_never_reclaims_itself() -> None:
    """Its own beats may be late; its own tasks run."""
    assert watch_over((0.0, seen(me="1")), (7.0, seen(me="1")), (14.0, seen(me="1"))) == [[], [], []]


def test_a_worker_that_comes_back_under_its_name_is_new() -> None:
    """What is no longer seen is forgotten."""
    looks = [(0.0, seen(a="7")), (5.0, seen()), (10.0, seen(a="7")), (15.0, seen(a="7")), (20.0, seen(a="7"))]
    assert watch_over(*looks) == [[], [], [], [], [("a", "7")]]


def test_after_a_reset_everyone_has_the_whole_ttl_again() -> None:
    """Who was away from Redis does not know who beat meanwhile."""
    watch = Watch(TTL_S, own="me")
    watch.observe(0.0, seen(a="7"))
    watch.reset(9.0)
    assert watch.observe(15.0, seen(a="7")) == []
    assert [order.worker for order in watch.observe(19.0, seen(a="7"))] == ["a"]


def test_a_long_gap_between_two_looks_is_a_reset() -> None:
    """A frozen reclaimer, or a frozen Redis, saw nobody: that proves nothing about the others."""
    assert watch_over((0.0, seen(a="7")), (60.0, seen(a="7")), (65.0, seen(a="7"))) == [[], [], []]
    late = [(0.0, seen(a="7")), (60.0, seen(a="7")), (65.0, seen(a="7")), (70.0, seen(a="7"))]
    assert watch_over(*late)[-1] == [("a", "7")]


def test_a_slow_answer_counts_from_its_end() -> None:
    """The value is as old as the answer at the most: the TTL runs from there."""
    watch = Watch(TTL_S, own="me")
    watch.observe(0.0, seen(a="7"), answered=4.0)
    assert watch.observe(7.0, seen(a="7")) == []
    assert watch.observe(13.9, seen(a="7")) == []
    assert len(watch.observe(14.0, seen(a="7"))) == 1


def test_orders_carry_the_settings_and_a_nonce_of_their_own() -> None:
    """max_crashes and backoff reach the script; no two marks are alike."""
    watch = Watch(TTL_S, own="me", max_crashes=7, backoff_ms=11)
    first, second = watch.observe(0.0, seen(a="", b=""))
    assert (first.max_crashes, first.backoff_ms) == (7, 11)
    assert first.nonce and first.nonce != second.nonce


# -- reclaim


async def test_a_dead_worker_is_emptied_in_slices_and_forgotten(desk: Desk) -> None:
    """250 entries take three calls; afterwards neither consumer nor beat is left, and the tasks are suspects."""
    await desk.submit(250)
    await desk.claim("gone", 250)
    await desk.beat("gone", 41)
    watch = Watch(TTL_S, own="me")
    assert (await reclaim_pass(desk.client, desk.queue, watch, 0.0)).taken == 0
    assert (await reclaim_pass(desk.client, desk.queue, watch, 5.0)).taken == 0
    assert await desk.holds("gone") == 250
    assert (await reclaim_pass(desk.client, desk.queue, watch, 11.0)).taken == 250
    assert await desk.holds("gone") is None
    assert await desk.waiting() == {"s": 250}


async def test_a_live_worker_keeps_its_tasks(desk: Desk) -> None:
    """It beats between the looks, however long its tasks run."""
    await desk.submit(3)
    await desk.claim("busy", 3)
    watch = Watch(TTL_S, own="me")
    for turn in range(20):
        await desk.beat("busy", turn)
        assert (await reclaim_pass(desk.client, desk.queue, watch, 5.0 * turn)).taken == 0
    assert await desk.holds("busy") == 3


async def test_a_beat_between_the_look_and_the_order_saves_the_worker(desk: Desk) -> None:
    """The script compares once more: a stale view takes nothing."""
    await desk.submit(2)
    await desk.claim("late", 2)
    await desk.beat("late", 2)
    stale = Reclaim("late", seen="1", nonce=new_nonce())
    assert (await reclaim(desk.client, desk.queue, stale)).taken == 0
    assert await desk.holds("late") == 2


async def test_a_worker_that_died_before_its_first_beat_is_found(desk: Desk) -> None:
    """Only its entries are seen; it is marked, and a TTL later its tasks go on."""
    await desk.submit(2)
    await desk.claim("stillborn", 2)
    watch = Watch(TTL_S, own="me")
    moved = [(await reclaim_pass(desk.client, desk.queue, watch, now)).taken for now in (0.0, 1.0, 7.0, 12.0)]
    assert moved == [0, 0, 0, 2]


async def test_a_first_beat_erases_the_mark(desk: Desk) -> None:
    """A slow start is not a death."""
    await desk.submit(2)
    await desk.claim("slow", 2)
    watch = Watch(TTL_S, own="me")
    for now in (0.0, 5.0):
        await reclaim_pass(desk.client, desk.queue, watch, now)
    await desk.beat("slow", 1)
    assert [(await reclaim_pass(desk.client, desk.queue, watch, now)).taken for now in (12.0, 18.0)] == [0, 0]
    assert await desk.holds("slow") == 2


async def test_many_reclaimers_take_each_task_once(desk: Desk) -> None:
    """Five watchers at once: the tasks go on once, and their sum is right."""
    await desk.submit(230)
    await desk.claim("gone", 230)
    await desk.beat("gone", 1)
    clients = [AsyncClient(desk.client.settings) for _ in range(5)]
    watches = [Watch(TTL_S, own=f"me{i}") for i in range(5)]
    pairs = list(zip(clients, watches, strict=True))
    for now in (0.0, 6.0):
        await asyncio.gather(*(reclaim_pass(client, desk.queue, watch, now) for client, watch in pairs))
    moved = await asyncio.gather(*(reclaim_pass(client, desk.queue, watch, 12.0) for client, watch in pairs))
    for client in clients:
        await client.aclose()
    assert sum(each.taken for each in moved) == 230
    assert await desk.waiting() == {"s": 230}


async def test_a_proven_death_needs_no_ttl_and_its_cause_is_kept(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """What watches a process hands its tasks on at once, whatever the beat says."""
    (task_id,) = await desk.submit(1)
    await desk.claim("killed", 1)
    await desk.beat("killed", 9)
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        assert (
            await reclaim(desk.client, desk.queue, Reclaim("killed", "*", new_nonce(), cause="OOMKilled"))
        ).taken == 1
    found = await desk.client.call(desk.queue.get(task_id))
    assert found is not None and b'"cause":"OOMKilled"' in found.carried
    assert [entry.getMessage() for entry in caplog.records] == [
        f"worker killed is gone (OOMKilled): 1 of its tasks go on ({task_id})"
    ]


async def test_who_is_buried_by_a_reclaim_is_told_and_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """With its type, its crashes and the cause; of those that go on, ten are named."""
    ids = await desk.submit(13)
    await desk.claim("killer", 13)
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        once = await reclaim(desk.client, desk.queue, Reclaim("killer", "*", new_nonce(), "OOMKilled"))
        await desk.claim("second", 1)
        twice = await reclaim(
            desk.client, desk.queue, Reclaim("second", "*", new_nonce(), "exit code 7", max_crashes=2)
        )
    assert once.handed_on == tuple(ids) and once.buried == ()
    assert twice.handed_on == () and twice.buried == (Buried(ids[0], "t", 2),)
    first, second = caplog.records
    assert first.getMessage().endswith(f"13 of its tasks go on ({', '.join(ids[:10])}, …)")
    assert second.getMessage() == (
        f"task {ids[0]} (t) failed: crash 2 of its workers, the last one second (exit code 7)"
    )
    assert vars(second)["fields"] == {"task_id": ids[0], "type": "t", "crashes": 2, "cause": "exit code 7"}


async def test_a_crashed_attempt_tells_when_it_began(desk: Desk) -> None:
    """Redis knows how long ago it was claimed; an entry is never claimed twice, so that is its start."""
    (task_id,) = await desk.submit(1)
    before = time.time_ns() // 1_000_000
    await desk.claim("killed", 1)
    after = time.time_ns() // 1_000_000
    await asyncio.sleep(0.05)
    await reclaim(desk.client, desk.queue, Reclaim("killed", "*", new_nonce()))
    found = await desk.client.call(desk.queue.get(task_id))
    assert found is not None
    (attempt,) = parse_attempts(found.carried)
    assert before - 5 <= attempt.started_ms <= after + 5  # Redis' own clock, of the same machine
    assert attempt.ended_ms >= attempt.started_ms + 50


@pytest.mark.parametrize("by_place", [False, True])
async def test_an_attempt_that_is_handed_back_tells_when_it_began(desk: Desk, by_place: bool) -> None:
    """As a crashed one does."""
    (task_id,) = await desk.submit(1)
    before = time.time_ns() // 1_000_000
    ((place, _, _),) = (await desk.claim("leaves", 1)).claims
    after = time.time_ns() // 1_000_000
    await asyncio.sleep(0.05)
    assert await desk.client.call(desk.queue.hand_back("leaves", [place] if by_place else [b"*"])) == (1, False)
    found = await desk.client.call(desk.queue.get(task_id))
    assert found is not None
    (attempt,) = parse_attempts(found.carried)
    assert attempt.outcome == "interrupted"
    assert before - 5 <= attempt.started_ms <= after + 5
    assert attempt.ended_ms >= attempt.started_ms + 50


# -- purge

DAY_MS = 86_400_000


async def test_dead_letters_go_by_age_over_several_slices(desk: Desk) -> None:
    """250 that are too old take three calls; one that is a millisecond younger stays."""
    await desk.bury(250, NOW_MS - DAY_MS - 1)
    (young,) = await desk.bury(1, NOW_MS - DAY_MS)
    purged = await purge_pass(desk.client, desk.queue, Limits(retention_failed_s=86_400), NOW_MS)
    assert purged == (250, 0)
    assert await desk.dead() == 1
    assert await desk.client.call(desk.queue.get(young)) is not None


async def test_beyond_the_number_the_oldest_go_and_it_is_said(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Losing dead letters by number is worth a warning that names the setting."""
    (oldest,) = await desk.bury(1, NOW_MS - 2_000)
    await desk.bury(299, NOW_MS - 1_000)
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        purged = await purge_pass(desk.client, desk.queue, Limits(max_failed=120), NOW_MS)
    assert purged == (0, 180) and await desk.dead() == 120
    assert await desk.client.call(desk.queue.get(oldest)) is None
    (entry,) = caplog.records
    assert "180 oldest" in entry.getMessage() and "HEADRACE_MAX_FAILED" in entry.getMessage()


async def test_age_is_no_reason_for_a_warning(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The retention ran out as it was set; nothing is wrong."""
    await desk.bury(2, NOW_MS - DAY_MS - 1)
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        assert await purge_pass(desk.client, desk.queue, Limits(retention_failed_s=86_400), NOW_MS) == (2, 0)
    assert caplog.records == []


async def test_within_age_and_number_nothing_is_deleted(desk: Desk) -> None:
    """The default pass leaves fresh dead letters alone."""
    await desk.bury(3, NOW_MS)
    assert await purge_pass(desk.client, desk.queue, Limits(), NOW_MS) == (0, 0)
    assert await desk.dead() == 3
