"""A worker's numbers and the Prometheus text they become."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError

import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from headrace.broker.broker import Buried, Reclaimed
from headrace.metrics import WorkerCollector, exposition, new_registry
from headrace.runtime.stats import DURATION_BUCKETS, UNKNOWN, Histogram, TypeStats, WorkerStats

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def text_of(stats: WorkerStats, accept: str = "") -> str:
    registry = new_registry("worker", "abc1234")
    registry.register(WorkerCollector(stats))
    return exposition(registry, accept)[0].decode()


def scrape(stats: WorkerStats) -> Samples:
    """(name, sorted labels) → value."""
    families = text_string_to_metric_families(text_of(stats))
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def used_stats() -> WorkerStats:
    stats = WorkerStats(["send_email"], slots=10)
    stats.heartbeat_s = 1_700_000_000.5
    mail = stats.types["send_email"]
    mail.started(3, 0.003)
    mail.ended("completed", 0.2)
    mail.started(3, 0.6)
    mail.ended("retrying", 3.0, "timeout")
    mail.ended("failed", 3.0, "timeout")
    return stats


def test_the_kept_names_count_an_attempt_of_each_kind() -> None:
    """tasks_processed_total, task_retries_total and task_duration_seconds, by exactly these names and labels."""
    samples = scrape(used_stats())
    assert value(samples, "tasks_processed_total", type="send_email", status="completed") == 1
    assert value(samples, "tasks_processed_total", type="send_email", status="failed") == 1
    assert value(samples, "tasks_processed_total", type="send_email", status="cancelled") == 0
    assert value(samples, "task_retries_total", type="send_email") == 1
    assert value(samples, "task_duration_seconds_count", type="send_email") == 3
    assert value(samples, "task_duration_seconds_sum", type="send_email") == pytest.approx(6.2)
    assert value(samples, "task_duration_seconds_bucket", type="send_email", le="0.25") == 1
    assert value(samples, "task_duration_seconds_bucket", type="send_email", le="2.5") == 1
    assert value(samples, "task_duration_seconds_bucket", type="send_email", le="5.0") == 3


def test_attempts_waits_and_dead_letters_are_told_apart() -> None:
    """Each outcome, the wait by priority, and why a task died."""
    samples = scrape(used_stats())
    assert value(samples, "headrace_task_attempts_total", type="send_email", outcome="retrying") == 1
    assert value(samples, "headrace_task_timeouts_total", type="send_email") == 2
    assert value(samples, "headrace_tasks_dead_lettered_total", type="send_email", reason="timeout") == 1
    latency = "headrace_task_queue_latency_seconds"
    assert value(samples, f"{latency}_bucket", type="send_email", priority="critical", le="0.005") == 1
    assert value(samples, f"{latency}_count", type="send_email", priority="critical") == 2
    assert value(samples, f"{latency}_count", type="send_email", priority="low") == 0


def test_every_series_exists_before_anything_happened() -> None:
    """A rate over a counter that appears with its first increment would miss it."""
    fresh, used = scrape(WorkerStats(["send_email"])), scrape(used_stats())
    assert set(used) - set(fresh) == {("headrace_worker_heartbeat_timestamp_seconds", ())}
    counters = {key: number for key, number in fresh.items() if key[0].startswith(("task", "headrace_t"))}
    assert len(counters) > 100 and set(counters.values()) == {0.0}


def test_there_is_no_created_series() -> None:
    """They would double the counters, in either format."""
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        assert "_created" not in text_of(used_stats(), accept)


def test_a_plain_counter_in_our_registry_has_no_created_series_either() -> None:
    """API and operator use prometheus-client's own counters."""
    registry = new_registry("api")
    Counter("headrace_test", "A test.", registry=registry).inc()
    text = exposition(registry)[0].decode()
    assert "headrace_test_total 1.0" in text and "_created" not in text


def test_the_format_follows_the_accept_header() -> None:
    """Prometheus asks for OpenMetrics and gets it; a person with curl gets the classic text."""
    registry = new_registry("worker")
    assert exposition(registry)[1].startswith("text/plain")
    text, content_type = exposition(registry, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and text.endswith(b"# EOF\n")


def test_build_info_names_component_and_revision() -> None:
    """One constant series says what runs."""
    line = next(line for line in text_of(WorkerStats([])).splitlines() if line.startswith("headrace_build_info{"))
    assert 'component="worker"' in line and 'revision="abc1234"' in line and line.endswith(" 1.0")


def test_promtool_finds_nothing_to_say() -> None:
    """Names, types, units and help texts follow Prometheus' rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH; Debian's package prometheus has it")
    text = text_of(used_stats())
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_labels_come_from_closed_sets_whatever_a_handler_says() -> None:
    """A handler's own words, and a hostile priority, make no new series."""
    stats = used_stats()
    before = set(scrape(stats))
    mail = stats.types["send_email"]
    mail.ended("failed", 0.1, "the customer 4711 is unknown")
    mail.started(10**30, 0.1)
    mail.started(-7, 0.1)
    after = scrape(stats)
    assert set(after) == before
    assert value(after, "headrace_tasks_dead_lettered_total", type="send_email", reason="error") == 1


def test_what_cannot_be_read_counts_as_type_unknown() -> None:
    """A malformed entry has no type."""
    stats = WorkerStats([])
    stats.types[""].ended("failed", 0.0, "malformed")
    samples = scrape(stats)
    assert value(samples, "headrace_tasks_dead_lettered_total", type="unknown", reason="malformed") == 1


def test_a_wait_that_two_clocks_make_negative_does_not_lower_the_sum() -> None:
    """A counter that falls looks like a restart to Prometheus."""
    stats = TypeStats()
    stats.started(1, 0.5)
    stats.started(1, -3.0)
    assert stats.waits[1].sum == 0.5
    assert sum(stats.waits[1].counts) == 2


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.00500001, 0.01, 0.3, 3600.0, 3600.1, 1e9])
def test_the_short_cut_of_the_hot_path_takes_the_same_bucket(seconds: float) -> None:
    """`ended` skips the search for short attempts; the result is that of the plain search."""
    plain, stats = Histogram(DURATION_BUCKETS), TypeStats()
    plain.observe(seconds)
    stats.ended("completed", seconds)
    assert stats.duration.counts == plain.counts


def test_lag_and_process_numbers_appear() -> None:
    """The gauges and counters of the process itself."""
    stats = WorkerStats([], slots=7)
    stats.busy, stats.redis_up, stats.redelivered = 3, True, 5
    stats.loop_lag(0.02)
    stats.verdicts["stale"] += 1
    samples = scrape(stats)
    assert value(samples, "headrace_worker_slots") == 7
    assert value(samples, "headrace_worker_slots_busy") == 3
    assert value(samples, "headrace_redis_up") == 1
    assert value(samples, "headrace_tasks_redelivered_total") == 5
    assert value(samples, "headrace_reports_refused_total", verdict="stale") == 1
    assert value(samples, "headrace_worker_event_loop_lag_seconds_bucket", le="0.025") == 1
    assert value(samples, "headrace_worker_event_loop_lag_seconds_bucket", le="0.01") == 0


def test_every_help_text_is_one_sentence() -> None:
    """What a metric means is told where it is read."""
    helps = re.findall(r"^# HELP (headrace_|task)(\S+) (.*)$", text_of(used_stats()), re.MULTILINE)
    assert len(helps) > 15
    assert [name for _, name, text in helps if not text.endswith(".")] == []


def test_who_was_buried_by_a_reclaim_is_counted_by_type() -> None:
    """A type that this worker does not know, and what cannot be read, count as unknown; who goes on is redelivered."""
    stats = WorkerStats(["resize"])
    buried = (Buried("a", "resize", 3), Buried("b", "foreign", 3), Buried("c", "", 0))
    stats.reclaimed(Reclaimed("done", 5, ("d", "e"), buried))
    resize, unknown = stats.types["resize"], stats.types[UNKNOWN]
    assert (resize.outcomes["failed"], resize.dead["crashed"]) == (1, 1)
    assert (unknown.outcomes["failed"], unknown.dead["crashed"], unknown.dead["malformed"]) == (2, 1, 1)
    assert stats.redelivered == 2
    assert sum(resize.duration.counts) == 0, "nobody knows how long it ran"


def test_code_that_is_only_on_the_path_has_metrics_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image may copy it instead of installing it; a process must not die of that."""

    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("headrace.metrics.version", unknown)
    text, _ = exposition(new_registry("operator"))
    assert b'version="unknown"' in text
