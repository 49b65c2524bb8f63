"""What people read about a pool: deaths that are counted, words for a drain, one writer of its conditions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from headrace_operator.cluster import ClusterError
from headrace_operator.decide import Decision, Reason
from headrace_operator.fleet import Fleet, Pod
from headrace_operator.news import Event, News, Teller
from headrace_operator.spec import Mode
from headrace_operator.status import Report, conditions, in_words
from operator_kit import AT_ONCE, Opener, resource


def died(name: str) -> News:
    return News(Event.WORKER_DIED, f"pod {name}: OOMKilled, exit code 137")


def test_every_death_is_told_soon_and_together_with_others() -> None:
    teller = Teller()
    assert teller.tell(died("a"), 0.0) == died("a")
    assert teller.tell(died("b"), 1.0) is None and teller.owes()
    assert teller.tell(died("c"), 2.0) is None
    assert teller.due(29.0) == []
    [late] = teller.due(30.0)
    assert late.message == "pod b: OOMKilled, exit code 137; pod c: OOMKilled, exit code 137"
    assert not teller.owes() and teller.due(90.0) == []


def test_a_flood_of_deaths_is_two_events_a_minute_that_say_how_many() -> None:
    teller, posted = Teller(), []
    for second in range(60):
        for number in range(10):
            posted += [teller.tell(died(f"{second}-{number}"), float(second))]
        posted += teller.due(float(second))
    told = [each.message for each in posted if each is not None]
    assert len(told) == 2
    assert told[1].endswith("pod 0-5: OOMKilled, exit code 137; and 295 more like it")


async def test_a_second_death_reaches_people_although_nothing_else_happens(scene: Opener) -> None:
    pool = scene()
    await pool.ticks(3)
    steering = pool.loop.pools[next(iter(pool.loop.pools))]
    await steering.tell(pool.cluster, died("a"), pool.now)
    await steering.tell(pool.cluster, died("b"), pool.now)
    await pool.ticks(35)
    told = [each.message for each in pool.cluster.news if each.reason is Event.WORKER_DIED]
    assert told == [died("a").message, died("b").message]


@pytest.mark.parametrize(
    ("ready", "desired", "draining", "words"),
    [
        (0, 0, 0, "0 of 0 ready"),
        (1, 2, 0, "1 of 2 ready"),
        (1, 0, 1, "1 draining"),
        (3, 1, 2, "1 of 1 ready, 2 draining"),
        (3, 1, 1, "2 ready, 1 wanted, 1 draining"),
        (1, 0, 0, "1 ready, 0 wanted"),
    ],
)
def test_counts_in_words(ready: int, desired: int, draining: int, words: str) -> None:
    assert in_words(ready, desired, draining) == words


def test_a_pool_that_drains_says_so() -> None:
    decision = Decision(0, 0, Reason.IDLE, "nothing waits and nothing runs")
    fleet = Fleet(1, (Pod("emails-1", 0.0, ready=True),))
    ready = conditions(Report("emails", 1, Mode.AUTO, fleet, draining=1, decision=decision))[0]
    assert (ready.status, ready.reason) == (True, "Draining")
    assert ready.message.startswith("1 draining: ")


async def test_a_pool_at_zero_drains_in_so_many_words(scene: Opener) -> None:
    pool = scene(scaling=AT_ONCE)
    ids = await pool.submit(5)
    await pool.tick()
    await pool.work()
    await pool.empty(ids)
    await pool.ticks(33)
    assert pool.condition("Ready")["reason"] == "Draining"


# one writer


def wrong(generation: int) -> dict[str, Any]:
    return {**resource(generation), "spec": {"queues": []}}


async def test_a_spec_that_turns_invalid_is_one_of_the_conditions_and_stays(scene: Opener) -> None:
    """The loop goes on with what it knew, and its next status must not wipe out what is wrong."""
    pool = scene()
    await pool.submit(5)
    await pool.tick()
    assert pool.loop.saw_pool(wrong(2)) is not None
    await pool.ticks(3)
    await pool.submit(200)
    await pool.ticks(10)
    assert pool.replicas > 1, "it is led on by the spec from before"
    assert pool.condition("Ready")["reason"] == "InvalidSpec"
    assert pool.condition("Ready")["observedGeneration"] == 2
    assert pool.told.count("InvalidSpec") == 1
    assert pool.loop.unreadable == 1
    pool.loop.saw_pool(resource(3))
    await pool.ticks(3)
    assert pool.condition("Ready")["status"] == "True" and pool.condition("SpecValid") == {}
    assert pool.loop.unreadable == 0


async def test_a_pool_at_rest_tells_that_its_spec_turned_invalid(scene: Opener) -> None:
    pool = scene()
    await pool.ticks(8)
    assert pool.loop.saw_pool(wrong(2)) is not None
    await pool.ticks(2)
    assert pool.condition("Ready")["reason"] == "InvalidSpec"


async def test_a_pool_that_was_never_valid_is_told_until_it_is(scene: Opener) -> None:
    pool = scene()
    pool.loop.lost_pool(next(iter(pool.loop.pools)))
    pool.cluster.broken = ClusterError("the API server does not answer")
    pool.loop.saw_pool(wrong(1))
    await pool.ticks(2)
    pool.cluster.broken = None
    await pool.ticks(3)
    assert pool.condition("Ready")["reason"] == "InvalidSpec"
    assert pool.told == ["InvalidSpec"]
    pool.loop.saw_pool(resource(2))
    await pool.ticks(3)
    assert pool.condition("Ready")["reason"] == "Idle"
    assert pool.loop.unreadable == 0


async def test_a_pool_that_stays_invalid_keeps_the_time_since_when(scene: Opener) -> None:
    pool = scene()
    pool.loop.lost_pool(next(iter(pool.loop.pools)))
    pool.loop.saw_pool(wrong(1))
    await pool.tick()
    since = pool.condition("Ready")["lastTransitionTime"]
    await pool.ticks(5)
    pool.loop.saw_pool(wrong(2))
    await pool.tick()
    ready = pool.condition("Ready")
    assert (ready["observedGeneration"], ready["lastTransitionTime"]) == (2, since)


async def test_what_cannot_be_told_is_tried_more_and_more_seldom(
    scene: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, asked = scene(), list[float]()

    async def no(*_: Any) -> None:
        asked.append(pool.now.s)
        raise ClusterError("the API server does not answer")

    pool.loop.lost_pool(next(iter(pool.loop.pools)))
    monkeypatch.setattr(pool.cluster, "show", no)
    pool.loop.saw_pool(wrong(1))
    await pool.ticks(150)
    assert [late - early for early, late in pairwise(asked)] == [1, 2, 4, 8, 16, 32, 60]


async def test_what_was_told_before_a_restart_is_not_told_again(scene: Opener) -> None:
    pool = scene()
    pool.loop.lost_pool(next(iter(pool.loop.pools)))
    pool.loop.saw_pool(wrong(1))
    await pool.tick()
    pool.loop.lost_pool(next(iter(pool.loop.invalid)))
    pool.loop.saw_pool({**wrong(1), "status": pool.cluster.statuses["emails"]})
    await pool.ticks(2)
    assert pool.told == ["InvalidSpec"]
