"""`headrace dev -f pool.yaml`, run as a person runs it: woken, hurt, edited, and stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from command_line import Command, clean_environ, http, run
from headrace_cli import dev_pools, main
from headrace_operator.spec import read_spec
from redis_server import await_true

ROOT = Path(__file__).parent.parent
TASKS = """\
import asyncio, os
from headrace import App

app = App("tasks")

@app.task()
async def nap(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return "first"
"""
POOL = """\
apiVersion: headrace.dev/v1alpha1
kind: WorkerPool
metadata: {name: naps}
spec:
  queues: [{name: default}]
  scaling:
    maxReplicas: 3
    idleSeconds: 0
    behavior: {scaleDown: {stabilizationWindowSeconds: 0, policies: []}}
  worker: {concurrency: 2}
  template:
    spec:
      containers:
        - {name: worker, image: "shop:1.4", args: [worker, --app, tasks], resources: {limits: {cpu: 1}}}
"""
EXTERNAL = POOL.replace("spec:\n  queues", "spec:\n  mode: External\n  replicas: 2\n  queues", 1)

Dev = Callable[..., Command]
slow = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "pool.yaml").write_text(POOL)
    return tmp_path


@pytest.fixture
def dev(folder: Path) -> Iterator[Dev]:
    """Starts `headrace dev -f pool.yaml` there, on a free port; what still runs at the end is killed."""
    with ExitStack() as running:

        def start(*args: str, **options: Any) -> Command:
            given = ("dev", "-f", "pool.yaml", "--port", "0", "--no-sample", *args)
            return running.enter_context(Command(*given, cwd=folder, **options))

        yield start


def url_of(command: Command) -> str:
    return command.wait_for(r"API +(http://127\.0\.0\.1:\d+)")[1]


def submit(url: str, **payload: Any) -> str:
    return str(http("POST", f"{url}/api/v1/tasks", {"type": "nap", "payload": payload})["task_id"])


def look(url: str, task_id: str) -> Any:
    return http("GET", f"{url}/api/v1/tasks/{task_id}")


def result(url: str, task_id: str) -> Any:
    """The task when it has ended."""
    return http("GET", f"{url}/api/v1/tasks/{task_id}?wait=30")


def workers(command: Command) -> list[int]:
    """Process ids of the worker processes."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=2) for line in listed.splitlines()[1:])
    return [int(pid) for pid, parent, args in rows if int(parent) == command.process.pid and " worker " in args]


@slow
def test_tasks_wake_a_pool_and_it_goes_back_to_zero_and_says_why(dev: Dev) -> None:
    command = dev()
    url = url_of(command)
    command.wait_for(r"naps the image shop:1\.4 is not used: processes of this Python run the code of this folder")
    command.wait_for("naps processes do not follow resources")
    assert "Pool      naps: 0 to 3 processes of queue default, 2 slots a process" in command.output
    assert "Workers" not in command.output and workers(command) == []
    task = result(url, submit(url))
    assert (task["status"], task["result"], task["attempts"]) == ("completed", "first", 1)
    command.wait_for(r"naps WokeFromZero: 0 → 1: 1 pending × 1 s / 2.5 s = 0\.4 slots, 2 a replica")
    command.wait_for(r"naps +1 (of [01] )?ready")
    command.wait_for(r"naps ScaledToZero: 1 → 0: nothing waits and nothing runs")
    await_true(lambda: workers(command) == [])
    assert "naps warning" not in command.output.replace("  ", " "), command.output


@slow
def test_the_task_of_a_killed_process_goes_on_with_its_cause(dev: Dev) -> None:
    command = dev()
    url = url_of(command)
    task_id = submit(url, seconds=1.5)
    await_true(lambda: look(url, task_id)["status"] == "processing", timeout_s=30)
    os.kill(workers(command)[0], signal.SIGKILL)
    await_true(lambda: look(url, task_id)["crashes"] == 1, timeout_s=2)
    assert look(url, task_id)["log"][0]["cause"] == "killed by SIGKILL"
    command.wait_for(r"naps warning: WorkerDied: pod dev-naps-\w+-1: killed by SIGKILL")
    command.wait_for("naps TasksHandedOn: ")
    assert result(url, task_id)["status"] == "completed"


@slow
def test_saving_the_file_changes_the_pools_and_a_slip_changes_nothing(dev: Dev, folder: Path) -> None:
    file = folder / "pool.yaml"
    command = dev()
    url_of(command)
    file.write_text(EXTERNAL)
    command.wait_for(r"pool\.yaml changed: naps")
    command.wait_for("naps 2 of 2 ready")
    file.write_text(EXTERNAL.replace("replicas: 2", "replica: 1"))
    command.wait_for(r"no field spec\.replica\. Did you mean replicas\? The pools go on as they were\.")
    assert len(workers(command)) == 2
    file.write_text(EXTERNAL.replace("name: naps", "name: other"))
    command.wait_for(r"pool\.yaml changed: other, naps")
    command.wait_for("other 2 of 2 ready")
    await_true(lambda: len(workers(command)) == 2)
    assert command.stop() == main.OK
    assert "other-1 draining: 0 running" in command.output


@slow
def test_saving_the_code_replaces_the_processes(dev: Dev, folder: Path) -> None:
    pytest.importorskip("watchfiles")
    (folder / "pool.yaml").write_text(EXTERNAL)
    command = dev()
    url = url_of(command)
    command.wait_for("naps 2 of 2 ready")
    before = workers(command)
    (folder / "tasks.py").write_text(TASKS.replace("first", "second"))
    command.wait_for("reloaded")
    await_true(lambda: len(workers(command)) == 2 and not {*before} & {*workers(command)}, timeout_s=30)
    assert result(url, submit(url))["result"] == "second"
    counted = 'tasks_processed_total{status="completed",type="nap"} 1.0'
    await_true(lambda: counted in str(http("GET", f"{url}/metrics")), timeout_s=20)


@slow
def test_ctrl_c_drains_all_and_leaves_nothing_and_a_second_one_does_not_wait(dev: Dev, folder: Path) -> None:
    (folder / "pool.yaml").write_text(EXTERNAL)
    command = dev("--workers", "1", HEADRACE_GRACE_S="300")
    url = url_of(command)
    command.wait_for("naps 2 of 2 ready")
    assert len(workers(command)) == 3, "its own worker beside the pool's two"
    ids = [submit(url, seconds=60) for _ in range(3)]
    await_true(lambda: all(look(url, task_id)["status"] == "processing" for task_id in ids))
    children = workers(command)
    command.send(signal.SIGINT)
    command.wait_for("naps-1 .*draining: ")
    assert command.stop() == main.OK
    assert all(not Path(f"/proc/{pid}").exists() for pid in children)
    (folder / "pool.yaml").write_text(POOL.replace("spec:", "spec:\n  mode: Paused", 1))
    url = url_of(dev())
    assert [(look(url, task_id)["crashes"], look(url, task_id)["interruptions"]) for task_id in ids] == [(0, 1)] * 3


@slow
def test_the_pool_of_the_examples_runs_them(folder: Path) -> None:
    pytest.importorskip("aiosmtpd", reason="pip install 'headrace[examples]'")
    shutil.copytree(ROOT / "examples", folder / "examples")
    with Command("dev", "-f", "examples/pool.yaml", "--port", "0", cwd=folder) as command:
        command.wait_for(r"examples WokeFromZero: 0 → 1")
        command.wait_for(r"sample send_email completed")


@pytest.mark.parametrize(("scaling", "most"), [
    ({"maxReplicas": 500}, dev_pools.MOST), ({"maxReplicas": 5}, 5), ({"maxReplicas": 500, "minReplicas": 200}, 200),
])  # fmt: skip
def test_a_laptop_gets_no_more_processes_than_it_can_bear(scaling: dict[str, int], most: int) -> None:
    spec = read_spec({"queues": [{"name": "a"}], "scaling": scaling, "redis": {"connection": "shop"}})
    here = dev_pools._bearable(spec)
    assert (here.scaling.max_replicas, here.redis.connection) == (most, "default")


def test_a_wrong_file_stops_the_start_with_its_field(folder: Path) -> None:
    (folder / "pool.yaml").write_text(POOL.replace("maxReplicas", "maxReplica"))
    done = run("dev", "-f", "pool.yaml", cwd=folder)
    assert done.returncode == main.USAGE
    said = "pool.yaml: WorkerPool naps: there is no field spec.scaling.maxReplica. Did you mean maxReplicas?"
    assert said in done.stderr
    assert not (folder / ".headrace").exists()


def test_without_the_packages_of_the_operator_it_says_what_to_install(folder: Path) -> None:
    """cronsim is the only one that it needs; kopf and kubernetes are not missed."""
    code = "import sys; sys.modules['{}'] = None; from headrace_cli.main import run; sys.exit(run(['dev', '-f', '{}']))"

    def dev_without(module: str, file: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code.format(module, file)],
            cwd=folder, env=clean_environ(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == (main.FAILED if module == "cronsim" else main.USAGE)
        return done.stderr

    assert "pip install 'headrace[operator]'" in dev_without("cronsim", "pool.yaml")
    (folder / "none.yaml").write_text("")
    assert "there is no WorkerPool in it" in dev_without("kopf", "none.yaml")
    assert not re.search("kopf|kubernetes", dev_without("kubernetes", "none.yaml"))
