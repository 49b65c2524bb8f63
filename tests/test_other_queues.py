"""docs/other-queues.md names tests that exist; those complaints that no other test covers are here."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from functools import cache
from pathlib import Path

import click
import pytest

from api_kit import running
from command_line import Command
from conftest import StartRedis
from doc_blocks import ROOT
from headrace import App, Ctx, Retry, RetryAfter
from headrace.task import State
from headrace.testing import Testing
from headrace_cli.main import cli
from worker_harness import Desk, eventually, working

PAGE, _, WORDS = (ROOT / "docs/other-queues.md").read_text().partition("\n## The same things by other names\n")
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


# -- the words of others


def test_the_words_that_stand_for_those_of_others_do_what_they_say() -> None:
    app = App("t")

    @app.task(retry=Retry(3, on=(OSError,)))
    async def task(ctx: Ctx, number: int) -> int:
        if (number, ctx.attempt) == (3, 1):
            raise RetryAfter(60, "why")
        return number

    with Testing() as testing:
        later = task.using(delay=60, queue="q", priority="high", expires=300).enqueue(1)
        keyed = task.using(key="order-17").enqueue(2)
        assert (later.state(), keyed.get(timeout=5)) == (State.SCHEDULED, 2)
        assert task.handle(keyed.id).get(timeout=5) == 2
        assert app.batch(task.call(number) for number in (1, 2)).results(timeout=5) == [1, 2]
        later.cancel()
        assert later.state() is State.CANCELLED
        again = task.enqueue(3)
        testing.work(raises=False)
        assert again.state() is State.RETRYING
        assert again.get(timeout=61) == 3


def test_every_command_and_option_of_the_table_is_one() -> None:
    told = re.findall(r"`headrace (\w[^`]*)`", WORDS)
    assert len(told) >= 6
    for words in told:
        names = [word for word in words.split() if word.isalpha() and word.islower()][:2]
        command: click.Command = cli
        for name in names:
            found = command.get_command(click.Context(command), name) if isinstance(command, click.Group) else None
            command = found or command
        assert command is not cli, words
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words.split() if word.startswith("--")} <= known, words


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
