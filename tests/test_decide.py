"""decide(): the arithmetic by example, and its promises for any pool, load and history."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.broker.demand import TypeTime
from headrace_operator.decide import Decision, Reason, decide
from headrace_operator.history import At, History, remember
from headrace_operator.observed import Moment, Observed, QueueLoad, Unreadable
from headrace_operator.schedules import bounds, check_schedules
from headrace_operator.spec import InvalidSpec, PoolSpec, read_spec

WEDNESDAY_NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
LONG_AGO = History(since_s=-10_000.0)


def moment(s: float = 0.0) -> Moment:
    return Moment(s, WEDNESDAY_NOON)


def pool(**scaling: Any) -> PoolSpec:
    more = {name: scaling.pop(name) for name in ("mode", "replicas", "worker", "drain", "queues") if name in scaling}
    raw: dict[str, Any] = {"queues": [{"name": "default"}], "scaling": {"maxReplicas": 20, **scaling}}
    return read_spec(raw | more)


def seen(pending: int = 0, processing: int = 0, replicas: int = 0, **more: Any) -> Observed:
    of_queue = {name: more.pop(name) for name in ("due_soon", "task_s", "parked") if name in more}
    return Observed((QueueLoad("default", pending, processing, **of_queue),), replicas, **more)


def replicas(spec: PoolSpec, observed: Observed, history: History = LONG_AGO, at: float = 0.0) -> int:
    return decide(spec, observed, history, moment(at)).replicas


def test_the_arithmetic_is_told_in_words() -> None:
    """42 tasks of 1.4 s within half of 5 s need 23.52 slots, beside 3 that run."""
    decision = decide(pool(), seen(42, 3, replicas=1, task_s=1.4), LONG_AGO, moment())
    assert decision.replicas == 3
    assert decision.reason is Reason.QUEUE_WAIT
    assert decision.message == "42 pending × 1.4 s / 2.5 s + 3 processing = 26.52 slots, 10 a replica"


def test_from_zero_to_all_in_one_step() -> None:
    assert replicas(pool(), seen(1_000, task_s=1.0)) == 20


def test_one_task_wakes_one_replica() -> None:
    assert replicas(pool(), seen(1)) == 1


def test_a_task_that_is_due_soon_wakes_too() -> None:
    assert replicas(pool(), seen(due_soon=1)) == 1


def test_never_more_slots_than_tasks() -> None:
    """3 tasks of 100 s would like many slots; one replica of 10 holds them all."""
    decision = decide(pool(), seen(3, task_s=100.0), LONG_AGO, moment())
    assert (decision.replicas, decision.reason) == (1, Reason.SLOTS_PER_TASK)


def test_the_larger_of_both_targets_wins() -> None:
    spec = pool(targetTasksPerReplica=5, targetQueueWaitSeconds=300, worker={"concurrency": 1})
    decision = decide(spec, seen(100, task_s=0.1), LONG_AGO, moment())
    assert (decision.replicas, decision.reason) == (20, Reason.TASKS_PER_REPLICA)


def test_below_activation_a_pool_sleeps_on() -> None:
    decision = decide(pool(activationTasks=5), seen(4), LONG_AGO, moment())
    assert (decision.replicas, decision.reason) == (0, Reason.BELOW_ACTIVATION)
    assert replicas(pool(activationTasks=5), seen(5)) == 1
    assert replicas(pool(activationTasks=5), seen(4, replicas=1)) == 1, "an awake pool serves what is there"


def test_an_idle_pool_goes_to_zero_after_its_idle_seconds() -> None:
    idle = replace(LONG_AGO, idle_since_s=0.0)
    assert replicas(pool(idleSeconds=60), seen(replicas=1), idle, at=59.0) == 1
    assert replicas(pool(idleSeconds=60), seen(replicas=1), idle, at=60.0) == 0


def test_shrinking_waits_for_the_window() -> None:
    """15 were needed 20 s ago: nothing shrinks before 30 s are over."""
    past = replace(LONG_AGO, wants=(At(0.0, 15), At(1.0, 1)))
    decision = decide(pool(), seen(1, replicas=15), past, moment(20.0))
    assert (decision.replicas, decision.reason) == (15, Reason.STABILIZED)
    assert replicas(pool(), seen(1, replicas=15), past, at=30.5) == 7, "then by half a period of 15 s"


def test_half_in_a_period_counts_what_was_already_taken() -> None:
    taken = replace(LONG_AGO, steps=(At(0.0, -5),))
    assert replicas(pool(), seen(1, replicas=10), taken, at=14.0) == 7, "15 were there when the period began"
    assert replicas(pool(), seen(1, replicas=10), taken, at=16.0) == 5


def test_policies_for_growing() -> None:
    rules = {
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]
    }
    spec = pool(behavior={"scaleUp": rules})
    reached, now, history = [], 0, LONG_AGO
    for at in (0.0, 16.0, 32.0, 48.0):
        observed = seen(10_000, replicas=now)
        decision = decide(spec, observed, history, moment(at))
        history = remember(history, spec.scaling, observed, decision, at)
        now = decision.replicas
        reached.append(now)
    assert reached == [4, 8, 16, 20]


def test_a_disabled_direction_stands_still() -> None:
    spec = pool(behavior={"scaleDown": {"selectPolicy": "Disabled"}})
    assert replicas(spec, seen(replicas=5), replace(LONG_AGO, idle_since_s=-500.0)) == 5


def test_no_busy_replica_is_counted_out() -> None:
    decision = decide(pool(), seen(0, 4, replicas=8, busy=6), LONG_AGO, moment())
    assert (decision.replicas, decision.reason) == (6, Reason.BUSY)


def test_a_rollout_holds_what_is_there_but_may_grow() -> None:
    assert replicas(pool(), seen(0, replicas=3, rollout=True), replace(LONG_AGO, idle_since_s=-500.0)) == 3
    assert replicas(pool(), seen(1_000, replicas=3, rollout=True)) == 20


def test_a_fresh_operator_shrinks_nothing() -> None:
    fresh = History(since_s=0.0)
    decision = decide(pool(idleSeconds=0), seen(replicas=9), fresh, moment(29.0))
    assert (decision.replicas, decision.reason) == (9, Reason.RESTARTED)


@pytest.mark.parametrize("current", [0, 1, 7])
def test_an_error_is_never_zero(current: int) -> None:
    """Ten minutes of it change nothing."""
    history, spec = LONG_AGO, pool()
    for tick in range(600):
        observed = Observed(Unreadable("connection refused"), current)
        decision = decide(spec, observed, history, moment(tick))
        assert (decision.replicas, decision.reason) == (current, Reason.QUEUE_UNREACHABLE)
        history = remember(history, spec.scaling, observed, decision, tick)


def test_the_fallback_comes_after_its_threshold_also_at_zero() -> None:
    spec = pool(fallback={"failureThreshold": 3, "policy": "Static", "replicas": 2})
    blind = Observed(Unreadable("NOAUTH"), 0)
    assert replicas(spec, blind, replace(LONG_AGO, errors=1)) == 0
    assert replicas(spec, blind, replace(LONG_AGO, errors=2)) == 2


def test_at_least_does_not_shrink() -> None:
    spec = pool(fallback={"failureThreshold": 1, "policy": "AtLeast", "replicas": 2})
    assert replicas(spec, Observed(Unreadable("gone"), 7)) == 7


def test_a_dry_run_writes_no_fallback_either() -> None:
    spec = pool(mode="DryRun", fallback={"failureThreshold": 1, "policy": "Static", "replicas": 2})
    dry = decide(spec, Observed(Unreadable("gone"), 7), LONG_AGO, moment())
    assert (dry.replicas, dry.needed, dry.reason) == (7, 2, Reason.DRY_RUN)
    assert dry.message.startswith("mode DryRun: would be 2: the queues cannot be read")


def test_modes() -> None:
    assert replicas(pool(mode="Paused"), seen(1_000, replicas=3)) == 3
    assert replicas(pool(mode="External", replicas=4), seen(1_000, replicas=9)) == 4
    dry = decide(pool(mode="DryRun"), seen(1_000, replicas=3), LONG_AGO, moment())
    assert (dry.replicas, dry.needed, dry.reason) == (3, 40, Reason.DRY_RUN)


def test_a_grant_caps() -> None:
    decision = decide(pool(), seen(1_000, granted=4), LONG_AGO, moment())
    assert (decision.replicas, decision.reason) == (4, Reason.CAPPED)


def test_a_grant_caps_a_number_that_somebody_names_too() -> None:
    decision = decide(pool(mode="External", replicas=9), seen(granted=4), LONG_AGO, moment())
    assert (decision.replicas, decision.reason, decision.limited) == (4, Reason.CAPPED, True)
    assert decide(pool(mode="External", replicas=4), seen(granted=4), LONG_AGO, moment()).reason is Reason.EXTERNAL


def test_queues_are_summed_each_by_its_own_target() -> None:
    spec = pool(queues=[{"name": "fast", "targetQueueWaitSeconds": 2}, {"name": "slow", "targetQueueWaitSeconds": 200}])
    load = (QueueLoad("fast", 20, task_s=1.0), QueueLoad("slow", 1_000, task_s=1.0))
    decision = decide(spec, Observed(load, 0), LONG_AGO, moment())
    assert decision.replicas == 3
    assert decision.message.startswith("20 pending × 1 s / 1 s + 1000 pending × 1 s / 100 s = 30 slots")


OFFICE = {
    "name": "office",
    "start": "0 8 * * 1-5",
    "end": "0 19 * * 1-5",
    "timeZone": "Europe/Berlin",
    "minReplicas": 3,
}


def test_a_schedule_lifts_the_floor_by_its_own_clock() -> None:
    scaling = pool(schedules=[OFFICE]).scaling

    def floor(hour: int, minute: int = 0) -> int:
        return bounds(scaling, datetime(2026, 11, 25, hour, minute, tzinfo=UTC)).least

    assert [floor(6, 59), floor(7, 0), floor(17, 59), floor(18, 0)] == [0, 3, 3, 0]
    assert bounds(scaling, datetime(2026, 11, 28, 12, 0, tzinfo=UTC)).least == 0, "Saturday"


def test_where_floor_and_cap_cross_the_cap_holds() -> None:
    night = {"name": "night", "start": "0 0 * * *", "end": "0 0 1 1 *", "maxReplicas": 1}
    found = bounds(pool(schedules=[OFFICE, night]).scaling, WEDNESDAY_NOON)
    assert (found.least, found.most, found.because) == (1, 1, ("office", "night"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "sometimes"}, "spec.scaling.schedules[office].start: 'sometimes' is no cron expression"),
        (
            {"start": "0 0 8 * * 1"},
            "spec.scaling.schedules[office].start: '0 0 8 * * 1' is no cron expression (it has 6",
        ),
        ({"timeZone": "Mars/Olympus"}, "spec.scaling.schedules[office].timeZone: 'Mars/Olympus' is no time zone"),
        ({"timeZone": "../../etc/passwd"}, "is no time zone"),
    ],
)
def test_a_schedule_nobody_can_read_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        check_schedules(pool(schedules=[{**OFFICE, **change}]).scaling)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "spec: Object missing required field `queues`"),
        ({"queues": [], "scaling": {"maxReplicas": 1}}, "`$.queues`"),
        ({"queues": [{"name": "a"}], "scaling": {}}, "maxReplicas"),
        ({"queues": [{"name": "A b"}], "scaling": {"maxReplicas": 1}}, "$.queues[0].name"),
        (
            {"queues": [{"name": "A b"}], "scaling": {"maxReplicas": 1}},
            "spec: Expected 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends, as in image-resize - at",
        ),
        ({"queues": [{"name": "a"}, {"name": "a"}], "scaling": {"maxReplicas": 1}}, "spec.queues"),
        ({"queues": [{"name": "a"}], "scaling": {"maxReplicas": 1, "minReplicas": 2}}, "above maxReplicas 1"),
        (
            {"queues": [{"name": "a"}], "scaling": {"maxReplicas": 1, "fallback": {"replicas": 2}}},
            "fallback.replicas 2",
        ),
        ({"queues": [{"name": "a"}], "scaling": {"maxReplicas": 1}, "mode": "auto"}, "$.mode"),
    ],
)
def test_a_bad_spec_names_its_field(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        read_spec(raw)
    assert words in str(error.value)


loads = st.builds(
    QueueLoad, st.just("default"), st.integers(0, 5_000), st.integers(0, 500), st.integers(0, 50),
    task_s=st.none() | st.floats(0.001, 600),
)  # fmt: skip
ats = st.builds(At, st.floats(-60, 0), st.integers(0, 30))
changes = st.builds(At, st.floats(-60, 0), st.integers(-9, 9))
histories = st.builds(
    History,
    st.floats(-1_000, 0),
    st.lists(ats, max_size=5).map(tuple),
    st.lists(changes, max_size=5).map(tuple),
    st.none() | st.floats(-200, 0),
)
specs = st.builds(
    lambda least, most, idle: pool(minReplicas=min(least, most), maxReplicas=most, idleSeconds=idle),
    st.integers(0, 10), st.integers(1, 30), st.sampled_from([0, 60]),
)  # fmt: skip


@given(specs, loads, st.integers(0, 40), histories, st.booleans(), st.integers(0, 40))
def test_promises_of_every_decision(
    spec: PoolSpec, load: QueueLoad, current: int, history: History, rollout: bool, busy: int
) -> None:
    observed = Observed((load,), current, busy=min(busy, current), rollout=rollout)
    decision = decide(spec, observed, history, moment())
    tasks = load.waiting + load.processing
    assert spec.scaling.min_replicas <= decision.replicas <= spec.scaling.max_replicas
    assert decision.needed <= math.ceil(tasks / spec.worker.concurrency)
    assert (decision.needed > 0) == (tasks > 0)
    assert decision.message
    if tasks:
        assert decision.replicas > 0, "work never meets zero"
    if decision.replicas < min(current, spec.scaling.max_replicas):
        assert not rollout
        assert decision.replicas >= observed.busy or decision.replicas == spec.scaling.min_replicas
        assert history.since_s <= -30, "a fresh operator shrinks nothing"


def test_the_words_say_what_the_mix_is_made_of() -> None:
    types = (TypeTime("resize", 0.8, 0.25), TypeTime("video", 0.2, 5.0))
    now = Observed((QueueLoad("default", 100, task_s=1.2, types=types),), 1)
    decision = decide(pool(), now, LONG_AGO, moment())
    assert decision.message.startswith(
        "100 pending × 1.2 s (80 % resize of 0.25 s, 20 % video of 5 s) / 2.5 s = 48 slots, 10 a replica"
    )


@given(loads, st.integers(1, 1_000), st.integers(0, 40))
def test_more_work_never_means_fewer_replicas(load: QueueLoad, more: int, current: int) -> None:
    spec = pool(maxReplicas=1_000)
    less = decide(spec, Observed((load,), current), LONG_AGO, moment())
    grown = replace(load, pending=load.pending + more)
    assert decide(spec, Observed((grown,), current), LONG_AGO, moment()).needed >= less.needed


@given(specs, st.lists(st.tuples(loads, st.floats(0.5, 5)), min_size=5, max_size=40))
def test_a_run_of_ticks_never_flaps_within_its_window(spec: PoolSpec, ticks: list[tuple[QueueLoad, float]]) -> None:
    """After a growth, nothing shrinks below what was needed in the last 30 s (but by a cap)."""
    history, now, current = History(since_s=0.0), 0.0, 0
    wanted: list[tuple[float, Decision]] = []
    for load, passed in ticks:
        now += passed
        observed = Observed((load,), current)
        decision = decide(spec, observed, history, moment(now))
        if decision.replicas < current:
            recent = [seen.needed for at, seen in wanted if at >= now - 30]
            assert decision.replicas >= min(max(recent, default=0), spec.scaling.max_replicas, current - 1)
        history = remember(history, spec.scaling, observed, decision, now)
        wanted.append((now, decision))
        current = decision.replicas


def test_what_a_behavior_does_not_say_keeps_its_default() -> None:
    """As the API server fills it in, also where there is none."""
    rules = pool(behavior={"scaleDown": {"stabilizationWindowSeconds": 5}}).scaling.behavior.scale_down
    assert [policy.value for policy in rules.policies] == [50]
