"""What an application may rely on, tested twice: in `headrace.testing`, and with a real worker on a real Redis.

A test submits, has the work done, and looks. The two sides differ only in how the work gets done.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import pytest

from conftest import SERVERS
from headrace import (
    App,
    Ctx,
    Handle,
    InvalidPayload,
    Permanent,
    QueueFull,
    ResultTimeout,
    Retry,
    RetryAfter,
    State,
    Task,
    TaskCancelled,
    TaskConflict,
    TaskExpired,
    TaskFailed,
    TooLarge,
    Unique,
    UnknownTask,
)
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.task import new_id
from headrace.testing import Testing
from redis_server import Missing, RedisServer
from worker_harness import eventually, shares, working


class Side(Protocol):
    """Where the contract is tried."""

    url: str

    async def work(self, app: App[Any]) -> None:
        """Do all that there is to do, also what is delayed or tried again."""


class InProcess:
    """`headrace.testing`."""

    url = "redis://127.0.0.1:1"

    def __init__(self, testing: Testing) -> None:
        self._testing = testing

    async def work(self, app: App[Any]) -> None:
        await self._testing.awork(raises=False, delayed=True)


class Real:
    """A worker with one slot, on Redis."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = AsyncClient(RedisSettings.parse(url, "the test"))

    async def work(self, app: App[Any]) -> None:
        queues = [each.queue for each in app.registry.values()]
        async with working(app, self.url, concurrency=1, queues=shares(*dict.fromkeys(queues))):
            for name in queues:

                async def idle(name: str = name) -> bool:
                    depth = await self._client.call(Queue(name).depth())
                    return depth.live == depth.parked

                await eventually(idle)

    async def close(self) -> None:
        await self._client.aclose()


@pytest.fixture(scope="module", params=["testing", *SERVERS])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | None]:
    """Each real server of this machine in turn, and none."""
    binary = SERVERS.get(request.param)
    if binary is None:
        yield None
    elif isinstance(binary, Missing):
        pytest.skip(binary.reason)
    else:
        with RedisServer(binary) as server:
            yield server


@pytest.fixture
async def side(server: RedisServer | None) -> AsyncIterator[Side]:
    if server is None:
        with Testing() as testing:
            yield InProcess(testing)
        return
    server.redis.flushall()
    real = Real(server.url)
    yield real
    await real.close()


@pytest.fixture
async def app(side: Side) -> AsyncIterator[App[None]]:
    async with App("contract", url=side.url) as app:
        yield app


@pytest.fixture
def ran() -> Iterator[list[Any]]:
    """What handlers note."""
    yield []


QUICK = Retry(3, base_s=0.01)


def noting(app: App[Any], ran: list[Any], **options: Any) -> Task[[int], int]:
    @app.task(**options)
    async def note(number: int) -> int:
        ran.append(number)
        return 10 * number

    return note


def noting_otherwise(app: App[Any], ran: list[Any]) -> Task[[int], None]:
    @app.task()
    def other(number: int) -> None:
        ran.append(number)

    return other


# -- submitting and results


@dataclass
class Page:
    url: str
    words: int = 0


async def test_a_result_comes_back_as_its_type(side: Side, app: App[None]) -> None:
    @app.task()
    async def count(page: Page, factor: int = 2) -> Page:
        return Page(page.url, page.words * factor)

    @app.task()
    def in_a_thread(words: list[str]) -> str:
        return " ".join(words)

    @app.task()
    async def nothing() -> None: ...

    page = await count.aenqueue(Page("u", 21))
    text = await in_a_thread.aenqueue(["a", "b"])
    none = await nothing.aenqueue()
    assert await page.astate() is State.PENDING
    await side.work(app)
    assert await page.aget() == Page("u", 42)
    assert await text.aget() == "a b"
    assert await none.aget() is None  # type: ignore[func-returns-value]
    assert await page.astate() is State.COMPLETED


async def test_a_handler_knows_its_attempt(side: Side, app: App[None]) -> None:
    @app.task(queue="other", timeout=20)
    async def tell(ctx: Ctx) -> dict[str, Any]:
        return {"id": ctx.id, "type": ctx.type, "queue": ctx.queue, "attempt": ctx.attempt, "left": ctx.remaining_s}

    handle = await tell.aenqueue()
    await side.work(app)
    told = await handle.aget()
    assert 10 < told.pop("left") <= 20
    assert told == {"id": handle.id, "type": "tell", "queue": "other", "attempt": 1}


async def test_what_does_not_fit_is_refused_at_the_call(app: App[None]) -> None:
    @app.task()
    async def shout(word: str) -> str:
        return word

    with pytest.raises(InvalidPayload, match="word"):
        await shout.aenqueue(3)  # type: ignore[arg-type]
    with pytest.raises(TooLarge):
        await shout.aenqueue("x" * 100_000)


async def test_a_task_that_nobody_knows(side: Side, app: App[None], ran: list[int]) -> None:
    handle: Handle[int] = noting(app, ran).handle(new_id())
    with pytest.raises(UnknownTask):
        await handle.aget(timeout=1)


async def test_a_full_queue_refuses(side: Side, monkeypatch: pytest.MonkeyPatch, ran: list[int]) -> None:
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "2")
    async with App("full", url=side.url) as app:
        note = noting(app, ran)
        for number in range(2):
            await note.aenqueue(number)
        with pytest.raises(QueueFull):
            await note.aenqueue(2)
        await side.work(app)
        await note.aenqueue(3)
        await side.work(app)
    assert ran == [0, 1, 3]


async def test_a_batch_keeps_its_order(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran, retry=Retry(0))

    @app.task(retry=Retry(0))
    async def fail() -> int:
        raise ValueError("as ever")

    batch = await app.abatch([note.call(1), note.using(priority="high").call(2), note.call(3)])
    with_one = await app.abatch([note.call(4), fail.call()])
    await side.work(app)
    assert await batch.aresults(timeout=5) == [10, 20, 30]
    assert ran == [2, 1, 3, 4]
    fine, failed = await with_one.aoutcomes(timeout=5)
    assert fine == 40 and isinstance(failed, TaskFailed)


# -- order and time


async def test_priorities_are_strict_and_each_is_first_in_first_out(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran)
    for number, priority in enumerate(["low", "medium", "critical", "high", "low", "critical"]):
        await note.using(priority=priority).aenqueue(number)
    await side.work(app)
    assert ran == [2, 5, 3, 1, 0, 4]


async def test_delayed_tasks_run_when_they_are_due(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran)
    late = await note.using(delay=0.2).aenqueue(2)
    await note.using(delay=timedelta(milliseconds=100)).aenqueue(1)
    await note.aenqueue(0)
    assert await late.astate() is State.SCHEDULED
    await side.work(app)
    assert ran == [0, 1, 2]


async def test_a_wait_ends_with_its_time(app: App[None], ran: list[int]) -> None:
    handle = await noting(app, ran).using(delay=600).aenqueue(1)
    with pytest.raises(ResultTimeout) as raised:
        await handle.aget(timeout=0.05)
    assert (raised.value.seconds, raised.value.state) == (0.05, "scheduled")


async def test_what_expired_does_not_run(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran)

    @app.task(priority="critical")
    async def busy() -> None:
        await asyncio.sleep(0.1)

    late = await note.using(expires=0.02).aenqueue(1)
    in_time = await note.using(expires=60).aenqueue(2)
    if isinstance(side, InProcess):
        side._testing.advance(0.1)
    else:
        await busy.aenqueue()
    await side.work(app)
    assert ran == [2]
    assert await in_time.aget() == 20
    with pytest.raises(TaskExpired):
        await late.aget()


# -- failure


async def test_a_failure_is_tried_again(side: Side, app: App[None]) -> None:
    @app.task(retry=QUICK)
    async def third_time(ctx: Ctx) -> int:
        if ctx.attempt < 3:
            raise OSError("not yet")
        return ctx.attempt

    handle = await third_time.aenqueue()
    await side.work(app)
    assert await handle.aget() == 3


async def test_retries_end(side: Side, app: App[None], ran: list[int]) -> None:
    @app.task(retry=QUICK)
    async def never(number: int) -> None:
        ran.append(number)
        raise OSError(f"not {number}")

    handles = [await never.aenqueue(1), await never.using(max_retries=0).aenqueue(2)]
    await side.work(app)
    for handle in handles:
        with pytest.raises(TaskFailed, match=r"OSError.*not [12]"):
            await handle.aget()
    assert sorted(ran) == [1, 1, 1, 1, 2]


async def test_a_handler_may_say_how_it_goes_on(side: Side, app: App[None], ran: list[str]) -> None:
    @app.task(retry=Retry(3, base_s=60, on=(OSError,)))
    async def obey(what: str) -> None:
        ran.append(what)
        match what:
            case "never":
                raise Permanent("no use")
            case "again" if ran.count("again") < 2:
                raise RetryAfter(0.01, "busy")
            case "other":
                raise ValueError("not on the list")

    handles = {what: await obey.aenqueue(what) for what in ("never", "again", "other")}
    await side.work(app)
    for what in ("never", "other"):
        with pytest.raises(TaskFailed):
            await handles[what].aget()
    assert await handles["again"].astate() is State.COMPLETED
    assert sorted(ran) == ["again", "again", "never", "other"]


async def test_an_attempt_that_takes_too_long_fails(side: Side, app: App[None]) -> None:
    @app.task(timeout=0.05, retry=Retry(0))
    async def hang() -> None:
        await asyncio.Event().wait()

    handle = await hang.aenqueue()
    await side.work(app)
    with pytest.raises(TaskFailed, match=r"took longer than 0\.05 s"):
        await handle.aget()


async def test_a_type_that_no_worker_knows_waits(side: Side, app: App[None], ran: list[int]) -> None:
    """As when an old worker meets a type of the new version."""
    handle, other = await noting(app, ran).aenqueue(1), noting_otherwise(app, ran)
    del app._registry["note"]
    await other.aenqueue(2)
    await side.work(app)
    assert await handle.astate() is State.PARKED
    assert ran == [2]


async def test_a_hook_hears_of_the_last_failure(side: Side, ran: list[Any]) -> None:
    async def deps() -> AsyncIterator[str]:
        yield "shared"

    async def tell(ctx: Ctx[Any], error: BaseException) -> None:
        ran.append((ctx.id, ctx.attempt, ctx.deps, str(error)))

    def tell_in_a_thread(ctx: Ctx[Any], error: BaseException) -> None:
        ran.append((ctx.id, ctx.attempt, ctx.deps, str(error)))

    async with App("hooks", url=side.url, deps=deps) as app:

        @app.task(retry=Retry(1, base_s=0.01), on_failure=tell)
        async def never() -> None:
            raise OSError("as ever")

        @app.task(retry=Retry(0), on_failure=tell_in_a_thread)
        def nor_this() -> None:
            raise ValueError("neither")

        handles = [await never.aenqueue(), await nor_this.aenqueue()]
        await side.work(app)
    assert sorted(ran, key=str) == sorted(
        [(handles[0].id, 2, "shared", "as ever"), (handles[1].id, 1, "shared", "neither")], key=str
    )


async def test_a_dead_letter_can_start_over(side: Side, app: App[None], ran: list[str]) -> None:
    @app.task(retry=Retry(0))
    async def mended() -> str:
        ran.append("")
        if len(ran) < 2:
            raise ValueError("broken")
        return "fine"

    handle = await mended.aenqueue()
    await side.work(app)
    assert [seen.id async for seen in app.inspect.tasks("state:failed error:broken")] == [handle.id]
    assert await handle.aretry() is State.PENDING
    await side.work(app)
    assert await handle.aget() == "fine"


async def test_a_delayed_task_can_be_hurried(side: Side, app: App[None], ran: list[int]) -> None:
    handle = await noting(app, ran).using(delay=600).aenqueue(1)
    assert await handle.aretry() is State.PENDING
    await side.work(app)
    assert ran == [1]


# -- names


async def test_an_idempotency_key_makes_one_task(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran).using(key="order-17")
    first, again = await note.aenqueue(1), await note.aenqueue(1)
    await side.work(app)
    after = await note.aenqueue(1)
    assert first.id == again.id == after.id
    assert await after.aget() == 10
    assert ran == [1]
    with pytest.raises(TaskConflict):
        await note.aenqueue(2)


async def test_a_chosen_id_makes_one_task(side: Side, app: App[None], ran: list[int]) -> None:
    chosen = new_id()
    note = noting(app, ran).using(id=chosen)
    assert [(await note.aenqueue(1)).id for _ in range(2)] == [chosen, chosen]
    await side.work(app)
    assert ran == [1]


async def test_a_unique_key_is_held_until_the_end(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran).using(unique="nightly")
    first, second = await note.aenqueue(1), await note.aenqueue(2)
    assert first.id == second.id
    await side.work(app)
    third = await note.aenqueue(3)
    await side.work(app)
    assert third.id != first.id
    assert ran == [1, 3]


async def test_a_unique_key_may_be_held_for_a_time(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran).using(unique=Unique("hourly", until=3600))
    first = await note.aenqueue(1)
    await side.work(app)
    assert (await note.aenqueue(2)).id == first.id
    if isinstance(side, InProcess):
        side._testing.advance(3601)
        assert (await note.aenqueue(3)).id != first.id


async def test_a_cancelled_task_does_not_run(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran)
    waiting, delayed = await note.aenqueue(1), await note.using(delay=60).aenqueue(2)
    for handle in (waiting, delayed):
        assert await handle.acancel() is State.CANCELLED
        with pytest.raises(TaskCancelled):
            await handle.aget()
    await side.work(app)
    assert ran == []


async def test_a_running_task_can_be_cancelled(side: Side, app: App[None], ran: list[str]) -> None:
    @app.task()
    async def hang() -> None:
        ran.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ran.append("cancelled")
            raise

    handle = await hang.aenqueue()
    working = asyncio.create_task(side.work(app))

    async def began() -> bool:
        return "began" in ran

    await eventually(began)
    assert await handle.acancel() is State.PROCESSING
    await working
    with pytest.raises(TaskCancelled):
        await handle.aget()
    assert ran == ["began", "cancelled"]


@pytest.mark.parametrize("thread", [False, True])
async def test_progress_is_shown_while_an_attempt_runs(side: Side, app: App[None], thread: bool) -> None:
    """The latest, of the attempt that runs; nothing before, nothing after."""
    go_on = threading.Event()

    @app.task(retry=QUICK)
    async def slow(ctx: Ctx) -> None:
        if ctx.attempt == 1:
            await ctx.progress(99)
            raise OSError
        await ctx.progress(1, 2, "half")
        await asyncio.to_thread(go_on.wait)

    @app.task()
    def slow_in_a_thread(ctx: Ctx) -> None:
        ctx.progress_sync(0, 2)
        ctx.progress_sync(1, 2, "half")
        go_on.wait()

    handle = await (slow_in_a_thread if thread else slow).aenqueue()
    assert await handle.aprogress() is None
    working = asyncio.create_task(side.work(app))

    async def half() -> bool:
        said = await handle.aprogress()
        return said is not None and (said.done, said.total, said.message) == (1, 2, "half")

    try:
        await eventually(half)
    finally:
        go_on.set()
    await working
    assert await handle.aprogress() is None


# -- what surrounds an attempt


async def test_lifespan_and_middleware_surround_attempts(side: Side, ran: list[str]) -> None:
    async def deps() -> AsyncIterator[str]:
        ran.append("open")
        yield "shared"
        ran.append("close")

    def layer(name: str) -> Any:
        @asynccontextmanager
        async def enter(ctx: Ctx[Any]) -> AsyncGenerator[None, None]:
            ran.append(f"{name} in")
            yield
            ran.append(f"{name} out")

        return enter

    app = App("around", url=side.url, deps=deps, middleware=(layer("outer"), layer("inner")))

    @app.task()
    async def use(ctx: Ctx[str]) -> str:
        ran.append("run")
        return ctx.deps

    async with app:
        handle = await use.aenqueue()
        await side.work(app)
        assert await handle.aget() == "shared"
    assert ran == ["open", "outer in", "inner in", "run", "inner out", "outer out", "close"]


async def test_handlers_submit_and_their_tasks_run_too(side: Side, app: App[None], ran: list[int]) -> None:
    note = noting(app, ran)

    @app.task()
    async def spread(number: int) -> list[str]:
        return [(await note.aenqueue(each)).id for each in range(number)]

    handle = await spread.aenqueue(3)
    await side.work(app)
    assert len(await handle.aget()) == 3
    assert ran == [0, 1, 2]
