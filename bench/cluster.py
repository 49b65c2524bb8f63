"""`python -m bench.cluster`: how fast pools of a real Kubernetes react, beside the floor of the same image."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

import cluster_kit
from cluster import choice
from cluster.choice import Cluster
from cluster_kit import World, until, world

from .report import commit, processor

PODS: Final = 20
TASKS: Final = 400
FLOOR: Final = "floor"
Round = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the table, in seconds."""

    key: str
    title: str
    floor: str = ""
    """Key of what it stands beside."""
    goal_s: float | None = None
    goal_x: float | None = None
    """Goal as a multiple of the floor."""


ROWS: Final = (
    Row("written", "one task at zero: submitted → replicas written", goal_s=0.1),
    Row("floor_started", "floor: replicas written by hand → first line of the task"),
    Row("started", "one task at zero: submitted → its first line", "floor_started", goal_x=1.3),
    Row("floor_ready", f"floor: {PODS} replicas written by hand → {PODS} Ready"),
    Row("ready", f"{TASKS} tasks of 1 s at zero: submitted → {PODS} Ready", "floor_ready", goal_x=1.2),
    Row("floor_drained", f"floor: {PODS} replicas written by hand at the submission → all completed"),
    Row(
        "drained",
        f"{TASKS} tasks of 1 s at zero: submitted → all completed (ideal {TASKS // PODS})",
        "floor_drained",
        goal_s=27.0,
    ),
    Row("again", "kill -9 of a busy worker → its task starts again", goal_s=2.0),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The table shows their median.")
@click.option("--only", type=click.Choice(["wake", "burst", "kill"]), help="One of the three measurements.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where the JSON goes. [bench/results/…]")
def main(rounds: int, only: str | None, path: Path | None) -> None:
    """Measure on the cluster of the tests. It wants an idle machine: a missed goal is told, and is no error."""
    made = choice.given(os.environ)
    with nullcontext() if made else choice.alone(wait=True):
        cluster = made or _start()
        cluster_kit.install(cluster)
        before = os.getloadavg()
        found = asyncio.run(_measure(cluster, rounds, only))
    facts = _facts(before)
    path = path or Path(__file__).parent / "results" / f"cluster-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"facts": facts, "rounds": found}, indent=1) + "\n")
    _show(found, facts)
    click.echo(f"Every round is in {path}")


def _start() -> Cluster:
    way = choice.choose()
    if isinstance(way, str):
        raise click.ClickException(f"{way[0].upper()}{way[1:]}.")
    return choice.running(way)


async def _measure(cluster: Cluster, rounds: int, only: str | None) -> list[Round]:
    found: list[Round] = [{} for _ in range(rounds)]
    measures = {"wake": _wake, "burst": _burst, "kill": _kill}
    for name, measure in measures.items():
        if only in {None, name}:
            async with world(cluster) as made:
                with made.operating():
                    await _many(made, measure, found, name)
    return found


Measurement = Callable[[World], Awaitable[Round]]


async def _many(made: World, measure: Measurement, found: list[Round], name: str) -> None:
    for number, each in enumerate(found, 1):
        measured = await measure(made)
        each.update(measured)
        figures = ", ".join(f"{key} {value:.2f} s" for key, value in measured.items())
        click.echo(f"{name} {number}/{len(found)}: {figures}", err=True)


# the measurements


async def _wake(made: World) -> Round:
    """The floor first: the task waits already, and only then a number is written."""
    await _quiet(made)
    task_id = await made.submit("begun", queue=FLOOR)
    began_s = time.time()
    await made.scale_by_hand("deployments", 1, FLOOR)
    floor_s = (await made.ended(task_id))["result"] - began_s
    await _quiet(made)
    async with _watching(made) as written:
        began_s = time.time()
        task_id = await made.submit("begun")
        written_s = await written
    task = await made.ended(task_id)
    return {"floor_started": floor_s, "written": written_s - began_s, "started": task["result"] - began_s}


async def _burst(made: World) -> Round:
    """The floor is a person who sees the submission come and writes the number by hand in that moment."""
    await _quiet(made)
    by_hand = await _ready_and_drained(made, FLOOR, made.scale_by_hand("deployments", PODS, FLOOR))
    await _quiet(made)
    ours = await _ready_and_drained(made, "emails")
    return {"floor_ready": by_hand[0], "floor_drained": by_hand[1], "ready": ours[0], "drained": ours[1]}


async def _ready_and_drained(made: World, name: str, act: Awaitable[None] | None = None) -> tuple[float, float]:
    """Seconds from the submission until all pods are Ready, and until all tasks are completed."""
    completed = (await made.stats())["completed"]
    queue = FLOOR if name == FLOOR else "default"
    began_s = time.time()
    submitted = made.submit_many("nap", {"seconds": 1}, TASKS, queue)
    await asyncio.gather(*(each for each in (act, submitted) if each is not None))
    ready_s, drained_s = await asyncio.gather(_all_ready(made, name), _drained(made, completed + TASKS))
    return ready_s - began_s, drained_s - began_s


async def _all_ready(made: World, name: str) -> float:
    await until(lambda: _ready(made, name), lambda ready: ready == PODS, f"{PODS} Ready", 300)
    return time.time()


async def _kill(made: World) -> Round:
    await made.pool(scaling={"minReplicas": 2, "maxReplicas": 2})
    await until(lambda: _ready(made), lambda ready: ready == 2, "2 Ready")
    task_id = await made.submit("nap", {"seconds": 1})
    worker = (await made.begun(task_id))["worker_id"].rpartition(":")[0]
    killed_s = time.time()
    made.kill_worker(worker)
    task = await made.ended(task_id)
    return {"again": _unix(task["log"][1]["started_at"]) - killed_s}


async def _quiet(made: World) -> None:
    """Pool and floor at zero, and no pod left that would take the machine's time."""
    await made.pool()
    await until(lambda: made.condition("Ready"), lambda seen: seen.get("reason") == "Idle", "an idle pool")
    await _floor(made)
    await until(lambda: _all_pods(made), lambda count: count == 0, "no pods", 120)


async def _floor(made: World) -> None:
    """A Deployment of the pool's own pods, for a queue of its own, that no operator knows."""
    if await made.get("deployments", FLOOR) is not None:
        await made.scale_by_hand("deployments", 0, FLOOR)
        return
    template = ((await made.get("deployments")) or {})["spec"]["template"]
    template["metadata"]["labels"] = {"app": FLOOR}
    [worker] = template["spec"]["containers"]
    worker["env"] = [each for each in worker["env"] if each["name"] != "HEADRACE_QUEUES"]
    worker["env"].append({"name": "HEADRACE_QUEUES", "value": FLOOR})
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": FLOOR}}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": FLOOR}, "spec": spec}
    await made.requests.send("POST", f"/apis/apps/v1/namespaces/{made.namespace}/deployments", body)


async def _all_pods(made: World) -> int:
    found = await made.requests.send("GET", f"/api/v1/namespaces/{made.namespace}/pods")
    return len(found["items"])


async def _ready(made: World, name: str = "emails") -> int:
    found = await made.get("deployments", name)
    return 0 if found is None else found["status"].get("readyReplicas", 0)


async def _drained(made: World, count: int) -> float:
    await made.all_completed(count, 300)
    return time.time()


@asynccontextmanager
async def _watching(made: World) -> AsyncIterator[asyncio.Task[float]]:
    """A watch of the Deployment, which stands when the block begins; gives when it shows a number above 0."""
    command = made.kubectl.command("get", "deployments/emails", "--watch", "-o", 'jsonpath={.spec.replicas}{"\\n"}')
    watch = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert watch.stdout is not None
        assert await watch.stdout.readline() == b"0\n"
        yield asyncio.create_task(_above_zero(watch.stdout))
    finally:
        watch.terminate()
        await watch.wait()


async def _above_zero(lines: asyncio.StreamReader) -> float:
    while await lines.readline() == b"0\n":
        pass
    return time.time()


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# the table


def _facts(before: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(), "processor": processor(),
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
        "load_before": before, "load_after": os.getloadavg(), "commit": commit(),
    }  # fmt: skip


def _show(found: list[Round], facts: Mapping[str, Any]) -> None:
    table = Table("measure (seconds)", "goal", "median", "min – max", "n", "of the floor")
    for row in ROWS:
        values = [each[row.key] for each in found if row.key in each]
        if values:
            ratios = [each[row.key] / each[row.floor] for each in found if row.floor and row.key in each]
            ratio = f"{median(ratios):.2f} ×" if ratios else ""
            spread = f"{min(values):.2f} – {max(values):.2f}"
            table.add_row(row.title, _goal(row), f"{median(values):.2f}", spread, str(len(values)), ratio)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(table)
    loads = [f"{load:.1f}" for load in (facts["load_before"][0], facts["load_after"][0])]
    console.print(f"{facts['cores']} cores, load average {loads[0]} before and {loads[1]} after, {facts['commit']}")


def _goal(row: Row) -> str:
    if row.goal_x is not None:
        return f"≤ {row.goal_x:g} × floor"
    return f"≤ {row.goal_s:g}" if row.goal_s is not None else ""


if __name__ == "__main__":
    main()
