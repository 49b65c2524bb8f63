"""Metrics of the API: the kept names, bounded labels, and gauges that are absent rather than old."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import aiohttp
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from api_kit import EMAIL, SCHEMA, Api, running
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_api.buckets import Buckets
from headrace_api.overview import Lookout
from headrace_api.server import serving
from headrace_api.store import Store
from redis_server import RedisServer


async def scrape(api: Api) -> dict[str, float]:
    """`name{label="value"}` → value, of a page that Prometheus' own parser reads."""
    text = (await api.get("/metrics")).text
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def test_labels_of_types_are_registered_types_or_unknown(redis_url: str) -> None:
    """Clients invent types; they must not invent time series."""
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {"schema": SCHEMA})
        await api.submitted(EMAIL)
        for i in range(20):
            await api.submitted({"type": f"invented_{i}"})
        samples = await scrape(api)
    types = {match[1] for name in samples if (match := re.search(r"type=(\w+)", name))}
    assert types == {"send_email", "unknown"}
    assert samples["tasks_submitted_total{priority=medium,type=unknown}"] == 20
    assert samples["tasks_submitted_total{priority=low,type=send_email}"] == 0, "rates start at 0"


async def test_routes_are_templates_and_codes_are_counted(redis_url: str) -> None:
    """Never the path: ids would make a series each."""
    async with running(redis_url) as api:
        for _ in range(3):
            await api.get(f"/api/v1/tasks/{await api.submitted()}")
        await api.get("/api/v1/tasks/nonsense")
        samples = await scrape(api)
    route = "route=/api/v1/tasks/{id}"
    assert samples[f"headrace_http_requests_total{{code=200,method=GET,{route}}}"] == 3
    assert samples[f"headrace_http_requests_total{{code=404,method=GET,{route}}}"] == 1
    assert samples[f"headrace_http_request_duration_seconds_count{{method=GET,{route}}}"] == 4
    assert samples["headrace_http_requests_in_flight"] == 1, "this scrape itself"


async def test_rejections_are_counted_by_reason(redis_url: str) -> None:
    """One closed set of reasons."""
    async with running(redis_url, max_depth=1) as api:
        await api.submitted()
        await api.submit()
        await api.submit({"type": "a b"})
        await api.submit(b"{")
        await api.submit(EMAIL | {"payload": {"a": "x" * 70_000}})
        samples = await scrape(api)
    counts = {name.partition("reason=")[2][:-1]: value for name, value in samples.items() if "rejected" in name}
    assert counts == {
        "full": 1,
        "invalid": 2,
        "too_large": 1,
        "unauthorized": 0,
        "forbidden": 0,
        "limited": 0,
        "unavailable": 0,
        "error": 0,
    }


async def test_rejections_within_a_partial_batch_are_counted(redis_url: str) -> None:
    """Each of its tasks stands for itself."""
    tasks = [EMAIL, EMAIL, {"type": "a b"}, EMAIL]
    async with running(redis_url, max_depth=1) as api:
        answer = await api.ask("POST", "/api/v1/tasks:batch?partial=true", json={"tasks": tasks})
        samples = await scrape(api)
    assert answer.json["failed"] == 3
    counts = {name.partition("reason=")[2][:-1]: value for name, value in samples.items() if "rejected" in name}
    assert {why: count for why, count in counts.items() if count} == {"full": 2, "invalid": 1}


async def test_replays_are_not_counted_as_submissions(redis_url: str) -> None:
    """tasks_submitted_total counts accepted tasks, not answers."""
    async with running(redis_url) as api:
        for _ in range(3):
            await api.submitted(EMAIL, Idempotency_Key="k")
        samples = await scrape(api)
    assert samples["tasks_submitted_total{priority=high,type=unknown}"] == 1


async def test_gauges_of_queues_tell_of_all_queues(redis_url: str) -> None:
    """Waiting by priority, processing, delayed, dead letters, oldest age, memory."""
    async with running(redis_url) as api:
        for priority in (3, 3, 0):
            await api.submitted(EMAIL | {"priority": priority})
        await api.submitted(EMAIL | {"queue": "mail", "priority": 0})
        await api.submitted(EMAIL | {"delay": 60})
        [claim, _] = await api.worker.claim(slots=2)
        await api.worker.report(claim.report("failed"))
        samples = await scrape(api)
    assert samples["queue_size{priority=critical}"] == 0
    assert samples["queue_size{priority=low}"] == 2
    assert samples["queue_size{priority=suspect}"] == samples["queue_size{priority=recovered}"] == 0
    assert samples["headrace_queue_processing{priority=critical}"] == 1
    assert samples["headrace_queue_scheduled"] == samples["headrace_dead_letter_size"] == 1
    assert 0 <= samples["headrace_queue_oldest_task_age_seconds{priority=low}"] < 60
    assert samples["headrace_redis_up"] == 1
    assert samples["headrace_redis_memory_used_bytes"] > 0
    assert samples["workers_active"] == 1


async def test_a_queue_with_a_limit_of_its_own_is_full_by_that(redis_url: str) -> None:
    """The sum of what all may have, and the fullest; queues are not named, for the page needs no token."""
    async with running(redis_url, max_depth=100) as api:
        empty = await scrape(api)
    async with running(redis_url, max_depth=100) as api:
        for queue in ("mail", "mail", "mail", "other"):
            await api.submitted(EMAIL | {"queue": queue})
        by_setting = await scrape(api)
        assert (await api.ask("PATCH", "/api/v1/queues/mail", json={"max_depth": 4})).status == 200
        by_own = await scrape(api)
    names = ("headrace_queue_capacity", "headrace_queue_fill_ratio")
    told = [tuple(samples[name] for name in names) for samples in (empty, by_setting, by_own)]
    assert told == [(100, 0), (200, 0.03), (104, 0.75)]


async def test_who_ends_a_stream_is_no_client_that_went_away(redis_url: str) -> None:
    """A stream ends by its client, so that is 200; a client that does not wait for its answer is 499 as ever."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        await api.somebody_leaves("/api/v1/events")
        await api.somebody_leaves(f"/api/v1/tasks/{task_id}/events")
        await api.somebody_leaves(f"/api/v1/tasks/{task_id}?wait=30")
        samples = await scrape(api)
    counts = {name: n for name, n in samples.items() if "requests_total" in name and re.search("events|{id}", name)}
    assert counts == {
        "headrace_http_requests_total{code=200,method=GET,route=/api/v1/events}": 1,
        "headrace_http_requests_total{code=200,method=GET,route=/api/v1/tasks/{id}/events}": 1,
        "headrace_http_requests_total{code=499,method=GET,route=/api/v1/tasks/{id}}": 1,
    }


async def test_a_worker_that_no_longer_beats_is_not_active(redis_url: str) -> None:
    """Its row in Redis may stay, for there may be nobody to clear it; active means that its beat changes."""
    now = [100.0]
    store = Store(RedisSettings.parse(redis_url, "the test"))
    lookout = Lookout(store, "default", clock=lambda: now[0])
    async with running(redis_url) as api:
        await api.submitted()
        await api.worker.claim()
        seen = []
        for step in (0.0, 5.0, 6.0):
            now[0] += step
            seen.append(set((await lookout.look()).active))
        await api.worker.claim()
        now[0] += 2
        seen.append(set((await lookout.look()).active))
    await lookout.aclose()
    await store.aclose()
    assert seen == [{"worker-1"}, {"worker-1"}, set(), {"worker-1"}]


async def test_without_redis_gauges_are_absent(redis_server: RedisServer, redis_url: str) -> None:
    """redis_up 0, and no number that would be a lie; the page itself answers."""
    async with running(redis_url) as api:
        await api.submitted()
        before = await scrape(api)
        redis_server.kill()
        async with asyncio.timeout(5):
            while (samples := await scrape(api))["headrace_redis_up"] != 0:
                continue
        redis_server.start()
    assert "queue_size{priority=low}" in before
    assert not [name for name in samples if name.startswith(("queue_size", "workers_active", "headrace_queue"))]
    assert samples["headrace_redis_errors_total{kind=store_unavailable}"] >= 1
    assert samples["tasks_submitted_total{priority=high,type=unknown}"] == 1


async def test_other_collectors_are_shown_beside(redis_url: str) -> None:
    """`headrace dev` shows its workers' numbers on the API's page."""

    class Extra(Collector):
        def collect(self) -> Iterator[Metric]:
            yield GaugeMetricFamily("extra", "Of somebody else.", value=7)

    redis = RedisSettings.parse(redis_url, "the test")
    async with (
        serving(ApiSettings.from_env({}, port=0), redis, [Extra()]) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics") as reply,
    ):
        assert "\nextra 7.0\n" in await reply.text()


def test_buckets_count_as_prometheus_own_histogram() -> None:
    """A value on a bound belongs to that bound's bucket."""
    registry = CollectorRegistry()
    theirs = Histogram("h", "", buckets=(1, 2, 5), registry=registry)
    ours = Buckets((1, 2, 5))
    for value in (0, 1, 1.5, 2, 5, 5.1, 100):
        theirs.observe(value)
        ours.observe(value)
    rows = {s.labels["le"]: s.value for f in registry.collect() for s in f.samples if s.name == "h_bucket"}
    assert dict(ours.cumulative()) == rows
