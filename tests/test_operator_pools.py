"""The bench of the operator: what it reads and makes of it; and once all of it, small, on a real API server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import operator_pools
from bench.errors import MeasureError
from bench.operator_figures import (
    Cost,
    Crowd,
    Reading,
    Round,
    buckets,
    caught_up,
    cost,
    milliseconds,
    reachable,
    samples,
    total,
    waves,
    within,
)
from bench.operator_lag import Numbers, watching
from bench.operator_pools import PARTS, Plan
from bench.operator_rig import NAMESPACE, OTHER, Cluster, Pools, labelled_pods
from cluster import programs
from control_plane import ControlPlane

ROOT = Path(__file__).parent.parent
MANY = 520
METRICS = """\
# HELP headrace_operator_api_requests_total Requests to the API server; code 0 = no answer.
headrace_operator_api_requests_total{verb="GET",resource="apis",code="200"} 2.0
headrace_operator_api_requests_total{verb="POST",resource="events",code="201"} 40.0
headrace_operator_reconcile_total 7.0
headrace_operator_queue_reachable{namespace="a",pool="x"} 1.0
headrace_operator_queue_reachable{namespace="a",pool="y"} 0.0
headrace_operator_reconcile_duration_seconds_bucket{le="0.005"} 90.0
headrace_operator_reconcile_duration_seconds_bucket{le="0.1"} 99.0
headrace_operator_reconcile_duration_seconds_bucket{le="+Inf"} 100.0
headrace_operator_reconcile_duration_seconds_count 100.0
headrace_operator_reconcile_duration_seconds_sum 2.5
"""


def test_samples_of_one_name_only() -> None:
    assert samples(METRICS, "headrace_operator_reconcile_total") == [("", 7.0)]
    assert total(METRICS, "headrace_operator_api_requests_total") == 42.0
    assert total(METRICS, "headrace_operator_api_requests") == 0.0
    assert reachable(METRICS) == 1


def test_quantile_of_ticks_is_of_those_since_the_first_look() -> None:
    seen = buckets(METRICS)
    assert seen == {0.005: 90.0, 0.1: 99.0, float("inf"): 100.0}
    assert [within({}, seen, share) for share in (0.9, 0.99, 1.0)] == [0.005, 0.1, float("inf")]
    assert within({0.005: 90.0, 0.1: 90.0, float("inf"): 91.0}, seen, 0.99) == 0.1
    assert within(seen, seen, 0.99) == 0.0, "there was no tick"


def test_cost_is_what_grew_by_the_second_and_by_the_tick() -> None:
    later = METRICS.replace("_count 100.0", "_count 120.0").replace("_sum 2.5", "_sum 3.5").replace("} 40.0", "} 45.0")
    found = cost(Reading(100.0, 3.0, 1.0, 500, METRICS), Reading(110.0, 3.5, 1.2, 700, later))
    assert found.cpu == pytest.approx(5.0)
    assert found.redis_cpu == pytest.approx(2.0)
    assert (found.commands, found.requests, found.ticks, found.tick_ms) == (20.0, 0.5, 2.0, 50.0)
    assert found.cpu_ms_a_tick == pytest.approx(25.0)


def test_without_a_tick_nothing_is_divided() -> None:
    found = cost(Reading(0.0, 0.0, 0.0, 0, METRICS), Reading(1.0, 0.1, 0.0, 0, METRICS))
    assert (found.ticks, found.tick_ms, found.cpu_ms_a_tick) == (0.0, 0.0, 0.0)


def idle(cpu: float = 5.0, redis_cpu: float = 3.0, ticks: float = 2.0) -> Cost:
    return Cost(60.0, cpu, redis_cpu, 10.0, 0.5, ticks, 4.0, 10.0)


def test_redis_costs_a_tick_what_beats_alone_do_not() -> None:
    assert Crowd(10, 10.0, idle(redis_cpu=30.0), 20.0, 100.0).redis_ms_a_tick == pytest.approx(50.0)
    assert Crowd(10, 10.0, idle(redis_cpu=19.0), 20.0, 100.0).redis_ms_a_tick == 0.0, "noise is no gain"


def test_percentiles_are_times_that_occurred() -> None:
    assert [milliseconds([0.1, 0.0012, 0.003], share) for share in (0.5, 0.99)] == [3, 100]


@pytest.mark.parametrize(
    ("pools", "most", "each", "expected"),
    [
        (1, 100, 3, [["0"], ["0"], ["0"]]),
        (3, 100, 2, [["0", "1", "2"], ["0", "1", "2"]]),
        (3, 5, 2, [["0", "1", "2"], ["0", "1"]]),
        (8, 4, 20, [["0", "2", "4", "6"]]),
        (3, 3, 20, [["0", "1", "2"]]),
    ],
)
def test_submissions_are_spread_and_come_back_no_more_often_than_they_may(
    pools: int, most: int, each: int, expected: list[list[str]]
) -> None:
    assert waves([str(number) for number in range(pools)], most, each) == expected


def test_every_second_pool_is_on_the_other_redis() -> None:
    connections = {each["metadata"]["name"]: each["spec"]["redis"]["connection"] for each in Pools(3).resources()}
    assert connections == {"pool-0000": "default", "pool-0001": OTHER, "pool-0002": "default"}
    assert Pools(1).others == []


def test_a_pod_on_its_way_out_is_no_workers() -> None:
    def pod(name: str, **more: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": {"pool": "emails"}, **more}}

    leaving = pod("emails-1", deletionTimestamp="2026-11-29T12:00:00Z")
    assert labelled_pods([pod("emails-0"), leaving], "pool") == {"emails": "emails-0"}


def test_idle_pools_are_measured_when_the_controllers_have_seen_them_all() -> None:
    def shown(generation: int, **status: int) -> dict[str, Any]:
        return {"metadata": {"generation": generation}, "status": status}

    assert caught_up([shown(1, observedGeneration=1), shown(2, observedGeneration=2)], 2)
    assert not caught_up([shown(1, observedGeneration=1)], 2), "one is not made yet"
    assert not caught_up([shown(1, observedGeneration=1), shown(2, observedGeneration=1)], 2)
    assert not caught_up([shown(1, observedGeneration=1), shown(1)], 2)


async def test_numbers_are_waited_for_until_the_watch_has_told_all() -> None:
    numbers = Numbers()
    numbers.saw("emails 0")
    waiting = asyncio.create_task(numbers.until(["emails", "images"], zero=True))
    await asyncio.sleep(0)
    assert not waiting.done(), "nothing is known of the other"
    numbers.saw("images 0")
    await waiting
    numbers.saw("emails 3")
    await numbers.until(["emails"], zero=False)
    with pytest.raises(MeasureError, match=r"not at zero within 0 s: emails"):
        await numbers.until(["emails"], zero=True, timeout_s=0.01)


def test_the_table_tells_goals_and_leaves_out_what_was_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    many = Round(1_000, 161.4, idle(), {"lag": [0.05] * 99 + [1.0]})
    operator_pools.show([many, Round(1, 99.0, idle(cpu=1.0))])
    said = capsys.readouterr().out

    def line(title: str) -> str:
        [found] = [each for each in said.splitlines() if title in each]
        return found

    assert "≤ 150 missed" in line("idle pools: resident memory")
    assert "161" in line("idle pools: resident memory")
    assert "≤ 10 " in line("idle pools: CPU of the operator")
    assert "missed" not in line("idle pools: CPU of the operator")
    assert "50 · 50 (n 100)" in line("submitted to an idle pool at zero")
    assert "hangs" not in said
    assert "beat in each queue" not in said


@pytest.mark.parametrize("given", ["", "0", "5,x", "-1"])
def test_numbers_of_pools_that_are_none_are_refused(given: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.operator_pools", "--pools", given],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "write it as in 1,50,1000" in done.stderr


@pytest.fixture
def cluster_of_many(plane: ControlPlane) -> Iterator[Cluster]:
    """More Deployments than kubectl asks for in one page."""
    made = Cluster(str(plane.kubeconfig()), str(programs.folder() / "kubectl"), own=True)
    made.kubectl("create", "namespace", NAMESPACE)
    try:
        items = [deployment(name) for name in Pools(MANY).names]
        made.kubectl("create", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": items})
        yield made
    finally:
        made.kubectl("delete", "namespace", NAMESPACE)


def deployment(name: str) -> Any:
    labels, containers = {"of": name}, [{"name": "worker", "image": "shop:1.4"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip


@pytest.mark.slow
async def test_the_watch_tells_all_of_more_than_a_page(cluster_of_many: Cluster) -> None:
    async with watching(cluster_of_many) as numbers:
        await numbers.until(Pools(MANY).names, zero=True, timeout_s=30)


@pytest.mark.slow
def test_all_of_it_once_and_small(
    plane: ControlPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten pools on a control plane without a node: every line of the table has a figure."""
    monkeypatch.setenv("PATH", f"{programs.folder()}:{os.environ['PATH']}")
    found = operator_pools.measure(Plan(PARTS, str(plane.kubeconfig()), 1.0, 2), 10)
    assert {key: len(lags) for key, lags in found.lags.items()} == dict.fromkeys(
        ("lag", "hanging", "refused", "busy"), 2
    )
    assert found.crowd is not None
    assert found.crowd.workers == 100
    assert found.crowd.beats > 50
    capsys.readouterr()
    operator_pools.show([found])
    said = capsys.readouterr().out
    assert all(line.title.split(",")[0] in said for line in operator_pools.LINES)
