"""Middleware around attempts: the order of its layers, and what they can make of an error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from headrace import App, Ctx, Permanent, Retry, Task
from headrace.runtime.worker import Worker
from headrace.task import State
from worker_harness import Desk, eventually, working


@asynccontextmanager
async def swallowing(ctx: Ctx[Any]) -> AsyncIterator[None]:
    with suppress(Exception):
        yield


def failing(app: App[Any]) -> list[Task[[], None]]:
    """An async type and one in a thread that always raise."""

    @app.task(retry=Retry(1, base_s=0.01))
    async def in_loop() -> None:
        raise LookupError("nothing there")

    @app.task(retry=Retry(1, base_s=0.01))
    def in_thread() -> None:
        raise LookupError("nothing there")

    return [in_loop, in_thread]


@pytest.mark.parametrize("kind", [0, 1])
async def test_a_swallowed_error_completes_nothing(desk: Desk, redis_url: str, kind: int) -> None:
    """The attempt failed, whatever a layer makes of it: it is retried, and then a dead letter, with its own error."""
    app = App("t", middleware=(swallowing,))
    task = failing(app)[kind]
    task_id = await desk.submit(task.definition.name)
    async with working(app, redis_url):
        seen = await desk.ended(task_id)
    assert (seen.state, seen.counters.failures) == (State.FAILED, 2)
    assert seen.attempts[-1].error is not None and seen.attempts[-1].error.type == "LookupError"
    assert "in_loop" in seen.attempts[-1].error.trace or "in_thread" in seen.attempts[-1].error.trace


@pytest.mark.parametrize("kind", [0, 1])
async def test_run_raises_what_a_layer_swallowed(kind: int) -> None:
    """A test sees what a worker would."""
    app = App("t", url="redis://127.0.0.1:1", middleware=(swallowing,))
    with pytest.raises(LookupError, match="nothing there"):
        await failing(app)[kind].run()


said: ContextVar[str] = ContextVar("said", default="nothing")


@asynccontextmanager
async def speaking(ctx: Ctx[Any]) -> AsyncIterator[None]:
    """As a tracer's layer does, whose spans are children of what runs."""
    token = said.set(ctx.type)
    yield
    said.reset(token)


async def test_handlers_see_the_context_of_their_layers(desk: Desk, redis_url: str) -> None:
    """In a thread as in the loop; and what they set there is seen by nobody else."""
    app = App("t", middleware=(speaking,))

    @app.task()
    async def in_loop() -> str:
        return said.get()

    @app.task()
    def in_thread() -> str:
        heard = said.get()
        said.set("left behind")
        return heard

    async with working(app, redis_url, concurrency=1):
        for name in ("in_loop", "in_thread", "in_thread", "in_loop"):
            seen = await desk.ended(await desk.submit(name))
            assert seen.result is not None and msgspec.json.decode(seen.result) == name


@asynccontextmanager
async def hasty(ctx: Ctx[Any]) -> AsyncIterator[None]:
    async with asyncio.timeout(None if ctx.type == "quick" else 0.05):
        yield


async def test_a_layer_that_gives_up_a_thread_waits_for_its_end(desk: Desk, redis_url: str) -> None:
    """Its handler goes on, so its slot is not free and its task not to be retried; it is asked to end."""
    app, together = App("t", middleware=(hasty,)), list[int]()

    @app.task(retry=Retry(1, base_s=0.001))
    def lasting(ctx: Ctx) -> None:
        together.append(1)
        while not ctx.cancelled:
            time.sleep(0.01)
        time.sleep(0.2)
        together.append(-1)

    @app.task(max_retries=0)
    def quick() -> str:
        return "well"

    async with working(app, redis_url, concurrency=1):
        ended = await desk.ended(await desk.submit("lasting"))
        assert (await desk.ended(await desk.submit("quick"))).state is State.COMPLETED
    assert ended.state is State.FAILED
    assert [each.error and each.error.type for each in ended.attempts] == ["TimeoutError"] * 2
    assert together == [1, -1, 1, -1]


async def test_deadlines_that_give_up_a_thread_in_turn_wait_for_its_end(desk: Desk, redis_url: str) -> None:
    deadlines, together = list[asyncio.Timeout](), list[int]()

    @asynccontextmanager
    async def hasty_twice(ctx: Ctx[Any]) -> AsyncIterator[None]:
        async with asyncio.timeout(0.05) as outer, asyncio.timeout(0.02) as inner:
            deadlines[:] = outer, inner
            yield

    app = App("t", middleware=(hasty_twice,))

    @app.task(retry=Retry(1, base_s=0.001))
    def lasting() -> None:
        together.append(1)
        while not all(each.expired() for each in deadlines):
            time.sleep(0.01)
        time.sleep(0.2)
        together.append(-1)

    async with working(app, redis_url, concurrency=2):
        ended = await desk.ended(await desk.submit("lasting"))
    assert [each.error and each.error.type for each in ended.attempts] == ["TimeoutError"] * 2
    assert together == [1, -1, 1, -1]


async def test_a_worker_that_ends_leaves_such_a_thread_behind(desk: Desk, redis_url: str) -> None:
    """Handed back at the end of the grace, at no charge."""
    app, began, over = App("t", middleware=(hasty,)), threading.Event(), threading.Event()

    @app.task()
    def deaf() -> None:
        began.set()
        over.wait(20)

    task_id = await desk.submit("deaf")
    async with working(app, redis_url, grace_s=0.1) as worker:
        await asyncio.to_thread(began.wait, 10)
        await eventually(lambda: _is_cancelled(worker))
    assert (await desk.look(task_id)).state is State.PENDING
    over.set()


async def _is_cancelled(worker: Worker) -> bool:
    return any(run.ctx is not None and run.ctx.cancelled for run in worker.executor.running.values())


async def test_an_error_of_an_inner_layer_is_not_lost_either() -> None:
    """One whose entry failed never ran the handler, so there is nothing to complete."""
    ran: list[str] = []

    class Broken(AbstractAsyncContextManager[None]):
        async def __aenter__(self) -> None:
            raise ConnectionError("no span")

        async def __aexit__(self, *exc: object) -> None:
            return None

    app = App("t", url="redis://127.0.0.1:1", middleware=(swallowing, lambda ctx: Broken()))

    @app.task()
    async def work() -> None:
        ran.append("work")

    with pytest.raises(ConnectionError, match="no span"):
        await work.run()
    assert ran == []


async def test_layers_nest_in_order_and_may_replace_an_error(desk: Desk, redis_url: str) -> None:
    """The first one is outermost; what it raises instead is what the retry rule sees."""
    order: list[str] = []

    def layer(name: str) -> Any:
        @asynccontextmanager
        async def enter(ctx: Ctx[Any]) -> AsyncIterator[None]:
            order.append(f"{name}>")
            try:
                yield
            except LookupError as error:
                raise Permanent("not worth a retry") from error
            finally:
                order.append(f"<{name}")

        return enter

    app = App("t", middleware=(layer("a"), layer("b")))
    task_id = await desk.submit(failing(app)[0].definition.name)
    async with working(app, redis_url):
        seen = await desk.ended(task_id)
    assert order == ["a>", "b>", "<b", "<a"]
    assert (seen.state, seen.counters.failures) == (State.FAILED, 1)
    assert seen.attempts[-1].error is not None and seen.attempts[-1].error.message == "not worth a retry"
