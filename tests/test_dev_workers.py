"""How `headrace dev` keeps its worker processes, without the rest of it."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
from collections.abc import AsyncIterator
from errno import EAGAIN
from pathlib import Path
from typing import Any

import pytest

from headrace.redis_settings import RedisSettings
from headrace_cli import dev_workers
from headrace_cli.dev_lines import Screen
from headrace_cli.dev_process import WorkerCommand
from headrace_cli.dev_store import Store
from headrace_cli.dev_workers import Crew, Workers

pytestmark = pytest.mark.slow


@pytest.fixture
def crew(tmp_path: Path, redis_url: str) -> Crew:
    (tmp_path / "tasks.py").write_text('from headrace import App\napp = App("tasks")\n')
    environ = {**os.environ, "HEADRACE_URL": redis_url, "PYTHONPATH": str(tmp_path)}
    return Crew(WorkerCommand(("--app", "tasks", "--metrics-port", "0"), environ), processes=1, slots=10, grace_s=1)


@pytest.fixture
async def workers(redis_url: str) -> AsyncIterator[Workers]:
    store = Store(RedisSettings.parse(redis_url, "test"), "default", ["default"])
    workers = Workers(store, Screen(io.StringIO()))
    yield workers
    await workers._close(list(workers._slots))
    await store.aclose()


async def test_new_code_that_takes_long_to_import_is_waited_for(
    workers: Workers, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev_workers, "READY_S", 0.01)
    async with asyncio.timeout(30):
        assert await workers.replace(crew)
    assert len(workers.processes) == 1


async def test_a_process_that_cannot_be_started_is_tried_again(
    workers: Workers, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = subprocess.Popen, iter([True, True, False])

    def popen(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if "worker" in arguments and next(refused, False):
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        return start(arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    async with asyncio.timeout(30):
        assert await workers.start(crew, 30)
    assert workers.deaths == 0
