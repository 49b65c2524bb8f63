"""`python -m bench.operator_pools --kubeconfig FILE`: what the operator costs with 1, 50 and 1,000 idle pools.

The API server is real, and so is the Redis; no pod ever starts. It wants a cluster where no other operator works.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from headrace_cli.child import Guard
from headrace_cli.ports import free_port
from headrace_cli.redis_binary import RedisBinary, find

from .server import Server

NAMESPACE: Final = "headrace-bench-pools"
TICK: Final = os.sysconf("SC_CLK_TCK")
GOALS: Final = {"cpu": 10.0, "rss": 150.0}


@dataclass(frozen=True)
class Row:
    """One number of pools."""

    pools: int
    cpu: float
    """Percent of one core."""
    rss: float
    """MiB."""
    commands: float
    """Redis commands a second, those inside of scripts not counted."""
    redis_cpu: float
    """Percent of one core that Redis takes."""
    writes: float
    """Requests to the API server a second, but watches."""
    ticks: float
    """A second."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--kubeconfig", required=True, metavar="FILE", help="A cluster's administrator.")
@click.option("--pools", default="1,50,1000", show_default=True, metavar="N,…", help="How many, one row each.")
@click.option("--seconds", default=60.0, show_default=True, help="How long each row is measured.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where the figures go too.")
def main(kubeconfig: str, pools: str, seconds: float, path: Path | None) -> None:
    """Measure the operator's CPU and memory while nothing is to do."""
    rows = [measure(kubeconfig, int(number), seconds) for number in pools.split(",")]
    click.echo("pools   CPU %   RSS MiB   Redis commands/s   Redis CPU %   API requests/s   ticks/s")
    for row in rows:
        click.echo(
            f"{row.pools:5}   {row.cpu:5.1f}   {row.rss:7.0f}   {row.commands:16.1f}   {row.redis_cpu:11.1f}"
            f"   {row.writes:14.2f}   {row.ticks:7.2f}"
        )
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def measure(kubeconfig: str, pools: int, seconds: float) -> Row:
    """So many pools, each on a queue of its own and with nothing to do."""
    binary = next((each for each in find() if isinstance(each, RedisBinary)), None)
    if binary is None:
        raise click.ClickException("There is no redis-server here.")
    with Server(binary) as redis, made(kubeconfig, pools), operator(kubeconfig, redis) as (pid, figures):
        settled(figures, pools, lambda: caught_up(deployments(kubeconfig), pools))
        before, began = Reading.take(pid, redis, figures), time.monotonic()
        time.sleep(seconds)
        after, passed = Reading.take(pid, redis, figures), time.monotonic() - began
        rss = _status_mib(pid)
    return Row(
        pools=pools,
        cpu=100 * (after.cpu_s - before.cpu_s) / passed,
        rss=rss,
        commands=(after.commands - before.commands) / passed,
        redis_cpu=100 * (after.redis_s - before.redis_s) / passed,
        writes=(after.requests - before.requests) / passed,
        ticks=(after.ticks - before.ticks) / passed,
    )


@dataclass(frozen=True)
class Reading:
    """Counters at one moment."""

    cpu_s: float
    commands: float
    redis_s: float
    requests: float
    ticks: float

    @classmethod
    def take(cls, pid: int, redis: Server, figures: Callable[[], str]) -> Reading:
        text = figures()
        calls = redis.redis.info("commandstats")
        return cls(
            cpu_s=sum(int(each) for each in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
            / TICK,
            commands=sum(row["calls"] for name, row in calls.items() if name in {"cmdstat_evalsha", "cmdstat_xread"}),
            redis_s=redis.cpu_s(),
            requests=_metric(text, "headrace_operator_api_requests_total"),
            ticks=_metric(text, "headrace_operator_reconcile_total"),
        )


def _metric(text: str, name: str) -> float:
    return sum(float(each) for each in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


def _status_mib(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1_024


def settled(figures: Callable[[], str], pools: int, controllers: Callable[[], bool]) -> None:
    """Wait until every pool is known and looked at, no request was made for ten seconds, and controllers are done."""
    asked, quiet_s, end = -1.0, time.monotonic(), time.monotonic() + 600
    while time.monotonic() < end:
        text = figures()
        known = len(re.findall(r"^headrace_operator_queue_reachable\{.*\} 1\.0$", text, re.MULTILINE))
        now = _metric(text, "headrace_operator_api_requests_total")
        if known < pools or now != asked:
            asked, quiet_s = now, time.monotonic()
        elif time.monotonic() - quiet_s > 10 and controllers():
            return
        time.sleep(1)
    raise click.ClickException(f"the operator did not come to rest with {pools} pools within 10 min")


def deployments(kubeconfig: str) -> list[Any]:
    """All that the pools have."""
    kubectl = ["kubectl", f"--kubeconfig={kubeconfig}", "-n", NAMESPACE, "get", "deployments", "-o", "json"]
    found: list[Any] = json.loads(subprocess.run(kubectl, check=True, capture_output=True).stdout)["items"]
    return found


def caught_up(items: list[Any], pools: int) -> bool:
    """Whether the cluster's own controllers have seen all Deployments: until then each one tells of changes."""
    return len(items) >= pools and all(
        each.get("status", {}).get("observedGeneration", 0) >= each["metadata"]["generation"] for each in items
    )


@contextmanager
def made(kubeconfig: str, pools: int) -> Iterator[None]:
    """A namespace with so many WorkerPools."""
    items: list[Any] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    items += [pool(f"pool-{number:04}") for number in range(pools)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl = ["kubectl", f"--kubeconfig={kubeconfig}"]
    subprocess.run([*kubectl, "create", "-f", "-"], input=text, text=True, check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([*kubectl, "delete", "namespace", NAMESPACE], check=True, stdout=subprocess.DEVNULL)


def pool(name: str) -> Any:
    """One that looks at a queue of its own."""
    template = {"spec": {"containers": [{"name": "worker", "image": "shop:1.4"}]}}
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"queues": [{"name": name}], "scaling": {"maxReplicas": 20}, "template": template},
    }


@contextmanager
def operator(kubeconfig: str, redis: Server) -> Iterator[tuple[int, Callable[[], str]]]:
    """The process and its metrics."""
    port = free_port()
    environ = os.environ | {
        "HEADRACE_URL": f"redis://127.0.0.1:{redis.port}",
        "HEADRACE_OPERATOR_NAMESPACES": NAMESPACE,
    }
    program = [sys.executable, "-m", "headrace_cli", "operator", "--kubeconfig", kubeconfig]
    log = (redis.folder / "operator.log").open("wb")
    process = subprocess.Popen([*program, "--metrics-port", str(port)], env=environ, stdout=log, stderr=log)

    def figures() -> str:
        end = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    return str(answer.read().decode())
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    with Guard(process.pid):
        try:
            yield process.pid, figures
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
