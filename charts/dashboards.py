"""Makes the Grafana dashboards in headrace/files/dashboards: `python -m charts.dashboards`.

In the queries NS stands for the dashboard's choice of namespaces, TYPE for that of task types, POOL for that of pools,
and RATE for Grafana's range for rates. Gauges of queues are the same at every replica of the API, hence `max by` inside
of `sum`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from charts.grafana import Dashboard, Panel, document

FOLDER: Final = Path(__file__).parent / "headrace" / "files" / "dashboards"


def stat(title: str, query: str, unit: str = "short", about: str = "") -> Panel:
    """One number, as it is now."""
    return Panel(title, {"": query}, unit, about, "stat", 4)


def quantiles(title: str, metric: str, matchers: str, about: str) -> Panel:
    """p50, p95 and p99 of a histogram of seconds."""
    rate = f"sum by (le) (rate({metric}_bucket{{{matchers}}}[RATE]))"
    return Panel(title, {f"p{q * 100:g}": f"histogram_quantile({q}, {rate})" for q in (0.5, 0.95, 0.99)}, "s", about)


def of_workers(metric: str) -> str:
    """What a process tells of itself, of workers only."""
    return f"{metric} and on (job, instance) headrace_worker_slots"


def of_operators(metric: str) -> str:
    """The same, of operators only."""
    return f"{metric} and on (job, instance) headrace_operator_tick_age_seconds"


def of_queues(metric: str) -> str:
    """A gauge of queues by priority, over all namespaces that are chosen."""
    return f"sum by (priority) (max by (namespace, priority) ({metric}{{NS}}))"


def total(metric: str) -> str:
    """A gauge without labels that every replica of the API tells alike, over all namespaces that are chosen."""
    return f"sum(max by (namespace) ({metric}{{NS}}))"


OVERVIEW: Final = Dashboard("overview", "headrace / Overview", {
    "Now": [
        stat("Alerts that fire", 'count(ALERTS{alertname=~"Headrace.+", alertstate="firing"}) or vector(0)'),
        stat("Waiting", "sum(max by (namespace, priority) (queue_size{NS}))"),
        stat("Oldest waits for", "max(headrace_queue_oldest_task_age_seconds{NS})", "s"),
        stat("Running", "sum(max by (namespace, priority) (headrace_queue_processing{NS}))"),
        stat("Workers", total("workers_active")),
        stat("Dead letters", total("headrace_dead_letter_size")),
    ],
    "Tasks": [
        Panel("Submitted", {"{{priority}}": "sum by (priority) (rate(tasks_submitted_total{NS}[RATE]))"}, "cps",
              "Tasks a second that the API accepted. Those that applications submit by the library are not counted."),
        Panel("Ended", {"{{status}}": "sum by (status) (rate(tasks_processed_total{NS}[RATE]))"}, "cps",
              "Tasks a second that ended for good."),
        Panel("Tried again", {"{{type}}": "sum by (type) (rate(task_retries_total{NS}[RATE]))"}, "cps"),
    ],
    "Queues": [
        Panel("Waiting by priority", {"{{priority}}": of_queues("queue_size")}),
        Panel("Age of the oldest", {
            "{{priority}}": "max by (priority) (headrace_queue_oldest_task_age_seconds{NS})"}, "s"),
        Panel("Dead, later, parked", {
            "dead letters": total("headrace_dead_letter_size"),
            "due later": total("headrace_queue_scheduled"),
            "parked": total("headrace_queue_parked"),
        }),
    ],
    "Latency": [
        quantiles("Wait", "headrace_task_queue_latency_seconds", "NS",
                  "From when a task could have been claimed to the start of its attempt."),
        quantiles("Run time", "task_duration_seconds", "NS", "Of one attempt."),
        Panel("Slots in use", {
            "busy": "sum(headrace_worker_slots_busy{NS})", "slots": "sum(headrace_worker_slots{NS})"}),
    ],
    "Redis": [
        Panel("Memory", {
            "used": "max by (namespace) (headrace_redis_memory_used_bytes{NS})",
            "maxmemory": "max by (namespace) (headrace_redis_memory_max_bytes{NS}) > 0",
        }, "bytes", "No line of maxmemory: Redis has none."),
        Panel("Processes that reach Redis", {
            "{{job}}: reach it": "sum by (job) (headrace_redis_up{NS})",
            "{{job}}: all": "count by (job) (headrace_redis_up{NS})",
        }),
        Panel("Settings that may lose tasks", {"{{risk}}": "max by (risk) (headrace_redis_risk{NS})"}, "short",
              "1: it drops keys when it is full (eviction), keeps no append-only file (persistence), or does not say."),
        Panel("Versions", {"{{component}} {{version}}": "count by (component, version) (headrace_build_info{NS})"}),
    ],
})  # fmt: skip

QUEUES: Final = Dashboard("queues", "headrace / Queues and task types", {
    "Queues": [
        Panel("Waiting", {"{{priority}}": of_queues("queue_size")}),
        Panel("Running", {"{{priority}}": of_queues("headrace_queue_processing")}, "short",
              "Claimed by a worker and not reported."),
        Panel("Age of the oldest", {
            "{{priority}}": "max by (priority) (headrace_queue_oldest_task_age_seconds{NS})"}, "s"),
        Panel("Elsewhere", {
            "due later": total("headrace_queue_scheduled"),
            "parked": total("headrace_queue_parked"),
            "dead letters": total("headrace_dead_letter_size"),
        }),
        Panel("Fullest queue", {"of its bound": "max(headrace_queue_fill_ratio{NS})"}, "percentunit",
              "At 100 % a queue refuses submissions."),
        Panel("Room", {"live tasks that there may be": total("headrace_queue_capacity")}, "short",
              "All queues together, each by its own limit."),
        Panel("Paused queues", {"paused": total("headrace_queue_paused")}),
    ],
    "Task types": [
        Panel("Attempts", {
            "{{type}} {{outcome}}":
                "sum by (type, outcome) (rate(headrace_task_attempts_total{NS,TYPE}[RATE])) > 0"}, "cps"),
        Panel("Share that failed for good", {
            "{{type}}": 'sum by (type) (rate(tasks_processed_total{NS,TYPE,status="failed"}[RATE]))'
                        " / sum by (type) (rate(tasks_processed_total{NS,TYPE}[RATE]))"}, "percentunit"),
        Panel("Tried again", {"{{type}}": "sum by (type) (rate(task_retries_total{NS,TYPE}[RATE]))"}, "cps"),
        Panel("Run time", {
            "": "sum by (le) (increase(task_duration_seconds_bucket{NS,TYPE}[RATE]))"}, "s",
              "Of one attempt.", "heatmap"),
        Panel("Mean run time", {
            "{{type}}": "sum by (type) (rate(task_duration_seconds_sum{NS,TYPE}[RATE]))"
                        " / sum by (type) (rate(task_duration_seconds_count{NS,TYPE}[RATE]))"}, "s"),
        Panel("Run time, p95", {
            "{{type}}": "histogram_quantile(0.95,"
                        " sum by (type, le) (rate(task_duration_seconds_bucket{NS,TYPE}[RATE])))"}, "s"),
        Panel("Wait, p95", {
            "{{type}}": "histogram_quantile(0.95,"
                        " sum by (type, le) (rate(headrace_task_queue_latency_seconds_bucket{NS,TYPE}[RATE])))"}, "s",
              "From when a task could have been claimed to the start of its attempt."),
        Panel("Timeouts", {"{{type}}": "sum by (type) (rate(headrace_task_timeouts_total{NS,TYPE}[RATE]))"}, "cps"),
        Panel("To the dead letter, in an hour", {
            "{{type}} {{reason}}":
                "sum by (type, reason) (increase(headrace_tasks_dead_lettered_total{NS,TYPE}[1h])) > 0"}),
        Panel("Submitted over HTTP", {"{{type}}": "sum by (type) (rate(tasks_submitted_total{NS,TYPE}[RATE]))"}, "cps"),
        Panel("Size of payloads, p95", {
            "{{type}}": "histogram_quantile(0.95,"
                        " sum by (type, le) (rate(headrace_task_payload_bytes_bucket{NS,TYPE}[RATE])))"}, "bytes"),
    ],
}, {"type": "tasks_processed_total"})  # fmt: skip

WORKERS: Final = Dashboard("workers", "headrace / Workers", {
    "Now": [
        stat("Live workers", total("workers_active"), about="By their heartbeats."),
        stat("Scraped workers", "count(headrace_worker_slots{NS})"),
        stat("Slots", "sum(headrace_worker_slots{NS})"),
        stat("In use", "sum(headrace_worker_slots_busy{NS}) / sum(headrace_worker_slots{NS})", "percentunit"),
        stat("Oldest heartbeat", "time() - min(headrace_worker_heartbeat_timestamp_seconds{NS})", "s"),
        stat("Slots given up", "sum(headrace_worker_leaked_slots_total{NS})",
             about="To handlers that do not end at their timeout."),
    ],
    "Work": [
        Panel("Slots in use", {
            "busy": "sum(headrace_worker_slots_busy{NS})", "slots": "sum(headrace_worker_slots{NS})"}),
        Panel("In use, by worker", {
            "{{pod}} {{instance}}": "headrace_worker_slots_busy{NS} / headrace_worker_slots{NS}"}, "percentunit"),
        Panel("Ended, by worker", {
            "{{pod}} {{instance}}": "sum by (pod, instance) (rate(tasks_processed_total{NS}[RATE]))"}, "cps"),
    ],
    "What went wrong": [
        Panel("Taken from dead workers, in an hour", {
            "tasks": "sum(increase(headrace_tasks_redelivered_total{NS}[1h]))"}),
        Panel("Set aside or let go, in an hour", {
            "parked": "sum(increase(headrace_tasks_parked_total{NS}[1h]))",
            "expired": "sum(increase(headrace_tasks_expired_total{NS}[1h]))",
            "dead letters purged": "sum(increase(headrace_dead_letters_purged_total{NS}[1h]))",
        }),
        Panel("Reports not accepted anew", {
            "{{verdict}}": "sum by (verdict) (rate(headrace_reports_refused_total{NS}[RATE]))"}, "cps",
              "dup: accepted before. stale: the task is another's. gone: no trace of it."),
    ],
    "Processes": [
        Panel("Age of the heartbeat", {
            "{{pod}} {{instance}}": "time() - headrace_worker_heartbeat_timestamp_seconds{NS}"}, "s"),
        quantiles("Event loop comes late", "headrace_worker_event_loop_lag_seconds", "NS",
                  "A handler that blocks the loop delays all others of its process."),
        Panel("Errors of Redis", {
            "{{pod}} {{instance}}": of_workers("rate(headrace_redis_errors_total{NS}[RATE])")}, "cps"),
        Panel("Processor", {
            "{{pod}} {{instance}}": of_workers("rate(process_cpu_seconds_total{NS}[RATE])")}, "percentunit",
              "100 % is one core. Processes of handlers count on their own."),
        Panel("Memory", {"{{pod}} {{instance}}": of_workers("process_resident_memory_bytes{NS}")}, "bytes"),
        Panel("Open files", {"{{pod}} {{instance}}": of_workers("process_open_fds{NS}")}),
    ],
})  # fmt: skip

OPERATOR: Final = Dashboard("operator", "headrace / Operator and API", {
    "Pools": [
        Panel("Replicas", {
            f"{{{{pool}}}} {name}": f"sum by (pool) (headrace_operator_{name}_workers{{NS,POOL}})"
            for name in ("desired", "ready", "min", "max")
        }),
        Panel("Needed, and what works", {
            f"{{{{pool}}}} {name}": f"sum by (pool) (headrace_operator_{name}_workers{{NS,POOL}})"
            for name in ("recommended", "busy", "draining")
        }, "short", "recommended: before windows, rates and caps."),
        Panel("Waiting for a pool", {"{{pool}}": "sum by (pool) (headrace_operator_pending_tasks{NS,POOL})"}),
        Panel("Oldest waits for", {
            "{{pool}}": "max by (pool) (headrace_operator_oldest_pending_seconds{NS,POOL})"}, "s"),
        Panel("Changes of size, in an hour", {
            "{{pool}} {{direction}}: {{reason}}":
                "sum by (pool, direction, reason) (increase(headrace_operator_scale_events_total{NS,POOL}[1h]))"}),
        Panel("Time of an attempt, as measured", {
            "{{pool}} {{type}}": "max by (pool, type) (headrace_operator_task_seconds{NS,POOL})"}, "s",
              "Means of types that began lately: what the operator counts with."),
        Panel("Queues cannot be read", {
            "{{pool}}": "sum by (pool) (1 - headrace_operator_queue_reachable{NS,POOL})"}, "short",
              "1: the pool keeps its size until they can."),
    ],
    "Operator": [
        Panel("Looks at the queues", {
            "all": "sum(rate(headrace_operator_reconcile_total[RATE]))",
            "out of turn, by a submission": "sum(rate(headrace_operator_wakes_total[RATE]))",
        }, "cps"),
        Panel("Time of one look", {
            "mean": "sum(rate(headrace_operator_reconcile_duration_seconds_sum[RATE]))"
                    " / sum(rate(headrace_operator_reconcile_duration_seconds_count[RATE]))",
            "p99": "histogram_quantile(0.99,"
                   " sum by (le) (rate(headrace_operator_reconcile_duration_seconds_bucket[RATE]))) >= 0",
            "since the last": "min(headrace_operator_tick_age_seconds)",
        }, "s"),
        Panel("Who leads, and pools at rest", {
            "operators that act": "sum(headrace_operator_leading)",
            "operators": "count(headrace_operator_leading)",
            "pools with nothing to do": "sum(headrace_operator_resting_pools)",
        }),
        Panel("Errors", {
            "steps that failed, in an hour": "sum(increase(headrace_operator_reconcile_errors_total[1h]))",
            "steps that no tick waited for": "sum(increase(headrace_operator_reconcile_overruns_total[1h]))",
            "watches that began anew": "sum(increase(headrace_operator_watch_restarts_total[1h]))",
            "specs that cannot be read": "sum(headrace_operator_invalid_pools)",
        }),
        Panel("Requests to the Kubernetes API", {
            "{{verb}} {{resource}} {{code}}":
                "sum by (verb, resource, code) (rate(headrace_operator_api_requests_total[RATE]))"}, "reqps",
              "Code 0: no answer."),
        Panel("Processor", {
            "{{pod}} {{instance}}": of_operators("rate(process_cpu_seconds_total[RATE])")}, "percentunit"),
        Panel("Memory", {"{{pod}} {{instance}}": of_operators("process_resident_memory_bytes")}, "bytes"),
    ],
    "API": [
        Panel("Requests", {
            "{{code}}": "sum by (code) (rate(headrace_http_requests_total{NS}[RATE]))"}, "reqps"),
        Panel("Share of 5xx", {
            "5 minutes": "max(namespace:headrace_http_errors:ratio_rate5m{NS})",
            "1 hour": "max(namespace:headrace_http_errors:ratio_rate1h{NS})",
        }, "percentunit"),
        Panel("Duration, p95", {
            "{{method}} {{route}}": "histogram_quantile(0.95, sum by (method, route, le) ("
                                    "rate(headrace_http_request_duration_seconds_bucket{NS}[RATE]))) >= 0"}, "s"),
        Panel("Submissions turned away", {
            "{{reason}}": "sum by (reason) (rate(headrace_tasks_rejected_total{NS}[RATE]))"}, "cps"),
        Panel("At once", {
            "requests": "sum(headrace_http_requests_in_flight{NS})",
            "connections": "sum(headrace_http_connections{NS})",
        }),
        Panel("Connections over a limit", {
            "{{limit}}": "sum by (limit) (rate(headrace_http_connections_refused_total{NS}[RATE]))"}, "cps"),
        Panel("Calls to Redis, p95", {
            "{{command}}": "histogram_quantile(0.95, sum by (command, le) ("
                           "rate(headrace_redis_command_duration_seconds_bucket{NS}[RATE]))) >= 0"}, "s"),
        Panel("Errors of Redis", {"{{job}}": "sum by (job) (rate(headrace_redis_errors_total{NS}[RATE]))"}, "cps"),
        Panel("Bulk jobs", {
            "running": "sum(headrace_bulk_jobs_running{NS})",
            "{{action}} {{outcome}}, in an hour":
                "sum by (action, outcome) (increase(headrace_bulk_jobs_total{NS}[1h]))",
        }),
        Panel("Tasks of bulk jobs", {
            "{{action}} {{outcome}}": "sum by (action, outcome) (rate(headrace_bulk_tasks_total{NS}[RATE]))"}, "cps"),
        Panel("Processes whose file of tokens cannot be read", {"processes": "sum(headrace_tokens_stale{NS})"}),
    ],
}, {"pool": "headrace_operator_max_workers"})  # fmt: skip

DASHBOARDS: Final = (OVERVIEW, QUEUES, WORKERS, OPERATOR)


def files() -> dict[Path, str]:
    """What the files should hold."""
    return {FOLDER / f"{each.name}.json": json.dumps(document(each), indent=1) + "\n" for each in DASHBOARDS}


if __name__ == "__main__":
    for file, content in files().items():
        file.write_text(content)
