"""Submissions over HTTP, against a bare aiohttp route; the load comes from a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from headrace.broker.publishing import publish
from headrace_cli.child import Guard
from headrace_cli.ports import free_port

from .app import app
from .clock import process_cpu_s
from .errors import MeasureError
from .harness import Bench, Measure, Reading, Round
from .rows_submit import payload
from .server import Server
from .workers import ROOT, clean_environment

HERE: Final = Path(__file__).parent
TOKEN: Final = "a-token-of-the-bench-alone"
CONNECTIONS: Final = 64
FEW: Final = 8
BATCH: Final = 100
WARM_S: Final = 0.3


class Http:
    """The CPU columns are the HTTP server's and Redis'; a rate counts tasks, a floor requests."""

    name = "http"
    measures = (
        Measure("http", "POST a task: token, strict JSON, schema / bare aiohttp route", "×", 0.85, prototype="0.95"),
        Measure("http_plain", "  the same / bare route with aiohttp's own JSON", "×"),
        Measure("http_cpu", "  process CPU a request, bare route / ours", "×"),
        Measure("http_batch", "POST 100 tasks a request / single, tasks a second", "×", 5),
    )

    def round(self, bench: Bench) -> Round:
        server, seconds = bench.server, bench.sizes.http_s
        server.fresh()
        publish_types(server)
        with bare_server() as bare:
            lean = bare_route(bare, server, seconds)
            plain = measure(bare, server, request("/plain", one_task(), bare.port), CONNECTIONS, seconds)
        with api_server(server) as api:
            single = measure(api, server, request("/api/v1/tasks", one_task(), api.port), CONNECTIONS, seconds)
            server.fresh()
            publish_types(server)
            many = request("/api/v1/tasks:batch", many_tasks(), api.port)
            batch = measure(api, server, many, FEW, seconds, tasks=BATCH)
        server.fresh()
        return {
            "http": over(single, lean.rate),
            "http_plain": over(single, plain.rate),
            "http_cpu": Reading(
                lean.client_us / single.client_us, single.rate, lean.rate, single.client_us, single.redis_us
            ),
            "http_batch": over(batch, single.rate),
        }


def bare_route(bare: HttpServer, server: Server, seconds: float) -> Reading:
    """Requests to aiohttp that reads and answers JSON by msgspec, and does nothing else."""
    return measure(bare, server, request("/lean", one_task(), bare.port), CONNECTIONS, seconds)


def over(run: Reading, floor: float) -> Reading:
    return Reading(run.rate / floor, run.rate, floor, run.client_us, run.redis_us)


def publish_types(server: Server) -> None:
    """As a worker does, so that the API knows the schema."""
    types = {name: msgspec.json.encode(definition.describe()) for name, definition in app.registry.items()}
    server.call(publish(server.queue.namespace, types))


def one_task() -> bytes:
    return b'{"type":"noop","priority":1,"payload":%b}' % payload(7)


def many_tasks() -> bytes:
    return b'{"tasks":[%b]}' % b",".join([one_task()] * BATCH)


@dataclass(frozen=True)
class Posted:
    """A request as the generators need it."""

    path: str
    headers: dict[str, str]
    body: bytes

    def raw(self) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode() + self.body


def request(path: str, body: bytes, port: int) -> Posted:
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {TOKEN}",
    }
    return Posted(path, headers, body)


# the servers


@dataclass(frozen=True)
class HttpServer:
    """A server process that is measured."""

    pid: int
    port: int


@contextmanager
def bare_server() -> Iterator[HttpServer]:
    port = free_port()
    with _process([sys.executable, str(HERE / "bare_http.py"), str(port)], clean_environment(), port) as pid:
        yield HttpServer(pid, port)


@contextmanager
def api_server(server: Server, **more: str) -> Iterator[HttpServer]:
    """`headrace api`, with one token; `more` variables win."""
    port = free_port()
    variables = {"HEADRACE_URL": server.settings.url, "HEADRACE_TOKENS": f"bench:{TOKEN}", "PORT": str(port)}
    command = [sys.executable, "-m", "headrace_cli", "api"]
    with _process(command, clean_environment(**variables | more), port) as pid:
        yield HttpServer(pid, port)


@contextmanager
def _process(command: list[str], environment: dict[str, str], port: int) -> Iterator[int]:
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with Guard(process.pid):
        try:
            _wait_for(port, process)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise MeasureError(f"{process.args!r} did not begin to listen")


# the load


def measure(
    target: HttpServer, server: Server, posted: Posted, connections: int, seconds: float, *, tasks: int = 1
) -> Reading:
    """Requests as fast as the answers come; `tasks` each."""
    load(target.port, posted, connections, min(WARM_S, seconds))
    cpu, redis = process_cpu_s(target.pid), server.cpu_s()
    answers, took = load(target.port, posted, connections, seconds)
    cpu, redis = process_cpu_s(target.pid) - cpu, server.cpu_s() - redis
    done = answers * tasks
    return Reading(done / took, done / took, client_us=cpu / done * 1e6, redis_us=redis / done * 1e6)


def load(port: int, posted: Posted, connections: int, seconds: float) -> tuple[int, float]:
    """Answers, and the seconds in which they came. MeasureError if any was not 2xx."""
    wrk = shutil.which("wrk")
    # wrk counts whole seconds.
    answers, refused, took = (
        _wrk(wrk, port, posted, connections, int(seconds))
        if wrk and seconds >= 1
        else _own(port, posted, connections, seconds)
    )
    if refused or not answers:
        raise MeasureError(f"{refused} of {answers} answers to POST {posted.path} were not 2xx")
    return answers, took


def _own(port: int, posted: Posted, connections: int, seconds: float) -> tuple[int, int, float]:
    words = [sys.executable, str(HERE / "load.py"), str(port), str(connections), str(seconds)]
    done = subprocess.run(words, input=posted.raw(), capture_output=True, check=True)
    said = json.loads(done.stdout)
    return said["answers"], said["refused"], said["wall_s"]


_WRK_DONE: Final = re.compile(r"(\d+) requests in ([\d.]+)(m?s)")
_WRK_REFUSED: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)")


def _wrk(program: str, port: int, posted: Posted, connections: int, seconds: int) -> tuple[int, int, float]:
    script = "\n".join(
        [
            'wrk.method = "POST"',
            f"wrk.body = {json.dumps(posted.body.decode())}",
            *(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in posted.headers.items()),
        ]
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        words = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", file.name]
        done = subprocess.run(
            [*words, f"http://127.0.0.1:{port}{posted.path}"], capture_output=True, text=True, check=True
        )
    found, refused = _WRK_DONE.search(done.stdout), _WRK_REFUSED.search(done.stdout)
    if found is None:
        raise MeasureError(f"wrk said something unexpected: {done.stdout[-500:]}")
    took = float(found[2]) / (1000 if found[3] == "ms" else 1)
    return int(found[1]), int(refused[1]) if refused else 0, took
