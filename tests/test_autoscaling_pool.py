"""The simulated pool: the same by its seed, no task lost or run twice, and what a drain promises."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.autoscaling.catalogue import CATALOGUE, DEFAULT, KEDA_BEST, KEDA_USUAL, ORACLE, OURS, Foresight, Job, run
from bench.autoscaling.elasticity import elasticity, reached_s
from bench.autoscaling.metrics import figures
from bench.autoscaling.pods import Pod
from bench.autoscaling.policies import Policy
from bench.autoscaling.policies.keda import TUNED, Behavior, Keda
from bench.autoscaling.policies.ours import Ours
from bench.autoscaling.policies.peers import Dask, Fixed, Kpa
from bench.autoscaling.pool import Pool, Record, Setting
from bench.autoscaling.starts import Lognormal
from bench.autoscaling.workloads import PATTERNS, Workload

ROOT = Path(__file__).parent.parent
POLICIES: dict[str, Policy] = {
    "ours": Ours({"idleSeconds": 5, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}),
    "keda": Keda(1, poll_s=1.0, cooldown_s=5.0, behavior=Behavior(TUNED, 0.0)),
    "kpa": Kpa(),
    "dask": Dask(),
    "fixed": Fixed(3),
}
workloads = st.builds(
    lambda tasks: Workload("any", tuple(sorted(tasks)), 150.0),
    st.lists(st.tuples(st.floats(0, 120), st.floats(0.01, 60)), min_size=1, max_size=60),
)
pools = st.builds(
    Setting, st.builds(Lognormal, st.floats(0.1, 30)), st.integers(1, 8), st.integers(1, 4),
    grace_s=st.sampled_from([0.0, 10.0]), seed=st.integers(0, 1_000),
)  # fmt: skip


def simulate(policy: Policy, workload: Workload, setting: Setting) -> Record:
    pool = Pool(workload, setting)
    policy.attach(pool, Random(setting.seed))
    return pool.run()


@pytest.mark.parametrize("name", POLICIES)
@given(workload=workloads, setting=pools)
@settings(max_examples=25, deadline=None)
def test_every_task_ends_once_and_no_work_is_free(name: str, workload: Workload, setting: Setting) -> None:
    record = simulate(POLICIES[name], workload, setting)
    for (arrived_s, seconds), began_s, ended_s in zip(workload.tasks, record.began_s, record.ended_s, strict=True):
        assert arrived_s <= began_s
        assert ended_s == pytest.approx(began_s + seconds)
    assert sum(record.starts) == len(workload.tasks) + record.interrupted
    assert min(record.starts) == 1
    paid_s = sum(gone - made for made, gone in record.lives) * setting.slots
    assert paid_s >= workload.work_s + record.wasted_s - 1e-6


@given(workload=workloads, setting=pools)
@settings(max_examples=25, deadline=None)
def test_no_pod_runs_more_tasks_than_it_has_slots(workload: Workload, setting: Setting) -> None:
    record = simulate(POLICIES["ours"], workload, setting)
    for pod in set(record.pods):
        mine = [task for task, number in enumerate(record.pods) if number == pod]
        changes = sorted([(record.began_s[task], 1) for task in mine] + [(record.ended_s[task], -1) for task in mine])
        assert max(accumulate(change for _, change in changes)) <= setting.slots


@given(workload=workloads, setting=pools, window=st.sampled_from([0, 15]), idle=st.sampled_from([0, 20]))
@settings(max_examples=60, deadline=None)
def test_ours_interrupts_nothing(workload: Workload, setting: Setting, window: int, idle: int) -> None:
    """Not even where a pod that is stopped ends at once."""
    ours = Ours({"idleSeconds": idle, "behavior": {"scaleDown": {"stabilizationWindowSeconds": window}}})
    assert simulate(ours, workload, setting).interrupted == 0


def test_the_same_drain_under_keda_does() -> None:
    """So the test above has something to find."""
    assert run(Job("long", KEDA_BEST, KEDA_USUAL, 0)).interrupted > 10
    assert run(Job("long", OURS, DEFAULT, 0)).interrupted == 0


def test_a_seed_says_it_all() -> None:
    """Also in another process, whatever the order of its sets."""
    job = Job("flash", OURS, DEFAULT, 3)
    script = f"from bench.autoscaling.catalogue import Job, run; print(run({job!r}))"
    other = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(run(job))
    assert run(Job("flash", OURS, DEFAULT, 4)) != run(job)


def test_a_pod_is_known_by_its_beats() -> None:
    pod = Pod(0, born_s=0.0, slots=1, phase_s=0.25, ready_s=0.0)
    pod.begin(7, 3.5)
    assert [pod.told(s).running for s in (3.5, 4.24, 4.26)] == [0, 0, 1]
    pod.end(7, 4.3)
    pod.begin(8, 4.4)
    pod.end(8, 4.5)
    assert [pod.told(s).running for s in (4.6, 5.24, 5.26)] == [1, 1, 0], "what came and went between beats is not told"


def test_beats_tell_how_long_tasks_take() -> None:
    """As the worker counts it: nothing before one ended, then a mean in which the newest weighs a tenth."""
    pod = Pod(0, born_s=0.0, slots=1, phase_s=0.0, ready_s=0.0)
    pod.begin(1, 0.5)
    assert pod.told(1.0).mean_s is None
    pod.end(1, 1.5)
    assert [pod.told(s).mean_s for s in (1.9, 2.0)] == [None, 1.0]
    pod.begin(2, 2.5)
    pod.end(2, 5.5)
    assert pod.told(6.0).mean_s == pytest.approx(1.2)
    assert [each.share for each in pod.told(6.0).types] == [1.0]


def test_a_day_of_one_pool() -> None:
    """86,400 s with four busy hours, in seconds of a processor."""
    random = Random(1)
    tasks = tuple(sorted((random.triangular(28_800, 43_200), random.expovariate(1.0)) for _ in range(17_000)))
    began_s = time.process_time()
    record = simulate(Ours({}), Workload("day", tasks, 86_400.0), Setting(Lognormal()))
    assert not any(math.isnan(s) for s in record.ended_s)
    assert time.process_time() - began_s < 30


@pytest.mark.parametrize("pattern", ["burst", "square", "tail", "long", "outage", "restart", "cancel"])
def test_nobody_waits_less_than_who_foresees(pattern: str) -> None:
    """The bound of the picture: sorted waits, one by one, against every other policy as it comes."""
    seen = run(Job(pattern, ORACLE, "20 pods", 1))
    for policy, variants in CATALOGUE.items():
        knobs = next(iter(variants))
        if isinstance(variants[knobs], Foresight):
            continue
        other = run(Job(pattern, policy, knobs, 1))
        assert seen.wait_p50_s <= other.wait_p50_s + 1e-9
        assert seen.wait_p95_s <= other.wait_p95_s + 1e-9
        assert seen.wait_mean_s <= other.wait_mean_s + 1e-9


def test_metrics_by_hand() -> None:
    """One pod from 0 to 10 s, ready at 2; tasks of 2 s at 0 and 3: the first waits 2, the second 1."""
    workload = Workload("two", ((0.0, 2.0), (3.0, 2.0)), 10.0)
    record = Record([2.0, 4.0], [4.0, 6.0], [1, 1], [0, 0])
    record.lives, record.ready = [(0.0, 10.0)], [(2.0, 1), (10.0, -1)]
    record.writes = [(0.0, 0, 1), (10.0, 1, 0)]
    found = figures(workload, Setting(Lognormal(), max_pods=10), record, target_s=1.5)
    assert (found.wait_p50_s, found.wait_p95_s, found.late) == (1.0, 2.0, 0.5)
    assert found.wait_max_s == 2.0
    assert (found.cost, found.writes, found.reversals) == (2.5, 2, 1)
    assert (found.first_pod_s, found.most_pods_s) == (2.0, math.inf), "there were never 9 of 10"
    assert (found.under, found.under_time) == pytest.approx((0.02, 0.2))
    assert (found.over, found.over_time) == pytest.approx((0.06, 0.6))


def test_what_moved_in_another_way_than_what_was_needed() -> None:
    """In steps of 15 s: needed 1, 0, 0, 0; there are 0, 1, 1, 0. Only in the third neither moves."""
    workload = Workload("one", ((5.0, 15.0),), 60.0)
    record = Record([20.0], [35.0], [1], [0], ready=[(20.0, 1), (50.0, -1)])
    assert elasticity(workload, Setting(Lognormal()), record).instability == 0.75


def test_nearly_all_pods_are_there_when_so_many_could_work_at_once() -> None:
    """Not when so many have been."""
    workload = Workload("one", ((5.0, 1.0),), 60.0)
    record = Record([6.0], [7.0], [1], [0], ready=[(6.0, 1), (8.0, -1), (9.0, 1), (30.0, 1)])
    assert [reached_s(workload, record, pods) for pods in (1, 2, 3)] == [1.0, 25.0, math.inf]


def test_who_is_woken_sees_what_came_in_one_batch() -> None:
    pool = Pool(Workload("batch", ((3.0, 1.0),) * 400, 60.0), Setting(Lognormal()))
    Ours({}).attach(pool, Random(1))
    written_s, before, after = pool.run().writes[0]
    assert (before, after) == (0, 20)
    assert written_s == pytest.approx(3.015)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_are_in_order_and_by_seed(name: str) -> None:
    one, same, other = (PATTERNS[name].workload(name, seed) for seed in (1, 1, 2))
    assert one == same
    assert one.tasks != other.tasks
    assert list(one.tasks) == sorted(one.tasks)
    assert all(seconds > 0 for _, seconds in one.tasks)
    assert one.work_s / 20 < one.horizon_s, "20 pods can do it"
