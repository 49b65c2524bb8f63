"""A real Prometheus scrapes a real API, worker and operator, and loads our rules: every query works, and has data."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import pytest

from awaited import until
from charts import dashboards
from command_line import Command, http
from doc_blocks import blocks
from headrace.redis_settings import RedisSettings
from headrace_cli.ports import free_port
from headrace_operator import patience
from headrace_operator.caps import Caps
from headrace_operator.kube import KubeCluster, Watched
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.metrics import registry_of
from headrace_operator.requests import Requests
from headrace_operator.server import Health, serving
from monitoring_kit import ROOT, Prometheus, alerts, names, program, prometheus, rules
from operator_kit import MemoryCluster, resource
from redis_server import Missing, RedisServer, real_servers

BINARIES = [each for each in real_servers().values() if not isinstance(each, Missing)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program("prometheus") is None, reason="prometheus is not on PATH (Debian: prometheus)"),
    pytest.mark.skipif(not BINARIES, reason="no real Redis server was found"),
]  # fmt: skip

TASKS = """\
import asyncio

from headrace import App, Ctx, Retry

app = App("watched")


@app.task()
async def works() -> None: ...


@app.task(max_retries=0)
async def fails() -> None:
    raise ValueError("on purpose")


@app.task(retry=Retry(2, base_s=0.1))
async def again(ctx: Ctx) -> None:
    if ctx.attempt == 1:
        raise OSError("on purpose")


@app.task()
async def lasts() -> None:
    await asyncio.sleep(600)
"""
SUBMITTED: list[dict[str, Any]] = [
    *({"type": "works", "priority": priority} for priority in (0, 1, 2, 3)),
    {"type": "fails"},
    {"type": "again"},
    {"type": "lasts"},
    {"type": "works", "delay": 600},
    {"type": "nobody_knows_it"},
    {"type": "works", "queue": "idle"},
]
QUERIES_OF_THE_ORIGINAL = (
    "rate(tasks_processed_total[5m])",
    "rate(task_duration_seconds_sum[5m]) / rate(task_duration_seconds_count[5m])",
    'rate(tasks_processed_total{status="failed"}[5m])',
)


@contextmanager
def operator(redis_url: str) -> Iterator[str]:
    """Gives the address of the metrics of a control loop with one pool on both queues, and a cluster in memory."""
    told: list[str] = []
    ready, end = threading.Event(), asyncio.Event()

    async def work() -> None:
        looker = Looker({"default": RedisSettings.parse(redis_url, "the test")})
        loop = ControlLoop(MemoryCluster(), looker, tick_s=0.5, caps=Caps())
        loop.saw_pool(resource(queues=[{"name": "idle"}, {"name": "default"}]))
        requests = Requests(cast(Any, None))
        requests.made["GET", "pods", 200] += 1
        patience.restarts["pods"] += 0
        running.append(asyncio.get_running_loop())
        registry = registry_of(loop, KubeCluster(requests, Watched()))
        async with serving("127.0.0.1", 0, registry, Health) as port:
            told.append(f"127.0.0.1:{port}")
            ready.set()
            ticking = asyncio.create_task(loop.run())
            await end.wait()
            ticking.cancel()
        await loop.aclose()
        await looker.aclose()

    running: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        assert ready.wait(30)
        yield told[0]
    finally:
        running[0].call_soon_threadsafe(end.set)
        thread.join(30)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "tasks.py").write_text(TASKS)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(BINARIES[-1], maxmemory="100mb", appendfsync="everysec"))
        port, metrics_port = free_port(), free_port()
        stack.enter_context(Command("api", cwd=folder, PORT=str(port), HEADRACE_URL=redis.url))
        worker = ("worker", "--app", "tasks", "--metrics-port", str(metrics_port))
        stack.enter_context(Command(*worker, cwd=folder, HEADRACE_URL=redis.url))
        targets = {
            "headrace-api": f"127.0.0.1:{port}",
            "headrace-worker": f"127.0.0.1:{metrics_port}",
            "headrace-operator": stack.enter_context(operator(redis.url)),
        }
        made = stack.enter_context(prometheus(folder, targets))
        # Rates see only what grew between two scrapes, here and below.
        until(lambda: made.query("up == 1 and count_over_time(up[1m]) > 1"), lambda found: len(found) == 3, "3 targets")
        until(lambda: made.query("workers_active == 1"), len, "the worker is known")
        tasks = f"http://127.0.0.1:{port}/api/v1/tasks"
        for each in SUBMITTED:
            http("POST", tasks, {"payload": {}, **each})
        posted = 'headrace_http_requests_total{route="/api/v1/tasks",method="POST"}'
        until(lambda: made.query(f"{posted} >= {len(SUBMITTED)}"), len, "all submissions were scraped")
        http("POST", tasks, {"payload": {}, "type": "works"})  # a route has no series before its first request
        yield made


def queries() -> Iterator[tuple[str, str]]:
    """(where it stands, query) of all panels, as Grafana would send them with everything chosen."""
    for path in sorted(dashboards.FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", "1m")
                yield f"{path.stem}: {panel['title']}: {target['legendFormat']}", re.sub(r"\$\w+", ".*", query)


def test_every_query_of_the_dashboards_has_data(watched: Prometheus) -> None:
    asked = dict(queries())
    assert len(asked) > 60
    for where, query in asked.items():
        until(lambda query=query: watched.query(query), len, f"{where}: {query}", 30)  # type: ignore[misc]


def test_what_can_be_chosen_is_there(watched: Prometheus) -> None:
    seen = {}
    for path in dashboards.FOLDER.glob("*.json"):
        for choice in json.loads(path.read_text())["templating"]["list"]:
            if choice["type"] == "query":
                found = re.fullmatch(r"label_values\((.+), (\w+)\)", choice["query"]["query"])
                assert found, choice
                seen[choice["name"]] = set(watched.ask(f"label/{found[2]}/values", **{"match[]": found[1]}))
    assert seen.keys() == {"namespace", "type", "pool"}
    assert {"works", "fails", "again", "lasts"} <= seen["type"]
    assert (seen["namespace"], seen["pool"]) == ({"shop"}, {"emails"})


def test_every_rule_is_evaluated_and_what_it_asks_for_is_scraped(watched: Prometheus) -> None:
    evaluated = until(watched.rules, lambda found: "unknown" not in {rule["health"] for rule in found}, "evaluated")
    assert {rule["name"]: rule.get("lastError", "") for rule in evaluated if rule["health"] != "ok"} == {}
    assert len(evaluated) == len(rules())
    for rule in rules():
        for name in names(rule["expr"]):
            until(lambda name=name: watched.query(f"count({name})"), len, name, 30)  # type: ignore[misc]


def test_an_alert_fires_with_words_for_people(watched: Prometheus) -> None:
    """A task failed for good, which the alert does not wait to tell."""

    def firing() -> list[Any]:
        found = [rule for rule in watched.rules() if rule["name"] == "HeadraceDeadLettersGrowing"]
        return [alert for rule in found for alert in rule["alerts"] if alert["state"] == "firing"]

    [alert] = until(firing, len, "it fires")
    assert alert["annotations"] == {
        **alerts()["HeadraceDeadLettersGrowing"]["annotations"],
        "description": "1 tasks went to the dead letter within 15 minutes.",
    }
    assert alert["labels"]["severity"] == "warning"


def test_nothing_else_is_wrong_with_a_system_that_works(watched: Prometheus) -> None:
    """What is pending is what the test made: a dead letter, and a task of a type that nobody knows."""
    until(lambda: watched.query('ALERTS{alertname="HeadraceTasksParked"}'), len, "parked")
    told = {labels["alertname"] for labels, _ in watched.query("ALERTS")}
    assert told == {"HeadraceDeadLettersGrowing", "HeadraceTasksParked"}


@pytest.mark.parametrize("query", QUERIES_OF_THE_ORIGINAL)
def test_the_queries_of_the_original_work_as_written(watched: Prometheus, query: str) -> None:
    found = until(lambda: watched.query(query), len, query, 30)
    assert {labels["type"] for labels, _ in found} >= {"works", "fails"}
    shown = next(block.text for block in blocks("docs/how-to.md") if block.kind == "promql")
    assert shown.splitlines() == list(QUERIES_OF_THE_ORIGINAL)


def test_the_queries_of_the_pages_run(watched: Prometheus) -> None:
    pages = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md"))]
    texts = [each.text for page in pages for each in blocks(page) if each.kind == "promql"]
    shown = [line for text in texts for line in text.splitlines()]
    assert len(shown) > 40
    for line in shown:
        watched.query(line)
