"""Each alert fires when it should and not when it should not: promtool, with series made for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from monitoring_kit import RULES, alerts, program, promtool

pytestmark = pytest.mark.skipif(
    program("promtool") is None, reason="promtool is not on PATH (Debian: apt install prometheus)"
)

Labels = dict[str, str]


@dataclass(frozen=True)
class Case:
    """What is scraped once a minute, as promtool writes values, and which alerts fire `at` minutes later."""

    alert: str
    about: str
    series: dict[str, str]
    at: int
    fires: tuple[Labels, ...] = ()

    def __str__(self) -> str:
        return f"{self.alert}: {self.about}"


def fires(alert: str, about: str, at: int, series: dict[str, str], **labels: str) -> Case:
    return Case(alert, about, series, at, (labels,))


def rests(alert: str, about: str, at: int, series: dict[str, str]) -> Case:
    return Case(alert, about, series, at)


QUEUE, WORKERS = 'queue_size{priority="high"}', "workers_active"
FAILED = 'tasks_processed_total{type="mail",status="failed"}'
COMPLETED = 'tasks_processed_total{type="mail",status="completed"}'
RETRIES = 'task_retries_total{type="mail"}'
DEAD, PARKED = "headrace_dead_letter_size", "headrace_queue_parked"
CLAIMED = 'headrace_queue_processing{priority="high"}'
SLOTS = 'headrace_worker_slots{instance="a"}'
USED, MAX = "headrace_redis_memory_used_bytes", "headrace_redis_memory_max_bytes"
STEP_ERRORS = "headrace_operator_reconcile_errors_total"
TICKS = 'headrace_operator_reconcile_total{instance="a"}'
OTHER_TICKS = 'headrace_operator_reconcile_total{instance="b"}'
POOL = '{namespace="shop",pool="mail"}'
WAITING, DESIRED, MOST = (
    f"headrace_operator_{name}{POOL}" for name in ("pending_tasks", "desired_workers", "max_workers")
)
GOOD = 'headrace_http_requests_total{route="/api/v1/tasks",code="201"}'
BAD = 'headrace_http_requests_total{route="/api/v1/tasks",code="503"}'
UP = 'up{job="headrace-worker",instance="a"}'
BUILD = 'headrace_build_info{job="headrace-worker",instance="a"}'

CASES = [
    fires("HeadraceNoWorkers", "tasks wait for nobody", 5, {QUEUE: "3+0x9", WORKERS: "0+0x9"}),
    rests("HeadraceNoWorkers", "not at once", 4, {QUEUE: "3+0x9", WORKERS: "0+0x9"}),
    rests("HeadraceNoWorkers", "a worker came by", 7, {QUEUE: "3+0x9", WORKERS: "0 0 0 1 0 0 0 0"}),
    rests("HeadraceNoWorkers", "nothing waits", 9, {QUEUE: "0+0x9", WORKERS: "0+0x9"}),
    fires("HeadraceNoWorkers", "two replicas of the API tell the same", 5, {
        'queue_size{priority="high",instance="a"}': "3+0x9", 'queue_size{priority="high",instance="b"}': "3+0x9",
        'workers_active{instance="a"}': "0+0x9", 'workers_active{instance="b"}': "0+0x9"}),
    fires("HeadraceNoWorkers", "workers of another installation do not count", 5, {
        'queue_size{priority="high",namespace="shop"}': "3+0x9", 'workers_active{namespace="shop"}': "0+0x9",
        'queue_size{priority="high",namespace="mail"}': "3+0x9", 'workers_active{namespace="mail"}': "2+0x9"},
        namespace="shop"),

    fires("HeadraceOldestTaskTooOld", "one priority waits", 5, {
        'headrace_queue_oldest_task_age_seconds{priority="low"}': "301+60x9",
        'headrace_queue_oldest_task_age_seconds{priority="high"}': "2+0x9"}, priority="low"),
    rests("HeadraceOldestTaskTooOld", "as old as it may be", 9, {
        'headrace_queue_oldest_task_age_seconds{priority="low"}': "300+0x9"}),
    rests("HeadraceOldestTaskTooOld", "another one is the oldest now", 8, {
        'headrace_queue_oldest_task_age_seconds{priority="low"}': "301+60x4 5+60x4"}),

    fires("HeadraceBacklogGrowing", "more and more wait", 17, {QUEUE: "1000+10x40"}),
    rests("HeadraceBacklogGrowing", "many wait, and become fewer", 40, {QUEUE: "5000-10x40"}),
    rests("HeadraceBacklogGrowing", "more and more, but few", 40, {QUEUE: "0+10x40"}),

    fires("HeadraceHighFailureRatio", "a tenth fails", 21, {FAILED: "0+1x30", COMPLETED: "0+9x30"}, type="mail"),
    rests("HeadraceHighFailureRatio", "one in 25 fails", 30, {FAILED: "0+1x30", COMPLETED: "0+24x30"}),
    rests("HeadraceHighFailureRatio", "all of a few fail", 30, {FAILED: "0+1x30", COMPLETED: "0+0x30"}),

    fires("HeadraceDeadLettersGrowing", "one more", 6, {DEAD: "5+0x5 6+0x10"}),
    rests("HeadraceDeadLettersGrowing", "fewer", 9, {DEAD: "9-1x9"}),
    rests("HeadraceDeadLettersGrowing", "one more, long ago", 20, {DEAD: "5 6+0x30"}),
    rests("HeadraceDeadLettersGrowing", "two replicas disagree for a moment", 9, {
        'headrace_dead_letter_size{instance="a"}': "5+0x9", 'headrace_dead_letter_size{instance="b"}': "4+0x9"}),

    fires("HeadraceStuckDeliveries", "claimed by a worker that is gone", 5, {
        CLAIMED: "3+0x9", SLOTS: "2+0x9", WORKERS: "1+0x9"}),
    fires("HeadraceStuckDeliveries", "claimed, and no worker lives", 5, {CLAIMED: "1+0x9", WORKERS: "0+0x9"}),
    rests("HeadraceStuckDeliveries", "every slot is busy", 9, {CLAIMED: "2+0x9", SLOTS: "2+0x9", WORKERS: "1+0x9"}),
    rests("HeadraceStuckDeliveries", "a worker is not scraped", 9, {
        CLAIMED: "3+0x9", SLOTS: "2+0x9", WORKERS: "2+0x9"}),

    fires("HeadraceRetryStorm", "ten retries for each end", 20, {RETRIES: "0+10x40", COMPLETED: "0+1x40"}, type="mail"),
    fires("HeadraceRetryStorm", "nothing ends", 20, {RETRIES: "0+10x40", COMPLETED: "0+0x40"}, type="mail"),
    rests("HeadraceRetryStorm", "more ends than is tried again", 40, {RETRIES: "0+10x40", COMPLETED: "0+20x40"}),
    rests("HeadraceRetryStorm", "few retries", 40, {RETRIES: "0+1x40", COMPLETED: "0+0x40"}),

    fires("HeadraceTasksParked", "nobody knows a type", 10, {PARKED: "1+0x20"}),
    rests("HeadraceTasksParked", "until the rollout was through", 20, {PARKED: "1+0x5 0+0x20"}),

    fires("HeadraceRedisDown", "one of two does not reach it", 2, {
        'headrace_redis_up{job="headrace-worker",instance="a"}': "0+0x5",
        'headrace_redis_up{job="headrace-worker",instance="b"}': "1+0x5"}, job="headrace-worker"),
    rests("HeadraceRedisDown", "it was away for a moment", 5, {
        'headrace_redis_up{job="headrace-worker",instance="a"}': "1 0 1 1 0 1"}),

    fires("HeadraceRedisMemoryHigh", "86 of 100", 10, {USED: "86+0x20", MAX: "100+0x20"}),
    rests("HeadraceRedisMemoryHigh", "85 of 100", 20, {USED: "85+0x20", MAX: "100+0x20"}),
    rests("HeadraceRedisMemoryHigh", "without a bound", 20, {USED: "86+0x20", MAX: "0+0x20"}),

    fires("HeadraceRedisMayLoseTasks", "API and worker say that it drops keys", 15, {
        'headrace_redis_risk{job="api",risk="eviction"}': "1+0x20",
        'headrace_redis_risk{job="worker",risk="eviction"}': "1+0x20",
        'headrace_redis_risk{job="api",risk="persistence"}': "0+0x20"}, risk="eviction"),
    rests("HeadraceRedisMayLoseTasks", "until somebody set it right", 20, {
        'headrace_redis_risk{risk="persistence"}': "1+0x9 0+0x20"}),
    rests("HeadraceRedisMayLoseTasks", "it does not say", 20, {'headrace_redis_risk{risk="untold"}': "1+0x20"}),

    fires("HeadraceOperatorReconcileErrors", "again and again", 17, {STEP_ERRORS: "0+1x30"}),
    rests("HeadraceOperatorReconcileErrors", "once", 20, {STEP_ERRORS: "0 1+0x30"}),

    fires("HeadraceOperatorDown", "it is gone", 21, {TICKS: "0+60x10 _x30"}),
    rests("HeadraceOperatorDown", "it is gone for a moment", 17, {TICKS: "0+60x10 _x30"}),
    fires("HeadraceOperatorDown", "it answers and does not tick", 6, {TICKS: "600+0x20"}),
    rests("HeadraceOperatorDown", "one waits for the Lease of the other", 30, {
        TICKS: "0+60x40", OTHER_TICKS: "0+0x40"}),
    rests("HeadraceOperatorDown", "there never was one", 30, {WORKERS: "1+0x30"}),

    fires("HeadraceScalingSaturated", "as large as it may be", 30, {
        WAITING: "5+0x40", DESIRED: "3+0x40", MOST: "3+0x40"}, namespace="shop", pool="mail"),
    rests("HeadraceScalingSaturated", "it may grow", 40, {WAITING: "5+0x40", DESIRED: "2+0x40", MOST: "3+0x40"}),
    rests("HeadraceScalingSaturated", "nothing waits", 40, {WAITING: "0+0x40", DESIRED: "3+0x40", MOST: "3+0x40"}),

    fires("HeadraceApiErrorBudgetBurn", "2 %", 5, {GOOD: "0+98x90", BAD: "0+2x90"}),
    rests("HeadraceApiErrorBudgetBurn", "1 %", 90, {GOOD: "0+99x90", BAD: "0+1x90"}),
    rests("HeadraceApiErrorBudgetBurn", "a burst that the hour carries", 65, {
        GOOD: "0+100x90", BAD: "0+0x60 10+10x10"}),
    rests("HeadraceApiErrorBudgetBurn", "probes that say that it is not ready", 30, {
        GOOD: "0+100x90", 'headrace_http_requests_total{route="/readyz",code="503"}': "0+60x90"}),

    fires("HeadraceTargetDown", "one of ours", 17, {UP: "1+0x5 0+0x30", BUILD: "1+0x5 _x30"}, job="headrace-worker"),
    rests("HeadraceTargetDown", "one of ours, for a moment", 17, {UP: "1+0x5 0+0x8 1+0x9", BUILD: "1+0x5 _x8 1+0x9"}),
    rests("HeadraceTargetDown", "somebody else's", 30, {'up{job="node",instance="c"}': "0+0x30", BUILD: "1+0x30"}),
]  # fmt: skip


def test_the_rules_are_valid() -> None:
    assert f"{len(alerts()) + 5} rules found" in promtool("check", "rules", str(RULES))


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {case.alert for case in CASES if case.fires} == set(alerts())
    assert {case.alert for case in CASES if not case.fires} == set(alerts())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_alert(case: Case, tmp_path: Path) -> None:
    common = {"alertname": case.alert, "alertstate": "firing", "severity": alerts()[case.alert]["labels"]["severity"]}
    expected = [{"labels": "ALERTS" + _selector(common | labels), "value": 1} for labels in case.fires]
    look = {"expr": "ALERTS" + _selector({"alertname": case.alert, "alertstate": "firing"}), "eval_time": f"{case.at}m"}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [look | {"exp_samples": expected}],
    }
    file = tmp_path / "test.yaml"  # JSON is YAML
    order = {"group_eval_order": ["headrace.recording", "headrace.alerts"]}  # else any, and alerts are a minute late
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test], **order}))
    promtool("test", "rules", str(file))


def _selector(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
