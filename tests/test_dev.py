"""`headrace dev`, run as a person runs it: started, used, reloaded, hurt, and stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from command_line import Command, http, run
from headrace_cli import main
from headrace_cli.dev_init import TEMPLATE
from headrace_cli.dev_metrics import Sums
from headrace_cli.dev_sample import example_of
from redis_server import await_true

TASKS = """\
import asyncio, os, signal
from pathlib import Path
from headrace import App, Ctx

app = App("tasks")
SAMPLES = [("version", 1, {})]

@app.task()
async def version() -> str:
    return "first"

@app.task()
async def sleep(seconds: float) -> str:
    Path("began").touch()
    await asyncio.sleep(seconds)
    return "slept"

@app.task()
async def hang_once(ctx: Ctx) -> int:
    while ctx.attempt == 1:
        await asyncio.sleep(1)
    return ctx.attempt

@app.task()
async def wait_for_file(name: str) -> None:
    Path("waits").touch()
    while not Path(name).exists():
        await asyncio.sleep(0.02)

@app.task()
async def die_once(ctx: Ctx, how: str) -> int:
    if ctx.attempt == 1:
        os._exit(7) if how == "exit" else os.kill(os.getpid(), getattr(signal, how))
    return ctx.attempt
"""

pytestmark = pytest.mark.slow
Dev = Callable[..., Command]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application `tasks`."""
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def dev(folder: Path) -> Iterator[Dev]:
    """Starts `headrace dev` there, on a free port; what still runs at the end is stopped."""
    with ExitStack() as running:

        def start(*args: str, **options: Any) -> Command:
            return running.enter_context(Command("dev", "--port", "0", *args, cwd=folder, **options))

        yield start


def url_of(command: Command) -> str:
    """The API's address. Once that is printed, everything runs."""
    return command.wait_for(r"API +(http://127\.0\.0\.1:\d+)")[1]


def submit(url: str, type_: str, payload: Mapping[str, Any] | None = None, **more: Any) -> str:
    body = {"type": type_, "payload": {**(payload or {}), **more}}
    return str(http("POST", f"{url}/api/v1/tasks", body)["task_id"])


def result(url: str, task_id: str) -> Any:
    """The task when it has ended."""
    return http("GET", f"{url}/api/v1/tasks/{task_id}?wait=30")


def workers(command: Command) -> list[int]:
    """Process ids of the worker processes."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=2) for line in listed.splitlines()[1:])
    return [int(pid) for pid, parent, args in rows if int(parent) == command.process.pid and " worker " in args]


def descendants(pid: int) -> set[int]:
    """Process ids of all that this process started, and all that those did."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    pairs = [(int(child), int(parent)) for child, parent in map(str.split, listed.splitlines()[1:])]
    found, new = set[int](), {pid}
    while new:
        new = {child for child, parent in pairs if parent in new} - found
        found |= new
    return found


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# -- the first minute


def test_an_empty_folder_is_explained_and_left_empty(tmp_path: Path) -> None:
    done = run("dev", cwd=tmp_path)
    assert done.returncode == main.USAGE
    assert "headrace dev --init" in done.stderr
    assert "tasks.py of 12 lines" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_writes_twelve_lines_whose_sample_completes(dev: Dev, folder: Path) -> None:
    refused = run("dev", "--init", cwd=folder)
    assert refused.returncode == main.USAGE
    assert (folder / "tasks.py").read_text() == TASKS
    (folder / "tasks.py").unlink()
    command = dev("--init")
    command.wait_for(r'sample hello completed in \d+ ms  → "Hello, world!"')
    assert (folder / "tasks.py").read_text() == TEMPLATE
    assert len(TEMPLATE.splitlines()) == 12
    assert command.stop() == main.OK


def test_the_screen_names_what_runs_and_its_curl_line_works(dev: Dev, folder: Path) -> None:
    command = dev("--workers", "2", "--concurrency", "3")
    url = url_of(command)
    line = command.wait_for(r"Try  (curl .*)")[1]
    command.wait_for(r'sample version completed in \d+ ms  → "first"')
    said = (
        r"Redis +redis://127\.0\.0\.1:\d+/0 .*\.headrace/",
        "Types +die_once  hang_once  sleep  version  wait_for_file",
        "Workers +2 processes × 3 slots",
        "Watching +1 file;",
    )
    assert all(re.search(each, command.output) for each in said), command.output
    assert len(workers(command)) == 2
    answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert '"status":"submitted"' in answer
    assert http("GET", f"{url}/health")["status"] == "ok"


def test_all_six_metrics_are_on_the_apis_port_and_the_page_is_valid(dev: Dev) -> None:
    command = dev("--workers", "2")
    url = url_of(command)
    for _ in range(4):
        result(url, submit(url, "version"))
    done = 'tasks_processed_total{status="completed",type="version"} 5.0'

    def page() -> str:
        return str(http("GET", f"{url}/metrics"))

    await_true(lambda: done in page(), timeout_s=20)
    text = page()
    families = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(families) == len(set(families))
    wanted = {"tasks_submitted_total", "tasks_processed_total", "task_duration_seconds", "queue_size",
              "workers_active", "task_retries_total"}  # fmt: skip
    assert wanted <= set(families)
    if shutil.which("promtool"):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_box_is_coloured_in_a_terminal_and_plain_in_a_pipe(dev: Dev) -> None:
    plain = dev()
    plain.wait_for("sample version completed")
    assert "\x1b" not in plain.output
    assert plain.stop() == main.OK
    coloured = dev(terminal=True)
    coloured.wait_for("sample version completed")
    assert "\x1b[" in coloured.output
    assert "╭" in coloured.output
    assert coloured.stop() == main.OK


def test_a_port_that_was_asked_for_and_is_taken_stops_the_start(dev: Dev, folder: Path) -> None:
    port = url_of(dev()).rpartition(":")[2]
    other = folder / "other"
    other.mkdir()
    shutil.copy(folder / "tasks.py", other)
    done = run("dev", "--port", port, cwd=other)
    assert done.returncode == main.USAGE
    assert "a port that is free" in done.stderr


def test_two_in_one_folder_are_refused_with_what_to_do(dev: Dev, folder: Path) -> None:
    url_of(dev())
    done = run("dev", "--port", "0", cwd=folder)
    assert done.returncode == main.FAILED
    assert "is in use already" in done.stderr


def test_a_worker_that_finds_work_does_not_bury_the_first_screen(dev: Dev, folder: Path, redis_url: str) -> None:
    run("submit", "version", "--batch", "-", cwd=folder, HEADRACE_URL=redis_url, stdin="{}\n" * 50)
    command = dev(HEADRACE_URL=redis_url)
    command.wait_for("sample version completed")
    told = command.output
    assert told.count("version completed after") >= 50
    assert "version" not in told[: told.index("Types")]


def test_a_redis_of_ones_own_is_used_and_named(dev: Dev, folder: Path, redis_url: str) -> None:
    command = dev(HEADRACE_URL=redis_url)
    url_of(command)
    command.wait_for(rf"Redis +{re.escape(redis_url)} \(from HEADRACE_URL\)")
    command.wait_for("sample version completed")
    assert not (folder / ".headrace").exists()


def test_an_application_that_cannot_be_imported_stops_the_start(folder: Path) -> None:
    (folder / "tasks.py").write_text(f"{TASKS}\nx = = 1\n")
    done = run("dev", cwd=folder)
    assert done.returncode == main.USAGE
    assert re.search(r"tasks\.py:\d+: invalid syntax\. Correct the line", done.stderr)
    assert "Traceback" not in done.stderr


def test_an_application_that_starts_a_program_when_it_is_imported(dev: Dev, folder: Path) -> None:
    lasting = 'import subprocess\nsubprocess.Popen(["sleep", "40"])\n'
    (folder / "tasks.py").write_text(lasting + TASKS)
    began = time.monotonic()
    url = url_of(dev("--no-sample"))
    assert result(url, submit(url, "version"))["result"] == "first"
    assert time.monotonic() - began < 35


# -- reload


def test_a_save_reloads_and_a_syntax_error_keeps_the_old_code(dev: Dev, folder: Path) -> None:
    command = dev()
    url = url_of(command)
    command.wait_for('"first"')
    (folder / "tasks.py").write_text(TASKS.replace('return "first"', 'return "second"'))
    command.wait_for("reloaded")
    assert result(url, submit(url, "version"))["result"] == "second"
    seen = len(command.output)
    (folder / "tasks.py").write_text(TASKS.replace('return "first"', "return ("))
    told = command.wait_for(r"(tasks\.py:\d+): .*; the old code keeps serving", after=seen)
    assert told[1] == "tasks.py:10"
    assert result(url, submit(url, "version"))["result"] == "second"
    seen = len(command.output)
    (folder / "tasks.py").write_text(TASKS.replace('return "first"', 'return "third"'))
    command.wait_for("reloaded", after=seen)
    assert result(url, submit(url, "version"))["result"] == "third"


@pytest.mark.parametrize("module", ["helpers", "shop.helpers"])
def test_a_module_that_was_never_imported_mends_the_application_when_it_is_saved(
    dev: Dev, folder: Path, module: str
) -> None:
    command = dev("--no-sample")
    url = url_of(command)
    told = "the old code keeps serving"
    path = folder / f"{module.replace('.', '/')}.py"
    (folder / "tasks.py").write_text(f"import {module}\n" + TASKS.replace('"first"', f"{module}.VERSION"))
    command.wait_for(f"No module named.*{told}")
    path.parent.mkdir(exist_ok=True)
    path.write_text("VERSION = (")
    command.wait_for(rf"helpers\.py:1: .*{told}")
    path.write_text('VERSION = "second"')
    command.wait_for("reloaded")
    assert result(url, submit(url, "version"))["result"] == "second"


def test_code_that_fails_when_its_worker_starts_leaves_the_old_workers(dev: Dev, folder: Path) -> None:
    command = dev()
    url = url_of(command)
    command.wait_for('"first"')
    broken = 'async def deps():\n    raise KeyError("lost")\n    yield\n\napp = App("tasks", deps=deps)'
    (folder / "tasks.py").write_text(TASKS.replace('app = App("tasks")', broken))
    command.wait_for("the new code does not start; the old code keeps serving")
    assert "lost" in command.output
    assert result(url, submit(url, "version"))["result"] == "first"


def test_a_reload_lets_short_tasks_end_and_hands_back_long_ones_free_of_charge(dev: Dev, folder: Path) -> None:
    command = dev()
    url = url_of(command)
    command.wait_for('"first"')
    short, long = submit(url, "wait_for_file", name="go"), submit(url, "hang_once")
    await_true((folder / "waits").exists)
    (folder / "tasks.py").write_text(TASKS + "\n")
    command.wait_for("draining: 2 running")
    (folder / "go").touch()
    command.wait_for("reloaded")
    ended = {name: result(url, task_id) for name, task_id in (("short", short), ("long", long))}
    assert {name: task["status"] for name, task in ended.items()} == {"short": "completed", "long": "completed"}
    assert (ended["short"]["attempts"], ended["short"]["interruptions"]) == (1, 0)
    assert (ended["long"]["crashes"], ended["long"]["interruptions"]) == (0, 1)


def test_an_application_whose_start_fails_can_be_mended_while_it_is_tried_again(dev: Dev, folder: Path) -> None:
    failing = 'async def deps():\n    raise KeyError("lost")\n    yield\n\napp = App("tasks", deps=deps)'
    (folder / "tasks.py").write_text(TASKS.replace('app = App("tasks")', failing))
    command = dev("--no-sample")
    url = url_of(command)
    command.wait_for(r"Error: tasks\.py:6: starting tasks raised KeyError: 'lost'")
    assert "click" not in command.output
    command.wait_for(r"w1 ended \(exit code 2\); it is started again")
    (folder / "tasks.py").write_text(TASKS)
    command.wait_for("reloaded")
    assert result(url, submit(url, "version"))["result"] == "first"


# -- what dies


@pytest.mark.parametrize(
    ("how", "cause"), [("SIGKILL", "killed by SIGKILL"), ("SIGSEGV", "killed by SIGSEGV"), ("exit", "exit code 7")]
)
def test_the_tasks_of_a_dead_worker_go_on_within_a_second_with_the_cause(dev: Dev, how: str, cause: str) -> None:
    command = dev()
    url = url_of(command)
    bystander = submit(url, "sleep", seconds=3)
    task = result(url, submit(url, "die_once", how=how))
    assert (task["status"], task["result"], task["crashes"]) == ("completed", 2, 1)
    assert task["log"][0]["cause"] == cause
    assert task["log"][0]["outcome"] == "crashed"
    command.wait_for(rf"w1 ended \({cause}\); \d tasks? handed on \([0-9a-f]{{8}}[^)]*\); it is started again")
    neighbour = result(url, bystander)
    assert neighbour["status"] == "completed"
    assert len(workers(command)) == 1


def test_a_kill_from_outside_is_seen_at_once(dev: Dev, folder: Path) -> None:
    command = dev("--workers", "2")
    url = url_of(command)
    task_id = submit(url, "sleep", seconds=5)
    await_true((folder / "began").exists)
    worker_id = http("GET", f"{url}/api/v1/tasks/{task_id}")["worker_id"]
    pids = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in workers(command)}
    [victim] = [pid for pid, environ in pids.items() if f"WORKER_ID={worker_id.rpartition(':')[0]}".encode() in environ]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    await_true(lambda: http("GET", f"{url}/api/v1/tasks/{task_id}")["crashes"] == 1)
    assert time.monotonic() - killed < 1.0
    assert result(url, task_id)["status"] == "completed"


def test_a_redis_that_dies_is_started_again(dev: Dev, folder: Path) -> None:
    command = dev()
    url = url_of(command)
    command.wait_for('"first"')
    os.kill(json.loads((folder / ".headrace/redis/server").read_text())["pid"], signal.SIGKILL)
    command.wait_for(r"Redis ended \(killed by SIGKILL\); it is started again")

    def healthy() -> bool:
        try:
            return bool(http("GET", f"{url}/health")["status"] == "ok")
        except urllib.error.HTTPError:
            return False

    await_true(healthy)
    assert result(url, submit(url, "version"))["result"] == "first"


def test_commands_in_the_folder_find_its_redis(dev: Dev, folder: Path) -> None:
    url_of(dev())
    done = run("submit", "version", "--wait", cwd=folder)
    assert (done.returncode, done.stdout) == (main.OK, '"first"\n'), done.stderr


# -- stopping


def test_ctrl_c_drains_leaves_nothing_behind_and_the_next_start_goes_on(dev: Dev, folder: Path) -> None:
    first = dev("--workers", "1", "--concurrency", "1", "--no-sample")
    url = url_of(first)
    running, waiting = submit(url, "sleep", seconds=1), submit(url, "version")
    await_true((folder / "began").exists)
    children = descendants(first.process.pid)
    assert first.stop() == main.OK
    assert all(gone(pid) for pid in children)
    assert "stopping" in first.output
    second = dev("--no-sample")
    url = url_of(second)
    assert result(url, running)["status"] == "completed"
    assert result(url, running)["attempts"] == 1
    assert result(url, waiting)["result"] == "first"


def test_a_stop_does_not_wait_for_an_import_that_hangs(dev: Dev, folder: Path) -> None:
    command = dev("--no-sample")
    url_of(command)
    (folder / "tasks.py").write_text("from pathlib import Path\nimport time\nPath('began').touch()\ntime.sleep(50)")
    await_true((folder / "began").exists)
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(timeout=20) == 0


def test_a_second_ctrl_c_does_not_wait_and_the_task_is_not_charged(dev: Dev, folder: Path) -> None:
    first = dev("--no-sample", HEADRACE_GRACE_S="300")
    url = url_of(first)
    task_id = submit(url, "sleep", seconds=60)
    await_true((folder / "began").exists)
    first.send(signal.SIGINT)
    first.wait_for("draining: 1 running")
    assert first.stop() == main.OK
    second = dev("--no-sample", "--workers", "0")
    task = http("GET", f"{url_of(second)}/api/v1/tasks/{task_id}")
    assert (task["status"], task["crashes"], task["interruptions"]) == ("pending", 0, 1)


def test_killed_itself_it_leaves_no_process_and_the_next_start_takes_its_tasks_at_once(dev: Dev, folder: Path) -> None:
    first = dev("--no-sample", HEADRACE_GRACE_S="0")
    url = url_of(first)
    task_id = submit(url, "sleep", seconds=2)
    await_true((folder / "began").exists)
    children = descendants(first.process.pid)
    first.process.kill()
    await_true(lambda: all(gone(pid) for pid in children), timeout_s=30)
    second = dev("--no-sample")
    assert result(url_of(second), task_id)["status"] == "completed"


# -- the examples


def test_all_four_examples_complete_as_they_are_shipped(dev: Dev, folder: Path) -> None:
    examples = pytest.importorskip("examples.samples", reason="the examples are not in this checkout")
    pytest.importorskip("aiosmtpd", reason="pip install 'headrace[examples]'")
    (folder / "examples").symlink_to(Path(examples.__file__).parent)
    command = dev("--app", "examples.tasks")
    url = url_of(command)
    command.wait_for(r"sample send_email completed")
    port = json.loads((folder / ".headrace/targets.json").read_text())["http"]
    samples = examples.samples({"EXAMPLES_LOOPBACK": f"127.0.0.1:{port}"})
    assert {each.type for each in samples} == {"send_email", "process_image", "export_data", "call_webhook"}
    ids = [submit(url, each.type, each.payload) for each in samples]
    assert [result(url, task_id)["status"] for task_id in ids] == ["completed"] * 4


# -- parts


def test_an_example_payload_has_what_is_required_and_fits() -> None:
    schema = {
        "type": "object",
        "required": ["name", "size", "mode", "when", "tags", "inner"],
        "properties": {
            "name": {"type": "string", "minLength": 8},
            "size": {"type": "integer", "exclusiveMinimum": 10, "multipleOf": 5},
            "mode": {"enum": ["fast", "slow"]},
            "when": {"anyOf": [{"type": "null"}, {"type": "string", "format": "date"}]},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "inner": {"$ref": "#/$defs/Inner"},
            "optional": {"type": "string"},
        },
        "$defs": {"Inner": {"type": "object", "required": ["on"], "properties": {"on": {"type": "boolean"}}}},
    }
    assert example_of(schema) == {
        "name": "namexxxx",
        "size": 15,
        "mode": "fast",
        "when": "2026-01-15",
        "tags": ["tags"],
        "inner": {"on": False},
    }


def test_sums_of_metrics_never_fall_when_a_worker_ends() -> None:
    page = (
        '# TYPE tasks_processed_total counter\ntasks_processed_total{{type="a"}} {0}\n'
        "# TYPE slots gauge\nslots 10\n"
        "# TYPE beat_timestamp_seconds gauge\nbeat_timestamp_seconds {1}\n"
    )
    sums = Sums()
    sums.heard("w1", page.format(3, 100))
    sums.heard("w2", page.format(4, 200))

    def values() -> dict[str, float]:
        return {sample.name: sample.value for family in sums.families() for sample in family.samples}

    assert values() == {"tasks_processed_total": 7, "slots": 20, "beat_timestamp_seconds": 200}
    sums.ended("w1")
    assert values() == {"tasks_processed_total": 7, "slots": 10, "beat_timestamp_seconds": 200}
    sums.heard("w3", page.format(1, 300))
    assert values() == {"tasks_processed_total": 8, "slots": 20, "beat_timestamp_seconds": 300}
