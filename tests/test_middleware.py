"""Middleware around attempts: the order of its layers, and what they can make of an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest

from headrace import App, Ctx, Permanent, Retry, Task
from headrace.task import State
from worker_harness import Desk, working


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
