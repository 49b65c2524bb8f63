"""What a program sees of its tasks, failures and workers: `app.inspect`, with a real worker."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from headrace import App, Ctx, InvalidFilter, Retry, State, WrongCaller, __version__
from headrace.failures import FailureGroup
from worker_harness import Desk, eventually, working


class TooCold(Exception):  # noqa: N818
    """Of the application."""


def chill(degrees: int) -> None:
    raise TooCold(f"{degrees} degrees, which is too cold")


def shop(url: str) -> App[None]:
    app = App("shop", url=url)

    @app.task(max_retries=0)
    async def brew(degrees: int) -> None:
        chill(degrees)

    @app.task(retry=Retry(5, base_s=600, cap_s=600))
    async def pour(cup: str) -> None:
        raise KeyError(cup)

    @app.task()
    async def sleep(ctx: Ctx[None]) -> None:
        await ctx.progress(1, 4, "dozing")
        await asyncio.Event().wait()

    return app


async def test_tasks_are_found_by_a_filter(redis_url: str) -> None:
    app = App("shop", url=redis_url)

    @app.task()
    async def resize(url: str, width: int = 200) -> None:
        """Never run here."""

    async with app:
        await app.abatch(resize.call("s3://cat", width=width) for width in range(250))
        one = [task async for task in app.inspect.tasks("args.width:42")]
        every = [task async for task in app.inspect.tasks()]
        with pytest.raises(InvalidFilter, match="did you mean 'state'"):
            await app.inspect.page("stat:failed")
        with pytest.raises(WrongCaller, match="async for"):
            next(app.inspect.tasks_sync())
        sync = await asyncio.to_thread(lambda: list(app.inspect.tasks_sync("type:resize")))
    assert [(task.state, task.envelope and bytes(task.envelope.payload)) for task in one] == [
        (State.PENDING, b'{"url":"s3://cat","width":42}')
    ]
    assert len({task.id for task in every}) == len(every) == 250
    assert [task.id for task in sync] == [task.id for task in every]


async def test_failures_are_grouped_by_type_exception_and_place(redis_url: str) -> None:
    """Each group names the filter that finds exactly its tasks."""
    app = shop(redis_url)
    async with app, working(app, redis_url), Desk(redis_url) as desk:
        for degrees in (1, 2, 3):
            await desk.submit("brew", {"degrees": degrees})
        await desk.submit("brew", {"degrees": "none"})
        await desk.submit("pour", {"cup": "blue"})

        async def all_failed() -> list[FailureGroup] | None:
            groups = (await app.inspect.errors()).groups
            return groups if sum(group.count for group in groups) == 5 else None

        groups = await eventually(all_failed)
        found = {group.filter: [task async for task in app.inspect.tasks(group.filter)] for group in groups}
        only_dead = await app.inspect.errors("state:failed type:brew")
    cold = groups[0]
    assert (cold.type, cold.exception, cold.place, cold.count) == (
        "brew",
        f"{__name__}.TooCold",
        "tests/test_inspection.py:chill",
        3,
    )
    assert cold.filter == (
        f"state:failed state:retrying type:brew exception:{__name__}.TooCold place:tests/test_inspection.py:chill"
    )
    assert cold.sample.attempts[-1].error is not None
    assert "too cold" in cold.sample.attempts[-1].error.message
    assert cold.first_ms is not None and cold.last_ms is not None and cold.first_ms <= cold.last_ms
    assert {(group.type, group.exception): group.count for group in groups[1:]} == {
        ("brew", "invalid_payload"): 1,
        ("pour", "KeyError"): 1,
    }
    assert [len(tasks) for tasks in found.values()] == [group.count for group in groups]
    assert sum(group.count for group in only_dead.groups) == 4


async def test_workers_and_what_they_run(redis_url: str) -> None:
    app = shop(redis_url)
    async with app, working(app, redis_url, concurrency=3, grace_s=0.0) as worker, Desk(redis_url) as desk:
        task_id = await desk.submit("sleep")

        async def says_progress() -> bool:
            return any(task.progress for seen in await app.inspect.workers(again_s=0) for task in seen.running)

        await eventually(says_progress)
        [seen] = await app.inspect.workers(again_s=0.3)
    [task] = seen.running
    assert seen.name == worker.name
    assert (seen.worker_id, seen.slots, seen.queues, seen.held) == ("test", 3, ("default",), 1)
    assert seen.types == ("brew", "pour", "sleep")
    assert seen.alive is True
    assert (seen.version, seen.host, seen.pid) == (__version__, socket.gethostname(), os.getpid())
    assert (task.id, task.state, task.progress and task.progress.message) == (task_id, State.PROCESSING, "dozing")
    assert task.started_ms is not None


async def test_a_worker_that_no_longer_beats_is_not_alive(redis_url: str) -> None:
    app = App("shop", url=redis_url)
    async with app, Desk(redis_url) as desk:
        await desk.submit("sleep")
        await desk.client.call(desk.queue.init())
        await desk.client.call(desk.queue.beat("old", 1, b"no json"))
        await desk.client.call(desk.queue.cycle("older", 1))
        await desk.client.call(desk.queue.enlist())
        found = await app.inspect.workers(again_s=0.05)
    assert [(seen.name, seen.alive, seen.held) for seen in found] == [("old", False, 0), ("older", False, 1)]
