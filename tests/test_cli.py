"""The commands, run as people run them: what they print, and which exit code they end with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import redis

from command_desk import in_place
from command_line import HEADRACE, Command, clean_environ, http, run
from headrace_cli import main
from headrace_cli.ports import free_port
from redis_server import RedisServer

TASKS = """\
import asyncio
from headrace import App, Permanent

app = App("shop")

@app.task(priority="high")
async def greet(name: str) -> str:
    return f"Hello, {name}!"

@app.task(queue="images")
async def fail(why: str) -> None:
    raise Permanent(why)

@app.task()
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
"""


class Done(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


Headrace = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application `tasks`."""
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def headrace(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Headrace:
    """Runs a command with an empty Redis, in a folder with an application: in this process, which starts it quicker."""
    monkeypatch.chdir(folder)
    command = in_place(redis_url, monkeypatch, capfd)
    return lambda *args, stdin="": Done(*command(*args, stdin=stdin))


@pytest.fixture
def worker(folder: Path, redis_url: str) -> Iterator[Command]:
    """A worker for the application that has published its types and shown a sign of life."""
    arguments = ("worker", "--app", "tasks", "--metrics-port", "0", "--grace-s", "1")
    with Command(*arguments, cwd=folder, HEADRACE_URL=redis_url) as running:
        with redis.Redis.from_url(redis_url) as client:
            await_worker(client, running)
        yield running


def await_worker(client: redis.Redis, running: Command) -> None:
    """Wait for its types and its first beat. It tells nobody, so this asks."""
    while not all(
        client.hlen(key) for key in ("hr:{default}:types", "hr:{default/default}:w", "hr:{default/images}:w")
    ):
        assert running.process.poll() is None, running.output


def only_id(done: Done) -> str:
    assert done.returncode == main.OK, done.stderr
    return str(uuid.UUID(done.stdout.strip()))


# -- help and errors


def every_command(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_command(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(every_command(main.cli)), ids=" ".join)
def test_every_help_tells_what_it_does_and_has_examples(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*path, "--help"]) == main.OK
    text = capsys.readouterr().out
    assert "Examples:\n  " in text
    assert " ".join(("headrace", *path)) in text.partition("Examples:")[2]


def test_help_imports_nothing_but_click() -> None:
    script = (
        "import sys; from headrace_cli import main; main.run(['--help']); "
        "print(sorted({'headrace', 'rich', 'redis', 'aiohttp', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == main.OK
    assert capsys.readouterr().out == "headrace 0.1.0\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["wroker"], "There is no command 'wroker'. Did you mean 'worker'?"),
        (["queue", "lst"], "There is no command 'lst'. Did you mean 'ls'?"),
        (["submit"], "Name the type of the task"),
        (["task", "get", "--colour", "x"], "No such option"),
    ],
)
def test_a_wrong_command_line_is_answered_with_the_right_one(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(args) == main.USAGE
    assert said in capsys.readouterr().err


def test_an_unreachable_redis_is_named_with_its_source_and_without_its_password(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    done = run("queue", "ls", cwd=tmp_path, HEADRACE_URL=url)
    assert done.returncode == main.UNREACHABLE
    assert done.stderr.startswith("Error: Redis cannot be reached at redis://:***@127.0.0.1:")
    assert "(from HEADRACE_URL)" in done.stderr
    assert "headrace dev" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    for args in (("--debug", "queue", "ls"), ("queue", "ls", "--debug")):
        done = run(*args, cwd=tmp_path, HEADRACE_URL=url)
        assert done.returncode == main.UNREACHABLE
        assert done.stderr.startswith("Traceback")


@pytest.mark.parametrize("name", ["HEADRACE_CONCURENCY", "HEADRACE_CONCURRENCY"])
def test_a_bad_setting_stops_the_start_with_a_sentence(folder: Path, name: str) -> None:
    done = run("worker", "--app", "tasks", cwd=folder, **{name: "many"})
    assert done.returncode == main.USAGE
    assert done.stderr.startswith(f"Error: {name} ")
    assert "HEADRACE_CONCURRENCY" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_flag_is_said_to_come_from_the_command_line(folder: Path) -> None:
    done = run("worker", "--app", "tasks", "--concurrency", "0", cwd=folder)
    assert done.returncode == main.USAGE
    assert "(from the command line)" in done.stderr


def test_a_reader_that_leaves_early_gets_no_traceback(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [*HEADRACE, "queue", "ls", "--help"],
            env=clean_environ(),
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (main.FAILED, b"")


# -- submit, task


def test_submit_prints_the_id_alone_and_the_task_waits(headrace: Headrace) -> None:
    task_id = only_id(headrace("submit", "greet", '{"name": "Ada"}', "--priority", "critical", "--max-retries", "7"))
    task = json.loads(headrace("task", "get", task_id, "-o", "json").stdout)
    shown = {name: task[name] for name in ("type", "priority", "status", "payload", "max_retries")}
    assert shown == {"type": "greet", "priority": 3, "status": "pending", "payload": {"name": "Ada"}, "max_retries": 7}


def test_submit_reads_the_payload_from_a_file_or_standard_input(headrace: Headrace, folder: Path) -> None:
    (folder / "payload.json").write_text('{"name": "file"}')
    for args, more in ((("@payload.json",), {}), (("-",), {"stdin": '{"name": "file"}'})):
        task_id = only_id(headrace("submit", "greet", *args, **more))
        assert json.loads(headrace("task", "get", task_id, "-o", "json").stdout)["payload"] == {"name": "file"}
    missing = headrace("submit", "greet", "@nowhere.json")
    assert missing.returncode == main.USAGE
    assert "nowhere.json" in missing.stderr


@pytest.mark.parametrize("payload", ['{"name": ', '{"name": NaN}', '{"a": 1, "a": 2}', "[1]"])
def test_submit_refuses_what_the_api_would_refuse(headrace: Headrace, payload: str) -> None:
    done = headrace("submit", "greet", payload)
    assert done.returncode == main.USAGE
    assert done.stderr.startswith("Error: ")
    assert done.stdout == ""


def test_the_same_id_twice_is_one_task_and_another_payload_under_it_is_refused(headrace: Headrace) -> None:
    task_id = str(uuid.uuid4())
    for _ in range(2):
        assert only_id(headrace("submit", "greet", '{"name": "Ada"}', "--id", task_id)) == task_id
    assert json.loads(headrace("queue", "ls", "-o", "json").stdout)[0]["pending"] == 1
    other = headrace("submit", "greet", '{"name": "Eve"}', "--id", task_id)
    assert other.returncode == main.USAGE
    assert "exists already with another type or payload" in other.stderr
    assert headrace("submit", "greet", "--id", "no-uuid").returncode == main.USAGE


def test_a_task_is_delayed_made_due_and_cancelled(headrace: Headrace) -> None:
    task_id = only_id(headrace("submit", "greet", '{"name": "x"}', "--delay", "3600"))

    def status() -> str:
        return str(json.loads(headrace("task", "get", task_id, "-o", "json").stdout)["status"])

    assert status() == "scheduled"
    assert headrace("task", "retry", task_id).stdout == f"{task_id}: pending\n"
    assert status() == "pending"
    assert json.loads(headrace("task", "cancel", task_id, "-o", "json").stdout)["status"] == "cancelled"
    assert status() == "cancelled"
    again = headrace("task", "retry", task_id)
    assert (again.returncode, again.stdout) == (main.FAILED, "")
    assert "is cancelled, so it cannot be retried" in again.stderr


def test_an_unknown_task_is_a_failure_with_a_sentence(headrace: Headrace) -> None:
    for task_id in (str(uuid.uuid4()), "no-id"):
        for verb in ("get", "cancel", "retry"):
            done = headrace("task", verb, task_id)
            assert done.returncode == main.FAILED
            assert f"No task '{task_id}' is known" in done.stderr


# -- with a worker


def test_wait_prints_the_result_and_only_that(headrace: Headrace, worker: Command) -> None:
    done = headrace("submit", "greet", '{"name": "Ada"}', "--wait")
    assert (done.returncode, done.stdout) == (main.OK, '"Hello, Ada!"\n')


def test_wait_fails_as_the_task_does(headrace: Headrace, worker: Command) -> None:
    done = headrace("submit", "fail", '{"why": "no such cat"}', "--wait")
    assert done.returncode == main.FAILED
    assert "failed with" in done.stderr
    assert "no such cat" in done.stderr
    task_id = done.stderr.split()[0]
    assert task_id.startswith("images.")
    text = headrace("task", "get", task_id).stdout
    assert "status     failed" in text
    assert "no such cat" in text
    assert headrace("task", "retry", task_id).stdout == f"{task_id}: pending\n"


def test_wait_ends_with_its_own_code_when_it_took_too_long(headrace: Headrace, worker: Command) -> None:
    done = headrace("submit", "sleep", '{"seconds": 30}', "--wait", "--timeout", "0.2")
    assert done.returncode == main.TIMED_OUT
    assert "is still processing after 0.2 s" in done.stderr


def test_submit_checks_the_payload_of_a_known_type(headrace: Headrace, worker: Command) -> None:
    done = headrace("submit", "greet", '{"nmae": "Ada"}')
    assert done.returncode == main.USAGE
    assert "/payload/nmae" in done.stderr
    assert "did you mean 'name'?" in done.stderr


def test_submit_warns_of_an_unknown_type_and_takes_it(headrace: Headrace, worker: Command) -> None:
    done = headrace("submit", "gret")
    only_id(done)
    assert "did you mean 'greet'?" in done.stderr


def test_a_paused_queue_is_listed_and_not_served_until_it_is_resumed(headrace: Headrace, worker: Command) -> None:
    assert headrace("queue", "pause", "default").stdout == "default: paused\n"
    task_id = only_id(headrace("submit", "greet", '{"name": "x"}'))
    listed = {row["queue"]: row for row in json.loads(headrace("queue", "ls", "-o", "json").stdout)}
    assert (listed["default"]["pending"], listed["default"]["paused"]) == (1, True)
    assert len(listed["default"]["workers"]) == 1
    assert headrace("queue", "ls").stdout.splitlines()[0].split()[:2] == ["QUEUE", "PENDING"]
    assert headrace("queue", "resume", "default").stdout == "default: not paused\n"
    worker.wait_for(task_id)
    unknown = headrace("queue", "pause", "defualt")
    assert unknown.returncode == main.FAILED
    assert "did you mean 'default'?" in unknown.stderr.lower()


def test_a_worker_serves_the_queues_of_its_application_and_drains_on_sigterm(
    headrace: Headrace, worker: Command
) -> None:
    assert {row["queue"] for row in json.loads(headrace("queue", "ls", "-o", "json").stdout)} == {"default", "images"}
    task_id = only_id(headrace("submit", "sleep", '{"seconds": 0.5}'))

    def task() -> Any:
        return json.loads(headrace("task", "get", task_id, "-o", "json").stdout)

    while task()["status"] == "pending":
        continue
    worker.send(signal.SIGTERM)
    assert worker.end() == main.OK
    assert task()["status"] == "completed"


def test_a_worker_without_an_application_says_how_to_name_one(headrace: Headrace) -> None:
    done = headrace("worker")
    assert done.returncode == main.USAGE
    assert "--app MODULE" in done.stderr


# -- api


def test_api_serves_on_its_port_and_stops_on_sigterm(folder: Path, redis_url: str) -> None:
    port = str(free_port())
    with Command("api", cwd=folder, HEADRACE_URL=redis_url, PORT=port) as api:
        api.wait_for(f"listens on http://127.0.0.1:{port}")
        assert http("GET", f"http://127.0.0.1:{port}/health")["status"] == "ok"
        taken = run("api", cwd=folder, HEADRACE_URL=redis_url, PORT=port)
        assert taken.returncode == main.USAGE
        assert "PORT" in taken.stderr
        api.send(signal.SIGTERM)
        assert api.end() == main.OK


def test_api_beyond_loopback_wants_tokens(folder: Path) -> None:
    done = run("api", "--host", "0.0.0.0", cwd=folder)
    assert done.returncode == main.USAGE
    assert "HEADRACE_TOKENS" in done.stderr


# -- colour


def test_colour_in_a_terminal_and_none_with_no_color(redis_server: RedisServer, redis_url: str, folder: Path) -> None:
    plain: dict[str, str] = {"NO_COLOR": "1"}
    for environ, coloured in ((dict[str, str](), True), (plain, False)):
        with Command("task", "get", "x", cwd=folder, terminal=True, HEADRACE_URL=redis_url, **environ) as command:
            assert command.end() == main.FAILED
            assert ("\x1b[31m" in command.output) is coloured
            assert "Error: " in command.output.replace("\x1b[0m", "").replace("\x1b[31m", "").replace("\x1b[1m", "")


def test_no_colour_in_a_pipe(folder: Path, redis_url: str) -> None:
    done = run("task", "get", "x", cwd=folder, HEADRACE_URL=redis_url, TERM="xterm-256color")
    assert done.stderr.startswith("Error: No task 'x' is known.")
    assert "\x1b" not in done.stderr + done.stdout


def test_every_sample_of_the_application_can_be_copied() -> None:
    """`headrace dev` prints a line for each of an application's own samples: some need addresses that only it knows."""
    from headrace_cli.dev_probe import Found, Sample
    from headrace_cli.dev_sample import to_copy

    samples = [Sample(f"type_{n}", 1, {"n": n}) for n in range(4)]
    assert to_copy(Found("app", {}, ["default"], samples=samples)) == samples
    assert to_copy(Found("app", {}, ["default"])) == []
