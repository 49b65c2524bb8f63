"""Slots take turns at what is ready: an attempt that is stopped before its turn never begins, and no bug of ours costs
a slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from headrace import App
from headrace.broker.broker import Queue, Report
from headrace.runtime.claims import QueueClaims
from headrace.runtime.executor import Executor
from headrace.runtime.stats import WorkerStats
from headrace.task import Envelope, encode_envelope, new_id
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


class Scene:
    """An executor with one slot, and which of its handlers began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.stays = asyncio.Event()
        app = App("t")

        @app.task()
        async def told() -> None:
            self.began.append("told")

        @app.task()
        async def stays() -> None:
            self.stays.set()
            await asyncio.Event().wait()

        self.executor = Executor(app, quick(concurrency=1), "w", WorkerStats(app.registry))
        self.executor.start()


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


async def test_closing_tells_nobody_of_what_still_ran() -> None:
    """The worker is gone then; who takes over its claims is told by Redis."""
    async with opened() as scene:
        claimed = Claimed(scene.executor, b"11764000000000-0", "stays")
        await asyncio.wait_for(scene.stays.wait(), WITHIN_S)
    assert not claimed.desk.report.done()
