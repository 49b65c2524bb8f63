"""The duties of a worker beside its claims, and how its process ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace import App
from headrace.redis_settings import RedisSettings
from headrace.runtime import worker
from headrace.runtime.worker import Worker
from headrace.task import State
from worker_harness import WAIT_S, Desk, counting, endless, quick, shares, working


async def test_a_duty_that_breaks_stops_the_worker(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would look alive and do half of its work; whoever started it starts it again."""

    async def broken(*_: Any, **__: Any) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(worker, "reclaim_pass", broken)
    app, _ = counting()
    one = Worker(app, quick(), RedisSettings.parse(redis_url, "the test"))
    assert await asyncio.wait_for(one.run(), WAIT_S) is False
    assert "a bug" in caplog.text


async def test_hostile_workers_names_stop_nobody(desk: Desk, redis_url: str) -> None:
    """Anybody may have named a consumer; one that is no UTF-8 does not end the search for dead workers."""
    app, _ = counting()
    await desk.client.call(desk.queue.init())
    await desk.client.command("XGROUP", "CREATECONSUMER", desk.queue.keys["1"], "g", b"\xff\xfe")
    await desk.client.command("HSET", desk.queue.keys["w"], b"\xfe\xff", b"\xff")
    task = await desk.submit("count")
    assert len((await desk.client.call(desk.queue.cycle("gone:1", 1))).claims) == 1
    async with working(app, redis_url) as one:
        seen = await desk.ended(task)
        assert not one.failed
    assert seen.state is State.COMPLETED and seen.counters.crashes == 1


async def test_a_second_signal_ends_the_grace(desk: Desk, redis_url: str) -> None:
    """What runs is handed back at once."""
    app = App("t")
    begun = endless(app)

    async with working(app, redis_url, grace_s=600) as one:
        task = await desk.submit("endless")
        await begun.wait()
        one.stop()
        one.hurry()
    assert (await desk.look(task)).counters.interruptions == 1


async def test_one_slot_serves_two_queues_without_waiting_for_a_look(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that one queue leaves free is offered to the others, and a queue with a backlog does not keep it."""
    from headrace.runtime import claims

    monkeypatch.setattr(claims, "LOOK_S", 3600.0)
    app = App("t")

    @app.task()
    async def note() -> None: ...

    async with Desk(redis_url, "orders") as orders, Desk(redis_url, "mails") as mails:
        for desk in (orders, mails):
            await desk.submit("note")
        backlog = [await orders.submit("note") for _ in range(30)]
        async with working(
            app, redis_url, queues=shares("orders", "mails"), concurrency=1, beat_s=30, dead_after_s=100
        ):
            for desk in (mails, orders, mails):
                assert (await desk.ended(await desk.submit("note"))).state is State.COMPLETED
            for task in backlog:
                await orders.ended(task)


HANDLERS = """
import asyncio, sys, time
from headrace import App

app = App("t")

@app.task()
async def coroutine() -> None:
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue

@app.task()
async def pool() -> None:
    print("begun", flush=True)
    await asyncio.to_thread(time.sleep, 3600)

@app.task()
def thread() -> None:
    print("begun", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("kind", ["coroutine", "pool", "thread"])
async def test_the_process_ends_whatever_its_handlers_do(desk: Desk, redis_url: str, tmp_path: Path, kind: str) -> None:
    """SIGTERM: handed back, signed off, exit code 0, although the handler goes on for an hour."""
    (tmp_path / "stubborn_app.py").write_text(HANDLERS)
    environ = {**os.environ, "HEADRACE_URL": redis_url, "HEADRACE_GRACE_S": "0.1", "HEADRACE_METRICS_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace_cli", "worker", "--app", "stubborn_app",
        cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        task = await desk.submit(kind)
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readuntil(b"begun"), WAIT_S)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    seen = await desk.look(task)
    assert seen.state is State.PENDING and seen.counters.interruptions == 1


async def test_a_worker_is_ready_from_its_first_connection_until_it_stops(desk: Desk, redis_url: str) -> None:
    """Before, and while it drains, it takes no tasks; it is alive all the time."""
    app, _ = counting()
    async with working(app, redis_url) as one:
        before = one.health()
        await desk.ended(await desk.submit("count"))
        during = one.health()
        one.stop()
        after = one.health()
    assert [each.ready for each in (before, during, after)] == [False, True, False]
    assert all(each.alive for each in (before, during, after))
