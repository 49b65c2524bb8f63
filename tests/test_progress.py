"""What handlers say of their progress: written together, seldom, shown while the attempt runs."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api_kit import running
from chaos.proxy import FaultProxy
from headrace import App, Ctx, Progress, Retry, context
from headrace.broker.broker import Queue
from headrace.broker.scripts import script
from headrace.runtime.attempt import Running
from headrace.runtime.progress import ENDED, FLUSH_S, KEEP_S, ProgressNotes
from headrace.task import Envelope
from process_app import app as process_app
from redis_server import RedisServer
from worker_harness import Desk, eventually, working


class Steps(IntEnum):
    THREE = 3


def attempt(task_id: str = "a", queue: str = "default") -> Running:
    """One that runs."""
    run = Running(None, b"1-1", b"", b"")  # type: ignore[arg-type] # nobody asks it for its claims
    run.envelope = Envelope(1, 1, task_id)
    run.ctx = Ctx(id=task_id, type="t", queue=queue, attempt=1, epoch=1, deadline=0.0, deps=None)
    return run


def test_the_latest_of_each_is_written_at_most_five_times_a_second() -> None:
    """A hundred words between two calls are one; tasks of one queue go together."""
    notes, a, b = ProgressNotes(), attempt("a"), attempt("b")
    assert notes.due(0.0, [a, b]) == {}
    for step in range(100):
        for run in (a, b):
            assert run.ctx is not None
            notes.note(run.ctx, Progress(step))
    rows = notes.due(100.0, [a, b])["default"]
    assert dict(zip(rows[::2], rows[1::2], strict=True)) == {"a": b'{"done":99}', "b": b'{"done":99}'}
    assert a.ctx is not None
    notes.note(a.ctx, Progress(100, total=100))
    assert notes.due(100.0 + FLUSH_S * 0.9, [a, b]) == {}
    assert notes.due(100.0 + FLUSH_S, [a, b]) == {"default": ["a", b'{"done":100,"total":100}']}
    assert notes.due(100.0 + FLUSH_S * 2, [a, b]) == {}


def test_who_says_something_each_millisecond_is_written_five_times_a_second() -> None:
    notes, run = ProgressNotes(), attempt()
    assert run.ctx is not None
    written = 0
    for ms in range(10_000):
        notes.note(run.ctx, Progress(ms))
        written += bool(notes.due(100 + ms / 1_000, [run]))
    assert written == 50


def test_what_ended_is_taken_out_and_what_runs_is_written_again_before_it_is_forgotten() -> None:
    """An attempt that ended says nothing any more, also if it still tries to."""
    notes, a, b = ProgressNotes(), attempt("a"), attempt("b", "other")
    assert a.ctx is not None and b.ctx is not None
    notes.note(a.ctx, Progress(1))
    notes.note(b.ctx, Progress(1))
    assert notes.due(100.0, [a, b]).keys() == {"default", "other"}
    assert notes.due(100.0 + KEEP_S / 2, [a, b])["default"] == ["a", b'{"done":1}']
    assert notes.due(140.0, [b]) == {"default": ["a", ENDED]}
    notes.note(a.ctx, Progress(2))
    assert notes.due(141.0, [b]) == {}


@pytest.mark.parametrize("done", [float("nan"), float("inf"), True, 10**400, "3", None])
async def test_a_progress_that_is_no_number_is_refused(done: Any) -> None:
    """In the handler, with a sentence."""
    ctx = attempt().ctx
    assert ctx is not None
    with pytest.raises(ValueError, match="finite number"):
        await ctx.progress(done)


class Number(float):
    """As numpy.float64 is."""


class Index:
    """As numpy.int64 is: no int, and may stand for one."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("done", [Number(3), Decimal(3), Fraction(6, 2), Index(), Steps.THREE])
async def test_a_progress_of_any_kind_of_number_is_told_as_a_plain_one(
    monkeypatch: pytest.MonkeyPatch, done: Any
) -> None:
    """One that JSON cannot hold ended the duty that writes it, and so the worker."""
    run, notes = attempt(), ProgressNotes()
    monkeypatch.setattr(context, "progress_listeners", [notes.note])
    assert run.ctx is not None
    await run.ctx.progress(done, total=done)
    [_, said] = notes.due(100.0, [run])["default"]
    told = msgspec.json.decode(said, type=Progress)
    assert (told.done, told.total) == (3, 3)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_progress_is_shown_by_the_handle_and_over_http_until_the_end(redis_url: str, kind: str) -> None:
    """With its numbers and words, and gone when the task has ended; its key expires."""
    app, go_on = App("t", url=redis_url), threading.Event()

    @app.task()
    async def slow(ctx: Ctx) -> None:
        await ctx.progress(1, 2, "half")
        await asyncio.to_thread(go_on.wait)

    @app.task()
    def slow_in_thread(ctx: Ctx) -> None:
        ctx.progress_sync(1, 2, "half")
        go_on.wait()

    handle = await (slow if kind == "async" else slow_in_thread).aenqueue()
    assert await handle.aprogress() is None
    async with running(redis_url) as api, working(app, redis_url) as worker:
        said: Progress = await eventually(handle.aprogress)
        assert (said.done, said.total, said.message, said.attempt) == (1, 2, "half", 1)
        shown = (await api.task(handle.id))["progress"]
        assert shown.pop("at").endswith("Z") and shown == {"done": 1, "total": 2, "message": "half"}
        key = Queue("default").keys["progress"] + worker.name
        assert 0 < await api.worker.client.command("TTL", key) <= KEEP_S
        go_on.set()
        await handle.aget(timeout=10)
        assert await handle.aprogress() is None
        assert (await api.task(handle.id))["progress"] is None

        async def forgotten() -> bool:
            return not await api.worker.client.command("EXISTS", key)

        await eventually(forgotten)
    await app.aclose()


async def test_progress_of_a_process_comes_through_its_pipe(desk: Desk, redis_url: str, tmp_path: Path) -> None:
    """A thousand steps at once: the last one is shown."""
    async with working(process_app, redis_url, app="process_app", processes=1):
        task_id = await desk.submit("reports", {"steps": 1000, "note": str(tmp_path / "note")})
        seen = await desk.until(task_id, lambda seen: seen.progress is not None and seen.progress.done == 1000)
        assert seen.progress is not None and seen.progress.message == "step 1000"
        assert await desk.client.call(desk.queue.cancel(task_id)) == "asked"
        await desk.ended(task_id)


async def test_a_later_attempt_does_not_show_the_progress_of_an_earlier_one(desk: Desk, redis_url: str) -> None:
    """On the same worker, whose notes are kept under the same id."""
    app, second, go_on = App("t"), asyncio.Event(), asyncio.Event()

    @app.task(retry=Retry(1, base_s=0.001))
    async def twice(ctx: Ctx) -> None:
        if ctx.attempt == 1:
            await ctx.progress(99)
            await asyncio.sleep(0.3)
            raise LookupError
        second.set()
        await go_on.wait()

    async with working(app, redis_url):
        task_id = await desk.submit("twice")
        await desk.until(task_id, lambda seen: seen.progress is not None)
        await second.wait()
        assert (await desk.look(task_id)).progress is None
        go_on.set()
        await desk.ended(task_id)


async def test_lost_progress_harms_nothing(desk: Desk, redis_server: RedisServer) -> None:
    """The call that tells it is lost; the task completes."""
    app = App("t")

    @app.task()
    async def slow(ctx: Ctx) -> None:
        for step in range(5):
            await ctx.progress(step)
            await asyncio.sleep(0.1)

    async with FaultProxy(redis_server.port) as proxy, working(app, proxy.url):
        proxy.lose_request(script("progress").sha.encode())
        await desk.ended(await desk.submit("slow"))
        assert proxy.faults == 1
