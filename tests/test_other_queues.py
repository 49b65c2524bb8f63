"""docs/other-queues.md names tests that exist; those complaints that no other test covers are here."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from functools import cache
from pathlib import Path

import pytest

from api_kit import running
from command_line import Command
from conftest import StartRedis
from doc_blocks import ROOT
from headrace import App
from headrace.task import State
from worker_harness import Desk, eventually, working

PAGE = (ROOT / "docs/other-queues.md").read_text()
ROWS = re.findall(r"^\| (?!complaint|---)(.+?) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
TASKS = """\
from headrace import App

app = App("idle")

@app.task()
async def nothing() -> None: ...
"""


# -- the page


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:60])
def test_a_complaint_names_tests_that_exist(row: tuple[str, str, str]) -> None:
    named = re.findall(r"`(tests/\w+\.py)::(test_\w+)`", row[2])
    assert named and row[2] == "<br>".join(f"`{file}::{name}`" for file, name in named)
    assert [name for file, name in named if name not in names_in(file)] == []


def test_no_line_of_the_page_is_overlooked() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and "complaint" not in line]
    assert len(ROWS) == len(lines) > 40


# -- complaints


async def test_a_pause_and_a_limit_outlive_redis_and_its_workers(start_redis: StartRedis) -> None:
    """They are lost elsewhere, where they live in workers' memory."""
    app = App("t")

    @app.task()
    async def greet() -> None: ...

    server = start_redis(appendfsync="always")
    async with running(server.url) as api:
        task = await api.submitted({"type": "greet", "payload": {}})
        await api.ask("POST", "/api/v1/queues/default:pause")
        await api.ask("PATCH", "/api/v1/queues/default", json={"max_depth": 1})
    server.kill()
    server.start()
    async with Desk(server.url) as desk, running(server.url) as api, working(app, server.url):
        queue = (await api.get("/api/v1/queues/default")).json
        assert queue["paused"] is True
        assert (await api.submit({"type": "greet", "payload": {}})).code == "queue_full"
        assert (await desk.look(task)).state is State.PENDING
        await api.ask("POST", "/api/v1/queues/default:resume")
        assert (await desk.ended(task)).state is State.COMPLETED


async def test_beats_go_on_while_a_stop_waits_for_a_task(desk: Desk, redis_url: str) -> None:
    """Elsewhere the heart stops with the stop, and the task is given to another worker while it runs."""
    app = App("t")
    begun, go = asyncio.Event(), asyncio.Event()

    @app.task()
    async def held() -> None:
        begun.set()
        await go.wait()

    async def beat() -> str:
        [seen] = [each for each in await desk.client.call(desk.queue.workers()) if each.name == worker.name]
        return str(seen.beat)

    async def later() -> bool:
        return await beat() != stopped

    async with working(app, redis_url) as worker:
        task = await desk.submit("held")
        await begun.wait()
        worker.stop()
        for _ in range(3):
            stopped = await beat()
            await eventually(later)
        go.set()
        assert (await desk.ended(task)).counters.attempts == 1


async def test_a_result_of_64_kib_is_watched_to_its_end(desk: Desk, redis_url: str) -> None:
    """Elsewhere a channel of 8 KB carries what is watched."""
    app = App("t")
    text = "é" * 32_000

    @app.task()
    async def write() -> str:
        return text

    async with running(redis_url) as api:
        task = await desk.submit("write")
        async with api.session.get(f"{api.url}/api/v1/tasks/{task}/events") as stream, working(app, redis_url):
            told = await asyncio.wait_for(stream.text(), 20)
    last = re.findall(r"^data: (.+)$", told, re.MULTILINE)[-1]
    assert json.loads(last)["result"] == text


def resident_kb(pid: int) -> int:
    [found] = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found)


async def test_an_idle_worker_takes_less_than_64_mb(desk: Desk, redis_url: str, tmp_path: Path) -> None:
    """A pod of 256 MB is too small elsewhere."""
    (tmp_path / "tasks.py").write_text(TASKS)
    with Command("worker", "--app", "tasks", "--metrics-port", "0", cwd=tmp_path, HEADRACE_URL=redis_url) as worker:
        await desk.ended(await desk.submit("nothing"))
        assert resident_kb(worker.process.pid) < 64 * 1024
