"""Slots take turns at what is ready: an attempt that is stopped before its turn never begins, and no bug of ours costs
a slot."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from headrace import App
from headrace.broker.broker import Queue, Report
from headrace.runtime.claims import QueueClaims
from headrace.runtime.executor import Executor
from headrace.runtime.stats import WorkerStats
from headrace.task import NO_RESULT, Envelope, cut, encode_envelope, new_id, parse_attempts
from headrace.testing.crew import Desk
from worker_harness import quick

WITHIN_S = 5.0


class Claimed:
    """A task that an executor was given."""

    def __init__(self, executor: Executor, place: bytes, type_: str = "told") -> None:
        self.id = new_id()
        self.desk = Desk(Queue("default"), epoch=1)
        envelope = encode_envelope(Envelope(1, 1, self.id, type=type_, created_ms=1))
        executor.begin(cast("QueueClaims", self.desk), place, envelope, b"")

    async def report(self) -> Report:
        return await asyncio.wait_for(self.desk.report, WITHIN_S)


class Result(msgspec.Struct, weakref=True):
    """What a handler returns whose result is looked for afterwards."""


class NoException(BaseException):
    pass


class Scene:
    """An executor with one slot, and which of its handlers began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.stays = asyncio.Event()
        self.now_s = 1_764_000_000.0
        self.results: list[weakref.ref[Result]] = []
        self.app = App("t")
        for handler in (
            self.told,
            self.stays_on,
            self.cancels_itself,
            self.cancels_itself_again,
            self.cancels_itself_late,
            self.raises_when_cancelled,
            self.returns,
            self.returns_nothing,
            self.raises_what_is_no_exception,
        ):
            self.app.task(handler.__name__)(_plain(handler))
        self.stats = WorkerStats(self.app.registry)
        self.executor = Executor(self.app, quick(concurrency=1), "w", self.stats, lambda: self.now_s)
        self.executor.start()

    async def told(self) -> None:
        self.began.append("told")

    async def stays_on(self) -> None:
        self.stays.set()
        await asyncio.Event().wait()

    async def cancels_itself(self) -> None:
        own = asyncio.current_task()
        assert own is not None
        own.cancel()

    async def cancels_itself_again(self) -> None:
        """Once more, after it was cancelled."""
        self.stays.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self.cancels_itself()

    async def cancels_itself_late(self) -> None:
        """As a watchdog does that nobody called off."""
        own = asyncio.current_task()
        assert own is not None
        asyncio.get_running_loop().call_soon(own.cancel)

    async def raises_when_cancelled(self) -> None:
        self.stays.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("on the way out") from None

    async def returns(self) -> Any:
        made = Result()
        self.results.append(weakref.ref(made))
        return made

    async def returns_nothing(self) -> Any:
        return msgspec.Raw(b"")

    async def raises_what_is_no_exception(self) -> None:
        """As the cancellations of some libraries are."""
        raise NoException

    async def waited(self, place: bytes) -> int:
        """For how many whole seconds a task that came then has waited, by the histogram."""
        waits = self.stats.types["told"].waits[1]
        before = waits.sum
        await Claimed(self.executor, place).report()
        return round(waits.sum - before)


def _plain(method: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], Coroutine[Any, Any, Any]]:
    """A bound method is no function that an App takes."""

    async def handler() -> Any:
        return await method()

    return handler


@asynccontextmanager
async def opened() -> AsyncIterator[Scene]:
    scene = Scene()
    try:
        yield scene
    finally:
        await scene.executor.close()


async def test_an_attempt_that_is_cancelled_before_its_turn_does_not_begin() -> None:
    async with opened() as scene:
        first = Claimed(scene.executor, b"11764000000000-0")
        scene.executor.stops.cancel({first.id})
        assert (await first.report()).outcome == "cancelled"
        second = Claimed(scene.executor, b"11764000000000-1")
        assert (await second.report()).outcome == "completed"
    assert scene.began == ["told"]


async def test_an_attempt_that_is_lost_before_its_turn_is_not_told() -> None:
    async with opened() as scene:
        first = Claimed(scene.executor, b"11764000000000-0")
        scene.executor.stops.lose(cast("QueueClaims", first.desk), set())
        second = Claimed(scene.executor, b"11764000000000-1")
        assert (await second.report()).outcome == "completed"
        assert not first.desk.report.done() and not scene.executor.running
    assert scene.began == ["told"]


async def test_a_report_that_fails_costs_no_slot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = asyncio.Event()

    def fails(desk: Desk, report: Report) -> None:
        asked.set()
        raise RuntimeError("a bug")

    async with opened() as scene:
        with monkeypatch.context() as broken:
            broken.setattr(Desk, "ended", fails)
            Claimed(scene.executor, b"11764000000000-0")
            await asyncio.wait_for(asked.wait(), WITHIN_S)
        second = Claimed(scene.executor, b"11764000000000-1")
        assert (await second.report()).outcome == "completed"
    assert scene.began == ["told", "told"] and "an attempt could not be told" in caplog.text


async def test_what_a_handler_raises_that_is_no_exception_costs_no_slot() -> None:
    """As in a thread, it ends the attempt, and nothing else."""
    async with opened() as scene:
        for at in range(3):
            odd = Claimed(scene.executor, b"11764000000000-%d" % at, "raises_what_is_no_exception")
            assert (await odd.report()).outcome == "failed"
            assert (await Claimed(scene.executor, b"11764000000001-%d" % at).report()).outcome == "completed"
    assert scene.executor.running == {}


async def test_a_handler_that_cancels_its_own_task_costs_no_slot() -> None:
    """And the next attempt does not get the cancellation that it left behind."""
    async with opened() as scene:
        for at in range(3):
            itself = Claimed(scene.executor, b"11764000000000-%d" % at, "cancels_itself")
            next_one = Claimed(scene.executor, b"11764000000001-%d" % at)
            assert (await itself.report()).outcome == "completed"
            assert (await next_one.report()).outcome == "completed"
    assert scene.began == ["told"] * 3


async def test_a_handler_that_cancels_its_own_task_once_more_costs_no_slot() -> None:
    async with opened() as scene:
        first = Claimed(scene.executor, b"11764000000000-0", "cancels_itself_again")
        await asyncio.wait_for(scene.stays.wait(), WITHIN_S)
        scene.executor.stops.cancel({first.id})
        await first.report()
        for at in range(3):
            assert (await Claimed(scene.executor, b"11764000000001-%d" % at).report()).outcome == "completed"


async def test_a_cancellation_that_comes_when_the_slot_sleeps_costs_none() -> None:
    async with opened() as scene:
        for at in range(3):
            await Claimed(scene.executor, b"11764000000000-%d" % at, "cancels_itself_late").report()
            await asyncio.sleep(0)
            assert (await Claimed(scene.executor, b"11764000000001-%d" % at).report()).outcome == "completed"


async def test_a_cancellation_that_comes_when_the_slot_is_woken_delays_nobody() -> None:
    async with opened() as scene:
        slots = scene.executor._slots
        assert slots is not None
        await Claimed(scene.executor, b"11764000000000-0").report()
        for at in range(3):
            waiting = [Claimed(scene.executor, b"1176400000%04d-%d" % (at, each)) for each in range(3)]
            [task] = slots._tasks
            task.cancel()
            assert [(await each.report()).outcome for each in waiting] == ["completed"] * 3


async def test_a_slot_does_not_keep_what_its_last_handler_returned() -> None:
    async with opened() as scene:
        await Claimed(scene.executor, b"11764000000000-0", "returns").report()
        gc.collect()
        assert [result() for result in scene.results] == [None]


async def test_a_result_of_no_bytes_is_none() -> None:
    async with opened() as scene:
        report = await Claimed(scene.executor, b"11764000000000-0", "returns_nothing").report()
    assert [each.result for each in parse_attempts(cut(report.record)[2])] == [NO_RESULT]


async def test_waits_count_from_when_each_task_came() -> None:
    """Also of those that share a millisecond with the one before, and of ids that something foreign chose."""
    came = (b"11763999990000-0", b"11763999990000-1", b"11763999980000-0", b"15-1", b"15-17", b"11763999990000-2")
    async with opened() as scene:
        waited = [await scene.waited(place) for place in came]
    assert waited == [10, 10, 20, 1_764_000_000, 1_764_000_000, 10]


async def test_a_clock_that_is_set_counts_for_waits_and_records_from_then_on() -> None:
    async with opened() as scene:
        assert await scene.waited(b"11763999990000-0") == 10
        scene.now_s += 100
        scene.executor.look_at_clock()
        assert await scene.waited(b"11763999990000-1") == 110
        report = await Claimed(scene.executor, b"11763999990000-2").report()
    [attempt] = parse_attempts(cut(report.record)[2])
    assert attempt.started_ms is not None and attempt.started_ms >= 1_764_000_100_000


async def test_closing_tells_what_was_cancelled_before(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as scene:
        claimed = Claimed(scene.executor, b"11764000000000-0", "stays_on")
        await asyncio.wait_for(scene.stays.wait(), WITHIN_S)
        scene.executor.stops.cancel({claimed.id})
    assert (await claimed.report()).outcome == "cancelled"
    assert "go on although they were cancelled" not in caplog.text


@pytest.mark.parametrize("handler", ["stays_on", "cancels_itself_again", "raises_when_cancelled"])
async def test_closing_tells_only_of_what_ended_well(handler: str, caplog: pytest.LogCaptureFixture) -> None:
    """The worker is gone then; who takes over its claims is told by Redis."""
    async with opened() as scene:
        claimed = Claimed(scene.executor, b"11764000000000-0", handler)
        await asyncio.wait_for(scene.stays.wait(), WITHIN_S)
    ended_well = handler == "cancels_itself_again"
    assert claimed.desk.report.done() == ended_well
    assert caplog.text == "", "and nothing goes on"
