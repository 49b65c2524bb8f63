"""Child processes that are asked to end, or end, in an unlucky moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.runtime import processes as module
from headrace.runtime.frames import ProcessJob, Stop
from headrace.runtime.processes import HandlerFailed, ProcessDied, ProcessSlots, _Child
from process_harness import APP, LIMIT_S, Child, job, run, until_written
from redis_server import await_true

CANCELLED = "asyncio.exceptions.CancelledError"
Ask = Callable[[ProcessSlots, ProcessJob], None]
RunLoop = Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def one_slot() -> AsyncIterator[ProcessSlots]:
    slots = ProcessSlots(APP, 1)
    try:
        yield slots
    finally:
        await asyncio.wait_for(slots.close(), LIMIT_S)


@pytest.fixture
async def slots() -> AsyncIterator[ProcessSlots]:
    async with one_slot() as slots:
        yield slots


@pytest.fixture(params=["asyncio", "uvloop"])
def run_loop(request: pytest.FixtureRequest) -> RunLoop:
    """Both of the worker's loops; tests that use it are no coroutines."""
    loop: RunLoop = asyncio.run if request.param == "asyncio" else pytest.importorskip("uvloop").run
    return loop


class Queueing:
    """The one process is busy; `second` waits for it, until `go`."""

    def __init__(self, slots: ProcessSlots, folder: Path, second: ProcessJob) -> None:
        self.slots = slots
        self.second = second
        self._go, self._note = folder / "go", folder / "busy"
        self._tasks: list[asyncio.Task[bytes]] = []

    async def begin(self) -> None:
        first = job("wait_for", file=str(self._go), note=str(self._note))
        self._tasks.append(asyncio.create_task(self.slots.run(first)))
        await until_written(self._note)
        self._tasks.append(asyncio.create_task(self.slots.run(self.second)))
        await asyncio.sleep(0)

    async def go(self) -> bytes:
        """The process becomes free; what becomes of the second job."""
        self._go.touch()
        await self._tasks[0]
        return await asyncio.wait_for(self._tasks[1], LIMIT_S)


def ask_in_between(monkeypatch: pytest.MonkeyPatch, queueing: Queueing, ask: Ask) -> None:
    """In the turn of the loop in which a process was found for the second job, and it has not begun."""
    offer = queueing.slots._offer

    def offer_and_ask(child: _Child) -> None:
        offer(child)
        ask(queueing.slots, queueing.second)

    monkeypatch.setattr(queueing.slots, "_offer", offer_and_ask)


async def test_a_kill_is_not_lost_between_two_turns(
    slots: ProcessSlots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ask again."""
    queueing = Queueing(slots, tmp_path, job("hang", note=str(tmp_path / "note")))
    await queueing.begin()
    ask_in_between(monkeypatch, queueing, ProcessSlots.kill)
    with pytest.raises(ProcessDied, match="killed at the hard timeout") as caught:
        await queueing.go()
    assert caught.value.reason == "timeout"


async def test_a_cancellation_is_not_lost_between_two_turns(
    slots: ProcessSlots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler can clean up, as at any other time."""
    monkeypatch.setattr(module, "CANCEL_S", 10 * LIMIT_S)
    queueing = Queueing(slots, tmp_path, job("wait_for", file="/nowhere", note=str(tmp_path / "note")))
    await queueing.begin()
    ask_in_between(monkeypatch, queueing, ProcessSlots.cancel)
    with pytest.raises(HandlerFailed) as caught:
        await queueing.go()
    assert caught.value.failure.type == CANCELLED


@pytest.mark.parametrize("asked", ["while it waits", "in between"])
async def test_a_warning_waits_until_the_job_begins(
    slots: ProcessSlots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """The soft timeout may pass while a job waits for its process: then its handler begins with `ctx.cancelled`."""
    queueing = Queueing(slots, tmp_path, job("heed"))
    await queueing.begin()
    if asked == "in between":
        ask_in_between(monkeypatch, queueing, ProcessSlots.warn)
    else:
        slots.warn(queueing.second)
    assert await queueing.go() == b'"heard"'


def test_a_child_is_stopped_however_soon_it_is_asked(tmp_path: Path) -> None:
    """The request lies in the pipe right behind the job, and is read before that begins; the next job is not meant."""
    with Child() as child:
        for _ in range(20):
            child.say(job("wait_for", file="/nowhere", note=str(tmp_path / "note")), Stop(interrupt=True))
            failure = child.hear().failure
            assert failure is not None and failure.type == CANCELLED
            child.say(job("echo", value=1))
            assert bytes(child.hear().result) == b"1"


def at_loss(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> asyncio.Event:
    """Do this when the loop hears that a child's pipe is lost; the event is set behind it."""
    lost, heard = _Child.pipe_connection_lost, asyncio.Event()

    def hear(child: _Child, fd: int, exc: Exception | None) -> None:
        if not heard.is_set():
            act()
        lost(child, fd, exc)
        heard.set()

    monkeypatch.setattr(_Child, "pipe_connection_lost", hear)
    return heard


def has_ended(pid: int) -> bool:
    """All its threads; as long as one is on its way out, it is one that can be killed."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def test_a_loop_that_was_blocked_tells_the_true_cause(
    run_loop: RunLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child ended by itself while the loop stood still: what the loop meant to kill it for is not the cause."""
    monkeypatch.setattr(module, "PIPE_S", 0.0)
    ended = tmp_path / "go"

    async def scenario() -> None:
        async with one_slot() as slots:
            pid = await run(slots, "pid")
            attempt = job("leave_when", file=str(ended))

            def block() -> None:
                ended.touch()
                await_true(lambda: has_ended(pid))
                slots.kill(attempt)

            at_loss(monkeypatch, block)
            with pytest.raises(ProcessDied, match="ended with exit code 3") as caught:
                await asyncio.wait_for(slots.run(attempt), LIMIT_S)
            assert caught.value.reason == ""

    run_loop(scenario())


def test_asking_a_child_that_is_about_to_be_gone_harms_nobody(
    run_loop: RunLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipe is closed, and its end not told yet. What asks is the worker's watch, which must not fail."""

    async def scenario() -> None:
        async with one_slot() as slots:
            attempt = job("die", how="exit")
            asked: list[str] = []

            def ask() -> None:
                slots.warn(attempt)
                slots.cancel(attempt)
                asked.append("both")

            at_loss(monkeypatch, ask)
            with pytest.raises(ProcessDied, match="ended with exit code 3"):
                await asyncio.wait_for(slots.run(attempt), LIMIT_S)
            assert asked == ["both"]

    run_loop(scenario())


async def test_an_idle_process_without_a_pipe_gets_no_job(
    slots: ProcessSlots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job waits for another process instead of failing with this one."""
    monkeypatch.setattr(module, "PIPE_S", 0.2)
    go = tmp_path / "go"
    before = await run(slots, "cut_pipes_when", file=str(go))
    lost = at_loss(monkeypatch, lambda: None)
    go.touch()
    await asyncio.wait_for(lost.wait(), LIMIT_S)
    assert await run(slots, "pid") != before


async def test_a_process_is_killed_where_the_kernel_cannot_be_asked(
    slots: ProcessSlots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS with an older Python."""
    monkeypatch.delattr(os, "waitid")
    hanging = job("hang", note=str(tmp_path / "note"))
    attempt = asyncio.create_task(slots.run(hanging))
    await until_written(tmp_path / "note")
    slots.kill(hanging)
    with pytest.raises(ProcessDied, match="killed at the hard timeout"):
        await asyncio.wait_for(attempt, LIMIT_S)


async def test_a_process_that_cannot_be_started_is_told_whatever_the_loop_raises(
    slots: ProcessSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No OSError, such as asyncio's when there is no thread to wait for the process; the next job gets a new start."""

    async def start(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "subprocess_exec", start)
        with pytest.raises(ProcessDied, match="got no process: can't start new thread"):
            await run(slots, "pid")
    assert await run(slots, "echo", value=1) == 1
