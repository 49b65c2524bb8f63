"""A task that kills whoever runs it, through real worker processes: it ends in the dead letter, its neighbours well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from command_line import Command, http

TASKS = """\
import asyncio, os, signal
from headrace import App

app = App("tasks")

@app.task()
async def neighbour() -> str:
    await asyncio.sleep(0.05)
    return "well"

@app.task()
def pill(how: str) -> None:
    os._exit(7) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
"""
NEIGHBOURS = 20

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("how", "cause"), [("exit", "exit code 7"), ("kill", "killed by SIGKILL")])
def test_poison_ends_in_the_dead_letter_and_its_neighbours_complete(
    tmp_path: Path, redis_url: str, how: str, cause: str
) -> None:
    """Three crashes, each with its start and its cause; told in the log and counted; nobody else is lost."""
    (tmp_path / "tasks.py").write_text(TASKS)
    arguments = ("dev", "--port", "0", "--concurrency", "10", "--no-reload", "--no-sample")
    with Command(*arguments, cwd=tmp_path, HEADRACE_URL=redis_url, HEADRACE_BACKOFF_BASE_S="0.02") as command:
        url = command.wait_for(r"API +(http://127\.0\.0\.1:\d+)")[1]
        bodies: list[dict[str, Any]] = [{"type": "neighbour"} for _ in range(NEIGHBOURS)]
        bodies.insert(5, {"type": "pill", "payload": {"how": how}})
        ids = [task["task_id"] for task in http("POST", f"{url}/api/v1/tasks:batch", {"tasks": bodies})["tasks"]]
        poison = ids.pop(5)
        pill = http("GET", f"{url}/api/v1/tasks/{poison}?wait=30")
        neighbours = [http("GET", f"{url}/api/v1/tasks/{task_id}?wait=30") for task_id in ids]
        command.wait_for(rf"error: task {poison} \(pill\) failed: crash 3 of its workers, the last one \S+ \({cause}\)")
        metrics = http("GET", f"{url}/metrics")
        assert command.stop() == 0
    assert (pill["status"], pill["crashes"], pill["error"]["type"]) == ("failed", 3, "Crashed")
    assert [(each["outcome"], each["cause"]) for each in pill["log"]] == [("crashed", cause)] * 3
    assert all(each["started_at"] and each["started_at"] <= each["ended_at"] for each in pill["log"])
    assert [task["result"] for task in neighbours] == ["well"] * NEIGHBOURS
    assert max(task["crashes"] for task in neighbours) <= 1, "a suspect is run alone, so nobody crashes twice with it"
    assert re.search(r'^tasks_processed_total\{status="failed",type="pill"\} 1\.0$', metrics, re.MULTILINE)
    dead = r'^headrace_tasks_dead_lettered_total\{reason="crashed",type="pill"\} 1\.0$'
    assert re.search(dead, metrics, re.MULTILINE)
