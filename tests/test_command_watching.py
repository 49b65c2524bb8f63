"""Commands that show types, workers and events, watch, and wait."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import msgspec
import pytest

from command_desk import Headrace, run_beside, submitted
from command_line import Command, run
from headrace import App
from headrace_cli import main
from redis_server import RedisServer
from worker_harness import Desk, working


@pytest.mark.usefixtures("published")
def test_types_are_listed_with_their_arguments(typed: Headrace) -> None:
    assert typed("types").out.splitlines()[1].split() == ["greet", "default", "high", "0", "name,", "loud?"]
    assert "Greet somebody." in typed("types", "-o", "wide").out
    one = typed("types", "greet").out
    assert "timeout    300 s" in one
    assert '"additionalProperties": false' in one
    assert "Did you mean 'greet'?" in typed("types", "gret").err


async def test_workers_are_listed_with_what_they_run_and_whether_they_live(redis_url: str, tmp_path: Path) -> None:
    import asyncio

    app: App[None] = App("t")
    begun = asyncio.Event()

    @app.task()
    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    async with working(app, redis_url, grace_s=0.1, concurrency=4), Desk(redis_url) as desk:
        task_id = await desk.submit("wait")
        await begun.wait()
        [worker] = (await run_beside("workers", "-o", "json", url=redis_url)).data
    assert (worker["alive"], worker["held"], worker["slots"], worker["queues"]) == (True, 1, 4, ["default"])
    assert [each["id"] for each in worker["running"]] == [task_id]


def test_a_worker_that_was_killed_is_shown_as_dead(typed: Headrace, redis_server: RedisServer) -> None:
    submitted(typed, 1)
    redis_server.redis.hset("hr:{default/default}:w", "gone:1", "17")
    listed = typed("workers").out.splitlines()
    assert listed[1].split()[:2] == ["gone:1", "dead"]


def test_watch_shows_the_queues_again_when_they_changed(typed: Headrace, redis_url: str, tmp_path: Path) -> None:
    submitted(typed, 1)
    with Command("queue", "ls", "--watch", cwd=tmp_path, HEADRACE_URL=redis_url) as watching:
        watching.wait_for(r"default +1 ")
        submitted(typed, 1)
        watching.wait_for(r"default +2 ")
        assert watching.stop() == main.INTERRUPTED
    assert watching.output.count("QUEUE") == 2
    assert "Traceback" not in watching.output


def test_events_are_followed_as_they_end(typed: Headrace, redis_url: str, tmp_path: Path) -> None:
    """A line each, of those that are wanted, until so many have come."""
    with Command("watch", "type:gr*", "state:cancelled", "-n", "1", cwd=tmp_path, HEADRACE_URL=redis_url) as following:
        ended: list[str] = []
        while following.process.poll() is None:
            ended += submitted(typed, 1)
            typed("task", "cancel", ended[-1])
        assert following.end() == 0
    at, state, type_, task_id = following.output.split()
    assert at.endswith("Z")
    assert (state, type_) == ("cancelled", "greet")
    assert task_id in ended


def test_a_watch_goes_on_behind_what_was_seen(typed: Headrace) -> None:
    ids = submitted(typed, 3)
    for task_id in ids:
        typed("task", "cancel", task_id)
    lines = typed("watch", "-n", "3", "--last-id", "0-0/default", "-o", "json").out.splitlines()
    seen = [json.loads(line) for line in lines]
    assert [(each["id"], each["status"], each["gap"]) for each in seen] == [(each, "cancelled", False) for each in ids]
    assert typed("watch", "-n", "2", "--last-id", seen[0]["last_id"], "-o", "name").out.split() == ids[1:]
    documents = typed("watch", "-n", "3", "--last-id", "0-0/default", "-o", "yaml").out.split("---\n")
    assert [msgspec.yaml.decode(each) for each in documents[1:]] == seen
    first = typed("watch", "-n", "1", "--last-id", "0-0/default", "-o", "wide").out.split()
    assert first == [seen[0]["at"], "cancelled", "greet", "default", ids[0]]
    refused = typed("watch", "--last-id", "nonsense")
    assert (refused.code, "/last_id" in refused.err) == (main.USAGE, True)


def test_events_know_no_other_filters(typed: Headrace) -> None:
    """What would need a look at each task is refused."""
    refused = typed("watch", "error:Timeout")
    assert refused.code == main.USAGE
    assert "only state:, type: and queue:" in refused.err


def test_watch_shows_a_task_until_it_has_ended(typed: Headrace, redis_url: str, tmp_path: Path) -> None:
    [task_id] = submitted(typed, 1)
    with Command("task", "get", task_id, "--watch", cwd=tmp_path, HEADRACE_URL=redis_url) as watching:
        watching.wait_for(r"status +pending")
        typed("task", "cancel", task_id)
        watching.wait_for(r"status +cancelled")
        assert watching.end() == main.FAILED


def test_ctrl_c_while_waiting_says_how_to_wait_again(redis_url: str, tmp_path: Path) -> None:
    with Command("submit", "greet", "--wait", cwd=tmp_path, HEADRACE_URL=redis_url) as waiting:
        task_id = waiting.wait_for(r"^([0-9a-f-]{36})$|\n([0-9a-f-]{36})\n")[0].strip()
        assert waiting.stop() == main.INTERRUPTED
    assert f"headrace task get {task_id} --wait" in waiting.output
    done = run("task", "get", task_id, "--wait", "--timeout", "0.1", cwd=tmp_path, HEADRACE_URL=redis_url)
    assert done.returncode == main.TIMED_OUT


def test_ctrl_c_in_a_batch_says_where_to_go_on(redis_url: str, tmp_path: Path) -> None:
    pipe = tmp_path / "tasks.ndjson"
    os.mkfifo(pipe)
    command = Command("submit", "greet", "--batch", str(pipe), cwd=tmp_path, HEADRACE_URL=redis_url)
    with command as sending, pipe.open("w") as lines:
        lines.write('{"name": "x"}\n' * 500)
        lines.flush()
        sending.wait_for(r"(?:[0-9a-f-]{36}\n){500}")
        sending.send(signal.SIGINT)
        assert sending.end() == main.INTERRUPTED
    assert "500 tasks were stored. Go on with the same command and --skip 500" in sending.output
