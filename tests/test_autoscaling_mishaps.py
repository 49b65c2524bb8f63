"""What goes wrong in the simulation: Redis or whoever decides is away, and tasks are cancelled by the hundred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.autoscaling.metrics import figures
from bench.autoscaling.mishaps import NO_MISHAPS, Cancellation, Mishaps, Span
from bench.autoscaling.policies import Policy
from bench.autoscaling.policies.keda import TUNED, Behavior, Keda
from bench.autoscaling.policies.oracle import foresee
from bench.autoscaling.policies.ours import Ours
from bench.autoscaling.policies.peers import Dask, Fixed, Kpa
from bench.autoscaling.pool import Pool, Record, Setting
from bench.autoscaling.starts import Lognormal
from bench.autoscaling.workloads import PATTERNS, Workload

EAGER = {"idleSeconds": 0, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
POLICIES: dict[str, Policy] = {
    "ours": Ours(EAGER),
    "keda": Keda(1, poll_s=1.0, cooldown_s=5.0, behavior=Behavior(TUNED, 0.0)),
    "kpa": Kpa(),
    "dask": Dask(),
    "fixed": Fixed(2),
}
AWAY = Span(20.0, 60.0)
AT_ONCE = Setting(Lognormal(1.0, sigma=0.0), max_pods=20)
"""Every pod starts in a second."""
tasks = st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 30)), min_size=1, max_size=40)
Tasks = Sequence[tuple[float, float]]


def simulate(policy: Policy, work: Tasks, mishaps: Mishaps, setting: Setting = AT_ONCE) -> Record:
    pool = Pool(Workload("any", tuple(sorted(work)), 200.0, mishaps), setting)
    policy.attach(pool, Random(setting.seed))
    return pool.run()


# -- Redis is away


@pytest.mark.parametrize("name", POLICIES)
@given(work=tasks)
@settings(max_examples=25, deadline=None)
def test_while_redis_is_away_nothing_begins_and_nobody_decides(name: str, work: Tasks) -> None:
    record = simulate(POLICIES[name], work, Mishaps(redis_away=(AWAY,)))
    assert not any(AWAY.holds(s) for s in record.began_s)
    assert not any(AWAY.holds(s) for s, _, _ in record.writes)
    assert not any(math.isnan(s) for s in record.ended_s), "every task is run all the same"


def test_who_waits_for_redis_waits_from_when_it_was_due() -> None:
    work = ((0.0, 1.0), (30.0, 1.0), (59.0, 1.0))
    record = simulate(Fixed(2), work, Mishaps(redis_away=(AWAY,)))
    assert record.began_s == [1.0, 60.0, 60.0]
    workload = Workload("any", work, 100.0)
    assert figures(workload, AT_ONCE, record, target_s=2.0).wait_max_s == 30.0


def test_what_runs_when_redis_goes_ends_and_its_slot_is_free_when_redis_is_back() -> None:
    record = simulate(Fixed(1), ((10.0, 15.0), (11.0, 1.0)), Mishaps(redis_away=(AWAY,)))
    assert (record.ended_s[0], record.began_s[1]) == (25.0, 60.0)


@pytest.mark.parametrize(("mishaps", "heard"), [(NO_MISHAPS, [True, True]), (Mishaps((AWAY,)), [False, True])])
def test_a_worker_hears_that_it_should_drain_when_redis_is_back(mishaps: Mishaps, heard: list[bool]) -> None:
    """It is asked just before Redis goes."""
    pool = Pool(Workload("any", ((0.0, 1.0),), 100.0, mishaps), AT_ONCE)
    Fixed(1).attach(pool, Random(0))
    seen: list[bool] = []
    pool.agenda.at(19.999, lambda: pool.ask(pool.pods[0]))
    for s in (59.9, 60.1):
        pool.agenda.at(s, lambda: seen.append(pool.pods[0].draining))
    pool.run()
    assert seen == heard


# -- nobody decides


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "fixed"])
@given(work=tasks)
@settings(max_examples=25, deadline=None)
def test_while_nobody_decides_the_number_stays_and_workers_go_on(name: str, work: Tasks) -> None:
    record = simulate(POLICIES[name], work, Mishaps(decider_away=(AWAY,)))
    assert not any(AWAY.holds(s) for s, _, _ in record.writes)
    assert not any(math.isnan(s) for s in record.ended_s)


def test_workers_claim_while_nobody_decides() -> None:
    record = simulate(POLICIES["ours"], [(0.0, 1.0), (30.0, 1.0)], Mishaps(decider_away=(Span(1.5, 60.0),)))
    assert record.began_s[1] == 30.0


def test_after_a_restart_ours_looks_on_for_its_window_before_it_shrinks_anything() -> None:
    def first_down_s(mishaps: Mishaps) -> float:
        record = simulate(Ours({}), [(0.0, 5.0)] * 20, mishaps)
        return next(s for s, before, after in record.writes if after < before)

    assert 35 < first_down_s(NO_MISHAPS) < 40
    assert 62 < first_down_s(Mishaps(decider_away=(Span(20.0, 32.0),))) < 66


def test_after_a_restart_ours_has_forgotten_how_long_tasks_take() -> None:
    """At zero no worker is left who could tell it."""
    work = [(float(s), 0.05) for s in range(20)] + [(100.0, 0.05)] * 20
    counts = []
    for mishaps in (NO_MISHAPS, Mishaps(decider_away=(Span(80.0, 90.0),))):
        record = simulate(Ours(EAGER), work, mishaps)
        counts.append(next(after for s, before, after in record.writes if s > 90 and after > before))
    assert counts == [1, 8], "20 of 0.05 s, and 20 of the second that is expected of what nobody knows"


def test_knatives_rule_shrinks_nothing_after_a_restart_before_it_has_looked_on() -> None:
    work = [(0.0, 5.0)] * 20
    record = simulate(Kpa(), work, Mishaps(decider_away=(Span(20.0, 40.0),)))
    assert min(s for s, before, after in record.writes if after < before) >= 100.0


# -- cancelled


def test_what_waits_is_gone_when_it_is_cancelled_and_counts_in_no_figure() -> None:
    work = ((0.0, 4.0), (0.1, 3.0), (0.2, 2.0), (0.3, 2.0))
    mishaps = Mishaps(cancellations=(Cancellation(2.0, frozenset({0, 1, 2})),))
    record = simulate(Fixed(1), work, mishaps)
    assert record.ended_s[0] == 5.0, "what runs goes on"
    assert record.starts == [1, 0, 0, 1]
    assert record.began_s[3] == 5.0
    found = figures(Workload("any", work, 50.0, mishaps), AT_ONCE, record, target_s=1.0)
    assert (found.wait_p50_s, found.wait_max_s, found.late) == (4.7, 4.7, 1.0)
    assert found.cost == pytest.approx(200.0 / 2.0), "one pod for 200 s, and the one task that was wanted"


def test_who_was_cancelled_and_is_interrupted_does_not_begin_anew() -> None:
    """20 pods of which 19 are taken away at 3 s, whatever they run."""
    mishaps = Mishaps(cancellations=(Cancellation(2.0, frozenset(range(10))),))
    pool = Pool(Workload("any", ((0.0, 8.0),) * 20, 50.0, mishaps), Setting(Lognormal(1.0, 0.0), grace_s=0.0))
    for s, number in ((0.0, 20), (3.0, 1)):
        pool.agenda.at(s, lambda number=number: pool.scale(number))  # type: ignore[misc]
    record = pool.run()
    assert record.interrupted == 19
    assert sum(began > 1 for began in record.starts) in {9, 10}, "all but the one that went on"
    assert all(began == 1 for began in record.starts[:10])


def test_the_oracle_skips_what_is_cancelled_before_it_would_begin_and_waits_for_redis() -> None:
    mishaps = Mishaps((Span(3.0, 10.0),), (), (Cancellation(2.0, frozenset({0, 1})),))
    record = foresee(Workload("any", ((0.0, 4.0), (0.1, 4.0), (0.2, 1.0)), 50.0, mishaps), AT_ONCE, 1, 1.0)
    assert [record.began_s[0], record.began_s[2]] == [0.0, 10.0]
    assert math.isnan(record.began_s[1])


# -- the patterns


@pytest.mark.parametrize("name", ["outage", "restart", "cancel"])
def test_a_pattern_has_the_same_mishaps_for_every_policy_and_others_by_another_seed(name: str) -> None:
    first, again, other = (PATTERNS[name].workload(name, seed).mishaps for seed in (1, 1, 2))
    assert first == again != NO_MISHAPS
    assert first != other


def test_a_storm_takes_four_fifths_of_each_burst() -> None:
    workload = PATTERNS["cancel"].workload("cancel", 1)
    assert [len(each.tasks) for each in workload.mishaps.cancellations] == [800, 800]
    assert workload.work_s == 400.0
    for each in workload.mishaps.cancellations:
        assert {each.at_s - workload.tasks[task][0] for task in each.tasks} == {20.0}


def test_who_decides_is_away_about_when_each_flood_begins() -> None:
    spans = PATTERNS["restart"].workload("restart", 1).mishaps.decider_away
    assert len(spans) == 4
    assert all(-8 <= span.begin_s - flood_s <= 4 for span, flood_s in zip(spans, (420, 900, 1380, 1860), strict=True))
