"""Real worker processes, started as a user starts them, and a drain by them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace_cli.child import Guard

from .clock import processes_cpu_s
from .errors import MeasureError
from .floor_client import Floor
from .server import Server

ROOT: Final = Path(__file__).parent.parent
WARM: Final = 500
PATIENCE_S: Final = 300.0


def clean_environment(**extra: str) -> dict[str, str]:
    """This process' environment without anything that headrace reads."""
    foreign = {"REDIS_ADDR", "REDIS_PASSWORD", "PORT", "WORKER_ID"}
    kept = {name: value for name, value in os.environ.items() if name not in foreign and "HEADRACE" not in name}
    return kept | {"PYTHONPATH": str(ROOT)} | extra


class Workers:
    """`count` worker processes on one queue. Leaving the block drains and ends them."""

    def __init__(self, server: Server, concurrency: int = 100, count: int = 1, marks: Path | None = None) -> None:
        self.server = server
        self.started_at = time.monotonic_ns()
        self._log = (server.folder / "worker.log").open("ab")
        variables = {
            "HEADRACE_URL": server.settings.url,
            "HEADRACE_CONCURRENCY": str(concurrency),
            "HEADRACE_LOG_SAMPLE": "0",
            "HEADRACE_METRICS_HOST": "127.0.0.1",
            "HEADRACE_METRICS_PORT": "0",
        }
        if marks is not None:
            variables["BENCH_MARKS"] = str(marks)
        self._processes = [self._start(variables) for _ in range(count)]
        self._guards = [Guard(process.pid) for process in self._processes]

    def _start(self, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace_cli", "worker", "--app", "bench.app"],
            env=clean_environment(**variables),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process, guard in zip(self._processes, self._guards, strict=True):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            guard.release()
        self._log.close()

    def wait_until_ready(self) -> None:
        """Returns when every process has beaten."""
        give_up = time.monotonic() + 30
        while self._ready() < len(self._processes):
            self.check()
            if time.monotonic() > give_up:
                raise MeasureError("The workers did not start within 30 s")
            time.sleep(0.02)

    def _ready(self) -> int:
        return sum(1 for seen in self.server.call(self.server.queue.workers()) if seen.beat[:1].isdigit())

    def check(self) -> None:
        """MeasureError with the log's end if a process is gone."""
        if any(process.poll() is not None for process in self._processes):
            log = (self.server.folder / "worker.log").read_text(errors="replace")[-1000:]
            raise MeasureError(f"A worker ended:\n{log}")

    def cpu_s(self) -> float:
        return processes_cpu_s(self.pids)


@dataclass(frozen=True)
class Drained:
    """What draining a backlog took: tasks a second, CPU in µs a task of all workers and of Redis."""

    tasks: int
    rate: float
    client_us: float
    redis_us: float
    submit_us: float
    """Redis' CPU in µs a task when the backlog was made, 100 tasks a call."""


def drain(workers: Workers, floor: Floor, tasks: int, kind: str = "noop") -> Drained:
    """Fill the paused queue, let the workers go, wait for the last report."""
    server = workers.server
    queue = server.queue
    server.call(queue.pause(True))
    filled = floor.fill(server, tasks, kind)
    client, redis = workers.cpu_s(), server.cpu_s()
    start = time.monotonic()
    server.call(queue.pause(False))
    took = server.wait_until_empty(PATIENCE_S) - start
    client, redis = workers.cpu_s() - client, server.cpu_s() - redis
    workers.check()
    return Drained(tasks, tasks / took, client / tasks * 1e6, redis / tasks * 1e6, filled.redis_us)


def drain_afresh(server: Server, floor: Floor, tasks: int, *, concurrency: int, kind: str = "noop") -> Drained:
    """The same on an empty Redis, by one new process that has run some tasks before."""
    server.fresh()
    with Workers(server, concurrency) as workers:
        workers.wait_until_ready()
        drain(workers, floor, WARM, kind)
        return drain(workers, floor, tasks, kind)
