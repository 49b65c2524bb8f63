"""The models of others: KEDA and the HPA by their published formulas and by the measured runs; the oracle by force."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.autoscaling.check import BURST, NODE, Row, at_best, by_default, rows
from bench.autoscaling.policies.keda import TUNED, Behavior, Keda, Limit
from bench.autoscaling.policies.oracle import foresee
from bench.autoscaling.pool import Pool, Setting
from bench.autoscaling.starts import Lognormal
from bench.autoscaling.workloads import Workload

ROWS = rows()


def numbers(keda: Keda, workload: Workload = BURST) -> list[int]:
    """The replicas, write by write, on the way up."""
    pool = Pool(workload, Setting(NODE))
    keda.attach(pool, Random(0))
    return [after for _, before, after in pool.run().writes if after > before]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.run}: {row.figure}")
def test_the_model_agrees_with_what_was_measured(row: Row) -> None:
    assert row.off <= 0.15, f"measured {row.measured}, modelled {row.model}"


def test_steps_of_an_hpa_as_measured() -> None:
    assert numbers(by_default(1.0)) == [1, 4, 8, 16, 20]
    assert numbers(at_best(1.0, 5.0)) == [1, 10, 20]
    assert numbers(at_best(1.0, 5.0, TUNED)) == [1, 20]


def test_steps_of_an_hpa_with_the_published_default_behavior() -> None:
    """4 pods or 100 % in 15 s, the larger."""
    lasting = Workload("400 × 60 s", ((0.0, 60.0),) * 400, 150.0)
    behavior = Behavior((Limit("Percent", 100), Limit("Pods", 4)), 300.0)
    assert numbers(Keda(1, poll_s=1.0, behavior=behavior), lasting) == [1, 5, 10, 20]


def test_within_the_tolerance_nothing_changes() -> None:
    """At 4 tasks a pod, 10 pods, 44 tasks: ratio 1.1, so none is added; 45 are worth two more."""
    for tasks, expected in ((44, [10]), (45, [10, 12])):
        pool = Pool(Workload("long", ((0.0, 50.0),) * tasks, 20.0), Setting(NODE))
        pool.agenda.at(0.5, lambda pool=pool: pool.scale(10))  # type: ignore[misc]
        Keda(4, behavior=Behavior(TUNED), poll_at_s=29.0, sync_at_s=14.0).attach(pool, Random(0))
        writes = [after for s, _, after in pool.run().writes if s < 20]
        assert writes == expected


def test_from_zero_one_pod_whatever_waits() -> None:
    pool = Pool(BURST, Setting(NODE))
    Keda(1, poll_at_s=3.0, sync_at_s=14.0).attach(pool, Random(0))
    assert pool.run().writes[0] == (3.0, 0, 1)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=1, max_size=8),
    st.integers(1, 3), st.integers(1, 6),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_nobody_serves_like_the_oracle_for_less(tasks: list[tuple[int, int]], pods: int, start_s: int) -> None:
    """Against every way to have as many pods as it needs, second by second."""
    work = tuple(sorted((float(at), float(seconds)) for at, seconds in tasks))
    record = foresee(Workload("any", work, 100.0), Setting(Lognormal(), max_pods=pods), pods, float(start_s))
    paid_s = sum(gone - made for made, gone in record.lives)
    needed = [
        sum(began <= s < ended for began, ended in zip(record.began_s, record.ended_s, strict=True)) for s in range(90)
    ]
    assert paid_s == cheapest(needed, pods, start_s)
    assert max(needed) <= pods


def cheapest(needed: list[int], pods: int, start_s: int) -> float:
    """By force: the least that pods cost, of which there are never fewer than needed."""
    best = {0: 0.0}
    for least in needed:
        best = {
            now: min(cost + now + start_s * max(0, now - before) for before, cost in best.items())
            for now in range(least, pods + 1)
        }
    return min(best.values())
