"""Cancelling and retrying tasks through their handles, across processes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace import (
    App,
    Ctx,
    DurabilityUnconfirmed,
    State,
    TaskCancelled,
    TaskFailed,
    UnknownTask,
    WrongCaller,
    WrongState,
)
from headrace import task as tasks
from headrace.handle import Handle
from process_app import app as process_app
from worker_harness import Desk, eventually, working


@pytest.fixture
async def app(redis_url: str) -> AsyncIterator[App[None]]:
    app = App("t", url=redis_url)
    yield app
    await app.aclose()


async def test_a_waiting_task_is_cancelled_at_once(app: App[None]) -> None:
    """And once more is no error; one that ended otherwise cannot be."""

    @app.task()
    async def work() -> None: ...

    handle = await work.aenqueue()
    assert await handle.acancel() is State.CANCELLED
    assert await handle.acancel() is State.CANCELLED
    with pytest.raises(TaskCancelled):
        await handle.aget()
    with pytest.raises(UnknownTask):
        await work.handle(tasks.new_id()).acancel()


async def test_a_running_coroutine_gets_cancelled_error(app: App[None], redis_url: str) -> None:
    """Its finally clauses run; another process may have asked for it."""
    events: list[str] = []

    @app.task()
    async def hang() -> None:
        events.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("tidied")

    handle = await hang.aenqueue()
    async with working(app, redis_url):
        await _until(lambda: events == ["began"])
        assert await handle.acancel() is State.PROCESSING
        with pytest.raises(TaskCancelled):
            await handle.aget(timeout=10)
    assert events == ["began", "tidied"]


async def test_a_thread_sees_that_it_is_cancelled(app: App[None], redis_url: str) -> None:
    """It raises and is cancelled; one that finishes all the same is completed."""
    begun = [threading.Event(), threading.Event()]

    @app.task()
    def loops(ctx: Ctx, finishes: bool) -> str:
        begun[finishes].set()
        while not ctx.cancelled:
            time.sleep(0.001)
        if not finishes:
            raise RuntimeError("stopped")
        return "done all the same"

    async with working(app, redis_url):
        raising, finishing = await loops.aenqueue(False), await loops.aenqueue(True)
        for handle, event in ((raising, begun[0]), (finishing, begun[1])):
            await asyncio.to_thread(event.wait)
            assert await handle.acancel() is State.PROCESSING
        with pytest.raises(TaskCancelled):
            await raising.aget(timeout=10)
        assert await finishing.aget(timeout=10) == "done all the same"


@pytest.mark.parametrize("type_", ["tidies", "stubborn"])
async def test_a_process_is_interrupted_and_then_killed(
    desk: Desk, redis_url: str, tmp_path: Path, type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CancelledError in the handler, so that it can clean up; one that goes on is killed after the grace."""
    monkeypatch.setattr("headrace.runtime.processes.CANCEL_S", 0.3)
    note = tmp_path / "note"
    async with working(process_app, redis_url, app="process_app", processes=1):
        task_id = await desk.submit(type_, {"note": str(note)})
        await _until(note.exists)
        await _until(lambda: note.read_text().isdigit())
        pid = int(note.read_text())
        assert await desk.client.call(desk.queue.cancel(task_id)) == "asked"
        seen = await desk.ended(task_id)
        assert seen.state is State.CANCELLED
        if type_ == "tidies":
            assert note.read_text() == "tidied"
            after = await desk.ended(await desk.submit("pid_of"))
            assert bytes(after.result or b"") == b"[%d,1]" % pid, "the process lives on and is used again"
        else:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_forced_a_running_task_is_cancelled_at_once(app: App[None], redis_url: str) -> None:
    """Whatever its worker still does."""
    began, go_on = threading.Event(), threading.Event()

    @app.task()
    def deaf() -> None:
        began.set()
        go_on.wait(20)

    async with working(app, redis_url):
        handle = await deaf.aenqueue()
        await asyncio.to_thread(began.wait)
        assert await handle.acancel(force=True) is State.CANCELLED
        with pytest.raises(TaskCancelled):
            await handle.aget(timeout=10)
        go_on.set()


async def test_a_failed_task_is_retried(app: App[None], redis_url: str) -> None:
    """It starts over; what runs or has completed cannot be retried."""
    attempts: list[int] = []

    @app.task(max_retries=0)
    async def once_more(ctx: Ctx) -> int:
        attempts.append(ctx.attempt)
        if len(attempts) == 1:
            raise LookupError("not yet")
        return ctx.attempt

    async with working(app, redis_url):
        handle = await once_more.aenqueue()
        with pytest.raises(TaskFailed):
            await handle.aget(timeout=10)
        assert await handle.aretry() is State.PENDING
        assert await handle.aget(timeout=10) == 2
        with pytest.raises(WrongState, match="completed"):
            await handle.aretry()
        with pytest.raises(WrongState, match="completed"):
            await handle.acancel()


async def test_a_retry_that_was_not_confirmed_is_not_confirmed_by_repeating_it(
    app: App[None], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no replica, so none ever is; the repetition finds the task pending."""

    @app.task(max_retries=0)
    async def fails() -> None:
        raise LookupError("never")

    async with working(app, redis_url):
        handle = await fails.aenqueue()
        with pytest.raises(TaskFailed):
            await handle.aget(timeout=10)
    monkeypatch.setenv("HEADRACE_DURABILITY", "replicated:1")
    monkeypatch.setenv("HEADRACE_DURABILITY_TIMEOUT_S", "0.1")
    monkeypatch.setenv("HEADRACE_SUBMIT_TIMEOUT_S", "0.1")
    async with App("t", url=redis_url) as strict:

        @strict.task(name="fails")
        async def again() -> None: ...

        for _ in range(2):
            with pytest.raises(DurabilityUnconfirmed):
                await again.handle(handle.id).aretry()


async def test_a_delayed_task_is_made_due(app: App[None], redis_url: str) -> None:
    """Retrying it now is making it due."""

    @app.task()
    async def work() -> str:
        return "done"

    async with working(app, redis_url):
        handle = await work.using(delay=3600).aenqueue()
        assert await handle.aretry() is State.PENDING
        assert await handle.aget(timeout=10) == "done"


def test_synchronous_callers_can_do_it_all(redis_url: str) -> None:
    """The same verbs without await; refused where a loop runs."""
    app = App("t", url=redis_url)

    @app.task()
    async def work() -> None: ...

    handle = work.using(delay=60).enqueue()
    assert handle.progress() is None
    assert handle.retry() is State.PENDING
    assert handle.cancel() is State.CANCELLED
    asyncio.run(_refused(handle))
    app.close()


async def _refused(handle: Handle[None]) -> None:
    for verb in (handle.cancel, handle.retry, handle.progress):
        with pytest.raises(WrongCaller, match=f"await handle.a{verb.__name__}"):
            verb()


async def _until(look: object) -> None:
    async def asked() -> bool:
        assert callable(look)
        return bool(look())

    await eventually(asked)
