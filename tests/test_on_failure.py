"""What is called after a task has ended in the dead letter; and how long completed ones are kept."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from headrace import App, BadDefinition, Ctx, Retry, TaskFailed
from headrace.broker.broker import Report
from headrace.context import current_ctx
from headrace.runtime.attempt import Ending, Running
from headrace.runtime.hooks import FailureHooks
from headrace.task import Envelope, Failure, State
from headrace.taskdef import OnFailure
from headrace.testing import Testing
from worker_harness import Desk, eventually, working


class NoException(BaseException):
    """As the cancellations of some libraries are."""


Heard = list[tuple[str, int, BaseException]]


async def heard(calls: Heard) -> tuple[str, int, BaseException]:
    """The one call, once it has come."""

    async def look() -> Heard:
        return calls

    await eventually(look)
    [call] = calls
    return call


@pytest.mark.parametrize("hook_is", ["async", "sync"])
@pytest.mark.parametrize("task_is", ["async", "sync"])
async def test_it_is_called_once_after_the_last_failure(desk: Desk, redis_url: str, hook_is: str, task_is: str) -> None:
    """With the attempt's ctx and what the handler raised, when the record says failed."""
    calls: Heard = []
    threads: list[bool] = []

    async def in_loop(ctx: Ctx[Any], error: BaseException) -> None:
        assert (await desk.look(ctx.id)).state is State.FAILED
        calls.append((ctx.id, ctx.attempt, error))

    def in_thread(ctx: Ctx[Any], error: BaseException) -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        assert current_ctx.get() is ctx
        calls.append((ctx.id, ctx.attempt, error))

    app = App("t")
    hook = in_loop if hook_is == "async" else in_thread

    @app.task(retry=Retry(1, base_s=0.001), on_failure=hook)
    async def fails() -> None:
        raise LookupError("nothing there")

    @app.task(retry=Retry(1, base_s=0.001), on_failure=hook)
    def fails_in_thread() -> None:
        raise LookupError("nothing there")

    task_id = await desk.submit("fails" if task_is == "async" else "fails_in_thread")
    async with working(app, redis_url):
        named, attempt, error = await heard(calls)
    assert (named, attempt) == (task_id, 2)
    assert isinstance(error, LookupError) and str(error) == "nothing there"
    assert threads in ([], [False])
    assert len(calls) == 1


async def test_hooks_that_hang_in_threads_leave_the_worker_its_own(desk: Desk, redis_url: str) -> None:
    """Those of the event loop look up names, too: without them no connection comes back."""
    app, over, hanging = App("t"), threading.Event(), list[int]()

    def hangs(ctx: Ctx[Any], error: BaseException) -> None:
        hanging.append(1)
        over.wait(60)

    @app.task(max_retries=0, timeout=0.05, on_failure=hangs)
    async def fails() -> None:
        raise LookupError

    many = 2 * (os.cpu_count() or 1) + 8  # more than asyncio has
    try:
        async with working(app, redis_url):
            tasks = [await desk.submit("fails") for _ in range(many)]
            assert {(await desk.ended(each)).state for each in tasks} == {State.FAILED}
            await heard_of(hanging)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
    finally:
        over.set()


async def heard_of(calls: list[int]) -> None:
    async def look() -> list[int]:
        return calls

    await eventually(look)


class Notifier:
    """A hook that is no function."""

    def __init__(self) -> None:
        self.calls: Heard = []

    async def __call__(self, ctx: Ctx[Any], error: BaseException) -> None:
        self.calls.append((ctx.id, ctx.attempt, error))


@pytest.mark.parametrize("how", ["object", "partial"])
async def test_whatever_gives_a_coroutine_is_awaited(desk: Desk, redis_url: str, how: str) -> None:
    """Such a hook looked synchronous, and its coroutine was thrown away."""
    app, hook = App("t"), Notifier()

    @app.task(max_retries=0, on_failure=hook if how == "object" else partial(hook))
    async def fails() -> None:
        raise LookupError

    task_id = await desk.submit("fails")
    async with working(app, redis_url):
        assert (await heard(hook.calls))[0] == task_id


async def test_a_timeout_and_a_payload_that_does_not_fit_are_failures_too(desk: Desk, redis_url: str) -> None:
    """The one as TimeoutError, the other as TaskFailed, for its handler never ran; both with the deps."""
    calls: dict[str, tuple[Any, BaseException]] = {}

    async def deps() -> AsyncIterator[str]:
        yield "shared"

    def hook(ctx: Ctx[Any], error: BaseException) -> None:
        calls[ctx.type] = (ctx.deps, error)

    app = App("t", deps=deps)

    @app.task(timeout=0.01, max_retries=0, on_failure=hook)
    async def slow() -> None:
        await asyncio.sleep(60)

    @app.task(on_failure=hook)
    async def takes(n: int) -> None: ...

    await desk.submit("slow")
    await desk.submit("takes", {"n": "many"})

    async def both() -> bool:
        return len(calls) == 2

    async with working(app, redis_url):
        await eventually(both)
    assert calls["slow"][0] == calls["takes"][0] == "shared"
    assert isinstance(calls["slow"][1], TimeoutError)
    assert isinstance(calls["takes"][1], TaskFailed) and calls["takes"][1].type == "invalid_payload"


@pytest.mark.parametrize("hook_is", ["async", "sync"])
@pytest.mark.parametrize("raised", [ConnectionError, SystemExit, KeyboardInterrupt, NoException])
async def test_what_it_raises_is_logged_and_changes_nothing(
    desk: Desk, redis_url: str, caplog: pytest.LogCaptureFixture, raised: type[BaseException], hook_is: str
) -> None:
    """The task stays failed, and the worker works on, as it does when a handler calls sys.exit()."""
    app = App("t")

    async def in_loop(ctx: Ctx[Any], error: BaseException) -> None:
        raise raised("nobody to tell")

    def in_thread(ctx: Ctx[Any], error: BaseException) -> None:
        raise raised("nobody to tell")

    @app.task(max_retries=0, on_failure=in_loop if hook_is == "async" else in_thread)
    async def fails() -> None:
        raise LookupError

    @app.task()
    async def works() -> str:
        return "well"

    with caplog.at_level(logging.ERROR, "headrace.attempt"):
        async with working(app, redis_url):
            failed = await desk.ended(await desk.submit("fails"))

            async def logged() -> bool:
                return any("on_failure of fails raised" in line for line in caplog.messages)

            await eventually(logged)
            assert (await desk.ended(await desk.submit("works"))).state is State.COMPLETED
    assert (await desk.look(failed.id)).state is State.FAILED


async def test_a_retry_a_success_and_a_cancellation_call_nothing(desk: Desk, redis_url: str) -> None:
    """Only the end in the dead letter does; a stopping worker lets a call end."""
    calls: list[str] = []
    app, begun = App("t"), asyncio.Event()

    async def hook(ctx: Ctx[Any], error: BaseException) -> None:
        await asyncio.sleep(0.1)
        calls.append(ctx.type)

    @app.task(retry=Retry(1, base_s=0.001), on_failure=hook)
    async def second_time(ctx: Ctx) -> None:
        if ctx.attempt == 1:
            raise LookupError

    @app.task(on_failure=hook)
    async def hangs() -> None:
        begun.set()
        await asyncio.Event().wait()

    @app.task(max_retries=0, on_failure=hook)
    async def fails() -> None:
        raise LookupError

    async with working(app, redis_url):
        await desk.ended(await desk.submit("second_time"))
        hanging = await desk.submit("hangs")
        await begun.wait()
        await desk.client.call(desk.queue.cancel(hanging))
        await desk.ended(hanging)
        await desk.ended(await desk.submit("fails"))
    assert calls == ["fails"]


@pytest.mark.parametrize(("verdict", "called"), [(None, 1), (b"dup", 1), (b"stale", 0), (b"gone", 0)])
async def test_only_an_accepted_report_calls(verdict: bytes | None, called: int) -> None:
    """A stale worker's failure is not the task's."""
    calls: list[str] = []

    def hook(ctx: Ctx[Any], error: BaseException) -> None:
        calls.append(ctx.type)

    await failing(hook, {b"1-1": verdict} if verdict else {}).close()
    assert len(calls) == called


def failing(hook: OnFailure, verdicts: dict[bytes, bytes] | None = None) -> FailureHooks:
    """Its task has failed for good, and the report is answered so, twice."""
    app = App("t")

    @app.task(on_failure=hook)
    async def fails() -> None: ...

    hooks, run = FailureHooks(), Running(None, b"1-1", b"", b"")  # type: ignore[arg-type] # nobody asks it
    run.definition = app.registry["fails"]
    run.envelope = Envelope(1, 1, "a")
    run.ctx = Ctx(id="a", type="fails", queue="default", attempt=1, epoch=1, deadline=0.0, deps=None)
    hooks.expect(run, Ending(State.FAILED, Failure("X")), LookupError())
    report = Report(b"1-1", "a", "failed", "", "fails", b"")
    for _ in range(2):
        hooks.answered([report], verdicts or {})
    return hooks


async def test_a_hook_that_outlasts_the_stop_is_cancelled_and_said_without_a_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has raised nothing."""
    monkeypatch.setattr("headrace.runtime.hooks.LEAVE_S", 0.01)
    began, ended = asyncio.Event(), asyncio.Event()

    async def hook(ctx: Ctx[Any], error: BaseException) -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    hooks = failing(hook)
    await began.wait()
    await hooks.close()
    await ended.wait()
    await hooks.settle()
    [record] = caplog.records
    assert record.getMessage().startswith("on_failure of fails was still running")
    assert (record.levelname, record.exc_info) == ("WARNING", None)


@pytest.mark.parametrize("options", [{"on_failure": "tell"}, {"retention": 0}, {"retention": 1e10}])
def test_bad_declarations_are_refused_at_import(options: dict[str, Any]) -> None:
    """With the option's name."""
    with pytest.raises(BadDefinition, match=next(iter(options))):
        App("t").task(**options)(_nothing)


async def _nothing() -> None: ...


async def test_a_type_keeps_its_completed_tasks_as_long_as_it_says(desk: Desk, redis_url: str) -> None:
    """Also after a retry; other types, and failed tasks, are kept as the settings say."""
    app = App("t")

    @app.task(retention=90, retry=Retry(1, base_s=0.001))
    async def short(ctx: Ctx, fails: int) -> None:
        if ctx.attempt <= fails:
            raise LookupError

    @app.task()
    async def as_set() -> None: ...

    async with working(app, redis_url, retention_s=1000.0):
        ids = [await desk.submit("short", {"fails": fails}) for fails in (0, 1, 2)]
        ids.append(await desk.submit("as_set"))
        for task_id in ids:
            await desk.ended(task_id)
    lives = [await desk.client.command("TTL", desk.queue.keys["t"] + task_id) for task_id in ids]
    assert [85 < lives[0] <= 90, 85 < lives[1] <= 90, lives[2], 990 < lives[3] <= 1000] == [True, True, -1, True]


async def test_it_is_called_in_a_test_without_a_server(headrace: Testing) -> None:
    """Before `awork` comes back, and before that raises what the handler raised."""
    app, calls = App("t", url="redis://127.0.0.1:1"), list[str]()

    async def hook(ctx: Ctx[Any], error: BaseException) -> None:
        calls.append(f"{ctx.type}: {error}")

    @app.task(max_retries=0, on_failure=hook)
    async def fails() -> None:
        raise LookupError("nothing there")

    await fails.aenqueue()
    with pytest.raises(LookupError, match="nothing there"):
        await headrace.awork()
    assert calls == ["fails: nothing there"]
