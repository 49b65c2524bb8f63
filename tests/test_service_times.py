"""How long tasks take, by type and queue: what a worker measures, and what a scaler expects of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest

from headrace.broker.demand import Demand, TypeTime, WorkerBeat
from headrace.runtime.service_times import MOST_TYPES, ServiceTimes
from headrace_operator.expectation import Expectation, mix
from headrace_operator.kube import KubeCluster
from headrace_operator.metrics import Leading, registry_for
from headrace_operator.requests import Requests
from headrace_operator.status import mean_json
from operator_kit import KEY, Opener

PRIOR_S = 1.0


def spend(times: ServiceTimes, type: str, number: int, seconds: float) -> None:
    for _ in range(number):
        times.spent[type].begun += 1
        times.spent[type].ended += 1
        times.spent[type].seconds += seconds


def shares(times: ServiceTimes) -> dict[str, float]:
    return {each.name: round(each.share, 3) for each in times.types()}


def rounded(types: Iterable[TypeTime]) -> list[TypeTime]:
    return [
        TypeTime(each.name, round(each.share, 3), None if each.seconds is None else round(each.seconds, 3))
        for each in types
    ]


# a worker measures


def test_nothing_is_told_before_an_attempt_ended() -> None:
    times = ServiceTimes()
    times.spent["slow"].begun += 1
    times.look()
    assert times.seconds is None
    assert times.types() == ()


def test_types_are_measured_apart() -> None:
    times = ServiceTimes()
    spend(times, "quick", 30, 0.1)
    spend(times, "slow", 10, 9.0)
    times.look()
    assert rounded(times.types()) == [TypeTime("quick", 0.75, 0.1), TypeTime("slow", 0.25, 9.0)]
    assert times.seconds == pytest.approx(0.75 * 0.1 + 0.25 * 9.0)


def test_what_began_and_has_not_ended_counts_in_the_mix() -> None:
    """By what ended alone, a queue of which half is slow looks quick for as long as the slow ones take."""
    times = ServiceTimes()
    spend(times, "quick", 10, 0.1)
    times.spent["slow"].begun += 10
    times.look()
    assert rounded(times.types()) == [TypeTime("quick", 0.5, 0.1), TypeTime("slow", 0.5)]


def test_the_latest_count_most() -> None:
    times = ServiceTimes()
    spend(times, "a", 1_000, 1.0)
    times.look()
    spend(times, "a", 5, 5.0)
    times.look()
    [one] = times.types()
    assert one.seconds == pytest.approx(5.0 - 4.0 * 0.9**5)


def test_the_mix_follows_what_begins_now() -> None:
    times = ServiceTimes()
    spend(times, "quick", 100, 0.1)
    times.look()
    spend(times, "slow", 22, 4.0)
    times.look()
    assert shares(times) == {"slow": 0.902, "quick": 0.098}


def test_a_worker_that_pauses_forgets_nothing() -> None:
    times = ServiceTimes()
    spend(times, "a", 3, 2.0)
    for _ in range(10):
        times.look()
    assert rounded(times.types()) == [TypeTime("a", 1.0, 2.0)]


def test_a_beat_stays_short_however_many_types_there_are() -> None:
    times = ServiceTimes()
    for number in range(50):
        spend(times, f"type{number}", number + 1, 1.0)
    times.look()
    assert len(times.types()) == MOST_TYPES
    assert times.types()[0].name == "type49"


# a scaler expects


def demand(*beats: WorkerBeat) -> Demand:
    workers = {f"w:{number}": beat for number, beat in enumerate(beats)}
    return Demand(0, 0, 0, 0, 0, 0.0, False, workers, {})


def told(*types: TypeTime, mean_s: float | None = 1.0) -> WorkerBeat:
    return WorkerBeat(1, mean_s=mean_s, types=types)


def test_a_prior_serves_until_something_was_measured() -> None:
    nothing = Expectation().learn(demand(WorkerBeat(1)))
    assert nothing.seconds(PRIOR_S) is None
    assert nothing.types == ()


def test_workers_are_brought_together() -> None:
    one = told(TypeTime("quick", 1.0, 0.2))
    two = told(TypeTime("quick", 0.5, 0.4), TypeTime("slow", 0.5, 8.0))
    found = Expectation().learn(demand(one, two))
    assert rounded(found.types) == [TypeTime("quick", 0.75, 0.267), TypeTime("slow", 0.25, 8.0)]
    assert found.seconds(PRIOR_S) == pytest.approx(0.2 + 2.0)


def test_a_type_that_never_ended_takes_what_the_spec_says() -> None:
    found = Expectation().learn(demand(told(TypeTime("quick", 0.5, 0.1), TypeTime("slow", 0.5))))
    assert found.seconds(60.0) == pytest.approx(0.05 + 30.0)


def test_what_a_beat_leaves_out_is_no_part_of_the_mix() -> None:
    """A worker with many types tells the commonest; those stand for all."""
    found = Expectation().learn(demand(told(TypeTime("a", 0.3, 1.0), TypeTime("b", 0.3, 3.0))))
    assert [each.share for each in found.types] == [0.5, 0.5]
    assert found.seconds(PRIOR_S) == pytest.approx(2.0)


def test_what_was_measured_outlives_the_workers() -> None:
    before = Expectation().learn(demand(told(TypeTime("slow", 1.0, 8.0))))
    assert before.learn(demand()).seconds(PRIOR_S) == 8.0
    after = before.learn(demand(told(TypeTime("quick", 0.5, 0.1), TypeTime("slow", 0.5))))
    assert after.seconds(PRIOR_S) == pytest.approx(4.05), "a new worker has not ended a slow one yet, an old one has"


def test_an_older_worker_counts_by_its_mean() -> None:
    found = Expectation().learn(demand(WorkerBeat(1, mean_s=3.0), told(TypeTime("quick", 1.0, 1.0))))
    assert found.seconds(PRIOR_S) == pytest.approx(2.0)
    only = Expectation().learn(demand(WorkerBeat(1, mean_s=3.0)))
    assert (only.seconds(PRIOR_S), only.types) == (3.0, ())


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ((), ""),
        ((TypeTime("quick", 1.0, 0.2),), ""),
        ((TypeTime("quick", 0.8, 0.25), TypeTime("slow", 0.2, 5.0)), "80 % quick of 0.25 s, 20 % slow of 5 s"),
        ((TypeTime("quick", 0.8, 0.25), TypeTime("slow", 0.2)), "80 % quick of 0.25 s, 20 % slow not measured yet"),
        (
            tuple(TypeTime(name, 0.2, 1.0) for name in "abcde"),
            "20 % a of 1 s, 20 % b of 1 s, 20 % c of 1 s, 40 % 2 other types",
        ),
    ],
)
def test_a_mix_in_words(types: Any, words: str) -> None:
    assert mix(types) == words


# a pool


async def test_a_pool_is_sized_by_the_mix_and_says_so(scene: Opener) -> None:
    """Half of the tasks take 20 s: a mean of those that ended would be 0.2 s until the first slow one ends."""
    pool = scene(worker={"concurrency": 2, "expectedTaskSeconds": 20.0})
    await pool.submit(100)
    await pool.tick()
    types = [TypeTime("quick", 0.5, 0.2), TypeTime("slow", 0.5)]
    await pool.beat("emails-0", running=2, mean_s=0.2, types=types)
    await pool.ticks(8)
    status = pool.cluster.statuses["emails"]
    assert "× 10.1 s (50 % quick of 0.2 s, 50 % slow not measured yet) / 5 s" in status["decision"]["message"]
    assert pool.replicas == 20
    [queue] = status["queues"]
    assert queue["meanTaskSeconds"] == status["meanTaskSeconds"] == "10.1"
    assert queue["types"] == [
        {"name": "quick", "percent": 50, "meanTaskSeconds": "0.2"},
        {"name": "slow", "percent": 50},
    ]
    work = Leading(pool.loop, cast("KubeCluster", pool.cluster))
    metrics = registry_for(lambda: work, lambda: True, Requests(cast("Any", None)))
    labels = {"namespace": KEY.namespace, "pool": "emails", "queue": "default"}
    assert metrics.get_sample_value("headrace_operator_task_seconds", labels | {"type": "quick"}) == pytest.approx(0.2)
    assert metrics.get_sample_value("headrace_operator_task_seconds", labels | {"type": "slow"}) is None


def test_long_means_are_no_powers_of_ten() -> None:
    assert mean_json(1_990.4) == {"meanTaskSeconds": "1990"}
    assert mean_json(None) == {}
