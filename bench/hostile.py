"""`python -m bench.hostile`: what a good client feels of two thousand bad ones, and what 100,000 senseless requests do.

The exit code is 1 if the good client's p99 doubles, if any answer is a 5xx, or if the API's memory grows by 50 MB.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from headrace_api.connections import SPARE_FILES
from headrace_cli.child import Guard
from headrace_cli.redis_binary import RedisBinary, find

from .drip import TOKEN as DRIP_TOKEN
from .errors import MeasureError
from .fuzz import Tally, send, told
from .rows_http import TOKEN, HttpServer, api_server, one_task, request
from .server import Server

HERE: Final = Path(__file__).parent
MAX_RATIO: Final = 2.0
MAX_GROWTH_MB: Final = 50.0
PAUSE_S: Final = 0.002
"""Between two requests of the good client: it is one among many, and what is measured is no full load."""
WARM: Final = 10_000
"""Senseless requests before the memory is looked at first: caches fill once."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--connections", type=click.IntRange(2), default=2_000, show_default=True, help="That drip.")
@click.option("--seconds", type=float, default=12.0, show_default=True, help="Of one measurement.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Without and with them, in turn.")
@click.option("--requests", "count", type=click.IntRange(1), default=100_000, show_default=True, help="Senseless ones.")
@click.option("--seed", type=int, help="Of the senseless requests. [the time]")
def main(connections: int, seconds: float, rounds: int, count: int, seed: int | None) -> None:
    """Attack an API of its own, and say what came of it."""
    _raise_files(connections)
    found = next((each for each in find() if isinstance(each, RedisBinary)), None)
    if found is None:
        raise click.ClickException("There is no redis-server here; `make deps` installs one.")
    with Server(found) as server:
        server.fresh()
        with api_server(server, HEADRACE_TOKENS=f"bench:{TOKEN},drip:{DRIP_TOKEN}") as api:
            kept = drip(api, connections, seconds, rounds)
        server.fresh()
        with api_server(server, HEADRACE_TOKENS="") as api:
            calm = fuzz(api, count, seed if seed is not None else int(time.time()))
    sys.exit(0 if kept and calm else 1)


def drip(api: HttpServer, connections: int, seconds: float, rounds: int) -> bool:
    """Whether the good client's p99 stayed below twice what it is without the others."""
    quiet: list[float] = []
    attacked: list[float] = []
    closed = 0
    good_client(api.port, seconds / 4)
    for _ in range(rounds):
        quiet += good_client(api.port, seconds)
        with dripping(api.port, connections) as process:
            attacked += good_client(api.port, seconds)
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            closed += int(process.stdout.readline())
    ratio = p99(attacked) / p99(quiet)
    click.echo(
        f"A good client's p99: {p99(quiet) * 1e3:.2f} ms alone, {p99(attacked) * 1e3:.2f} ms beside {connections:,} "
        f"connections that drip ({ratio:.2f} ×, at most {MAX_RATIO:g}); {len(quiet):,} and {len(attacked):,} requests, "
        f"{closed:,} connections closed as too slow."
    )
    return ratio < MAX_RATIO


def fuzz(api: HttpServer, count: int, seed: int) -> bool:
    """Whether no answer was a 5xx and the memory stayed."""
    began = time.monotonic()
    done = attack(api, count, seed, WARM)
    took = time.monotonic() - began
    click.echo(
        f"{done.tally.total:,} senseless requests of seed {seed} in {took:.0f} s: {told(done.tally)}. "
        f"The API's memory went from {done.before_mb:.0f} MB by {done.growth_mb:+.1f} MB (at most {MAX_GROWTH_MB:g})."
    )
    for request_ in done.tally.failures[:5]:
        click.echo(f"A 5xx or no answer to: {request_!r}")
    return not done.tally.failures and done.growth_mb < MAX_GROWTH_MB


@dataclass(frozen=True)
class Attacked:
    """What senseless requests did to an API."""

    tally: Tally
    before_mb: float
    growth_mb: float


def attack(api: HttpServer, count: int, seed: int, warm: int) -> Attacked:
    """Send so many senseless requests, after some that are not counted."""
    warming = asyncio.run(send(api.port, min(warm, count), seed + 1))
    before = rss_mb(api.pid)
    tally = asyncio.run(send(api.port, count, seed))
    growth = rss_mb(api.pid) - before
    tally.accepted |= warming.accepted
    tally.failures += warming.failures
    return Attacked(tally, before, growth)


@contextmanager
def dripping(port: int, connections: int) -> Iterator[subprocess.Popen[str]]:
    """The drippers, in a process of their own, all connected."""
    words = [sys.executable, str(HERE / "drip.py"), str(port), str(connections)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process, Guard(process.pid):
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise MeasureError("The drippers did not start")
            yield process
        finally:
            process.kill()


def good_client(port: int, seconds: float) -> list[float]:
    """Seconds that each submission took, on one connection, one after the other."""
    data = request("/api/v1/tasks", one_task(), port).raw()
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        give_up = time.monotonic() + seconds
        while (began := time.perf_counter()) and time.monotonic() < give_up:
            client.sendall(data)
            answer = client.recv(65_536)
            times.append(time.perf_counter() - began)
            if not answer.startswith(b"HTTP/1.1 201 "):
                raise MeasureError(f"A good submission was answered with {answer[:200]!r}")
            time.sleep(PAUSE_S)
    return times


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def _raise_files(connections: int) -> None:
    """Children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
