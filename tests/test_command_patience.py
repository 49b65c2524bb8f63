"""How long commands wait for Redis, and what they show meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from chaos.proxy import FaultProxy
from command_line import run
from headrace_cli import main, session
from redis_server import RedisServer

SLOW_S = 0.4
"""Of one answer. To connect takes several, so longer than the API would wait."""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("queue", "ls"), main.OK),
        (("submit", "greet", "{}"), main.OK),
        (("task", "cancel", "550e8400-e29b-41d4-a716-446655440000"), main.FAILED),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
async def test_a_redis_on_a_busy_machine_is_waited_for(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, args: tuple[str, ...], code: int
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        proxy.delay_s = SLOW_S / 2  # there and back
        done = await asyncio.to_thread(run, *args, cwd=tmp_path, HEADRACE_URL=proxy.url)
    assert done.returncode == code, done.stderr
    assert "cannot be reached" not in done.stderr


def test_where_no_redis_runs_that_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
        began = time.monotonic()
        done = run("queue", "ls", cwd=tmp_path, HEADRACE_URL=url)
        quick = run("explain", "queue_full", cwd=tmp_path)
    took = time.monotonic() - began
    assert done.returncode == main.UNREACHABLE
    assert "Connection refused" in done.stderr
    assert quick.returncode == main.OK
    assert took < session.PATIENCE_S, "with the start of two processes"
