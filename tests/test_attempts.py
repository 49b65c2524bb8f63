"""Whatever handlers raise, swallow or leave behind, their attempt is told and their slot is free again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from urllib.error import URLError

import msgspec
import pytest

from headrace import App, Ctx
from headrace.context import current_ctx
from headrace.task import Envelope, State, encode_envelope, new_id
from worker_harness import Desk, deaf, eventually, shares, working


class Speechless(Exception):  # noqa: N818 - it has no words
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Mute(Exception):  # noqa: N818 - as above
    def __str__(self) -> str:
        raise SystemExit(3)


class NoException(BaseException):
    """As the cancellations of some libraries are."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "a reason that is no text": lambda: URLError(OSError("refused")),
    "a lone surrogate": lambda: ValueError("file \udcff"),
    "no text": Speechless,
    "no text by an exit": Mute,
    "what is no Exception": NoException,
    "CancelledError": asyncio.CancelledError,
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "a group": lambda: BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError("x")]),
    "StopIteration": StopIteration,
}


@asynccontextmanager
async def nothing_around(ctx: Ctx) -> AsyncIterator[None]:
    yield


def app_that_raises(make: Callable[[], BaseException], how: str) -> App[None]:
    app = App("t", middleware=(nothing_around,) if how == "sync under middleware" else ())
    if how == "async":

        @app.task(max_retries=0)
        async def bad() -> None:
            raise make()

    else:

        @app.task("bad", max_retries=0)
        def sync_bad() -> None:
            raise make()

    @app.task()
    async def fine() -> None: ...

    return app


@pytest.mark.parametrize("how", ["async", "sync", "sync under middleware"])
@pytest.mark.parametrize("what", list(RAISED))
async def test_whatever_is_raised_is_a_failure_and_frees_the_slot(
    desk: Desk, redis_url: str, what: str, how: str
) -> None:
    """The only slot of the worker runs the next task."""
    app = app_that_raises(RAISED[what], how)
    async with working(app, redis_url, concurrency=1, beat_s=30, dead_after_s=100):
        seen = await desk.ended(await desk.submit("bad"))
        assert seen.state is State.FAILED and seen.counters.failures == 1
        assert seen.attempts[-1].error is not None
        assert (await desk.ended(await desk.submit("fine"))).state is State.COMPLETED


async def test_a_cancellation_that_nobody_asked_for_is_retried(desk: Desk, redis_url: str) -> None:
    """What a handler awaits may be cancelled elsewhere; that is as good a reason for a retry as any other."""
    app = App("t")

    @app.task(max_retries=1)
    async def waits(ctx: Ctx) -> None:
        if ctx.attempt == 1:
            shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            shared.cancel()
            await shared

    async with working(app, redis_url, concurrency=1):
        seen = await desk.ended(await desk.submit("waits"))
    assert seen.state is State.COMPLETED and seen.counters.failures == 1


async def test_a_swallowed_cancellation_does_not_hit_the_next_handler(desk: Desk, redis_url: str) -> None:
    """The slot's count of cancellations is back at zero; else a task group of the next one would end by it."""
    app = App("t")

    @app.task(timeout=0.05)
    async def swallows() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "swallowed"
        return ""

    @app.task()
    async def looks() -> int:
        own = asyncio.current_task()
        assert own is not None
        return own.cancelling()

    async with working(app, redis_url, concurrency=1):
        seen = await desk.ended(await desk.submit("swallows"))
        assert seen.state is State.COMPLETED and bytes(seen.result or b"") == b'"swallowed"'
        seen = await desk.ended(await desk.submit("looks"))
    assert bytes(seen.result or b"") == b"0"


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_context_variable_ends_with_its_attempt(desk: Desk, redis_url: str, kind: str) -> None:
    """What one handler sets is not seen by the next one in the same slot, and each sees its own Ctx."""
    app = App("t")

    def visit(ctx: Ctx) -> list[str]:
        before = tenant.get()
        tenant.set(ctx.id)
        own = current_ctx.get()
        return [before, own.id if own else ""]

    if kind == "sync":
        app.task("visit")(visit)
    else:

        @app.task("visit")
        async def visit_async(ctx: Ctx) -> list[str]:
            return visit(ctx)

    async with working(app, redis_url, concurrency=1):
        for _ in range(3):
            task = await desk.submit("visit")
            seen = await desk.ended(task)
            assert msgspec.json.decode(bytes(seen.result or b"")) == ["nobody", task]


@pytest.mark.parametrize("where", ["made", "before", "after"])
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_middleware_that_raises_is_a_failure(desk: Desk, redis_url: str, where: str, kind: str) -> None:
    """Before the yield, after it, or in place of a context manager."""

    @asynccontextmanager
    async def around(ctx: Ctx) -> AsyncIterator[None]:
        if where == "before":
            raise ValueError("before")
        yield
        raise ValueError("after")

    def broken(ctx: Ctx) -> None: ...

    app = App("t", middleware=(broken if where == "made" else around,))  # type: ignore[arg-type]

    @app.task("inner", max_retries=0)
    async def inner_async() -> None: ...

    @app.task("threaded", max_retries=0)
    def inner_sync() -> None: ...

    async with working(app, redis_url, concurrency=1):
        for _ in range(2):
            seen = await desk.ended(await desk.submit("inner" if kind == "async" else "threaded"))
            assert seen.state is State.FAILED


async def test_under_middleware_a_thread_keeps_its_slot(desk: Desk, redis_url: str) -> None:
    """At the soft timeout a thread goes on, so its slot is not free; what it brings is told."""
    app = App("t", middleware=(nothing_around,))
    release, asked = threading.Event(), threading.Event()

    @app.task(timeout=0.05)
    def slow(ctx: Ctx) -> str:
        while not ctx.cancelled:
            release.wait(0.001)
        asked.set()
        release.wait(30)
        return "brought"

    @app.task()
    def quick() -> None: ...

    async with working(app, redis_url, concurrency=1):
        first, second = await desk.submit("slow"), await desk.submit("quick")
        await asyncio.to_thread(asked.wait)
        await asyncio.sleep(0.2)
        assert (await desk.look(first)).state is State.PROCESSING
        assert (await desk.look(second)).state is State.PENDING
        release.set()
        seen = await desk.ended(first)
        assert seen.state is State.COMPLETED and bytes(seen.result or b"") == b'"brought"'
        assert (await desk.ended(second)).state is State.COMPLETED


class Picky(msgspec.Struct):
    """A payload type with a check of its own that fails in a way msgspec does not expect."""

    name: str

    def __post_init__(self) -> None:
        raise RAISED[self.name]()


@pytest.mark.parametrize("name", ["no text", "SystemExit", "what is no Exception"])
async def test_a_payload_check_that_breaks_is_a_dead_letter(desk: Desk, redis_url: str, name: str) -> None:
    """It costs the task, not the connection with everything that goes over it."""
    app = App("t")

    @app.task()
    async def takes(what: Picky) -> None: ...

    async with working(app, redis_url) as worker:
        seen = await desk.ended(await desk.submit("takes", {"what": {"name": name}}))
        assert worker.stats.redis_errors == 0
    error = seen.attempts[-1].error
    assert seen.state is State.FAILED and error is not None and error.reason == "invalid_payload"


@pytest.mark.parametrize("entry", ["5-1", "9999999999999999-7"])
async def test_an_entry_with_a_foreign_id_runs(desk: Desk, redis_url: str, entry: str) -> None:
    """A place need not begin with thirteen digits of time."""
    app = App("t")

    @app.task()
    async def fine() -> None: ...

    await desk.client.call(desk.queue.init())
    task_id = new_id()
    envelope = encode_envelope(Envelope(1, 1, task_id, type="fine", created_ms=1))
    await desk.client.command("XADD", desk.queue.keys["1"], entry, "d", envelope)
    await desk.client.command("HSET", desk.queue.keys["loc"], task_id, f"1{entry}")
    async with working(app, redis_url) as worker:
        assert (await desk.ended(task_id)).state is State.COMPLETED
        assert worker.stats.redis_errors == 0


async def test_two_queues_may_give_out_the_same_entry_id(redis_url: str) -> None:
    """Redis counts entries by the millisecond in each stream: a place says which task it is in one queue only."""
    app, both, release = App("t"), ["a", "b"], asyncio.Event()
    began: set[str] = set()

    @app.task()
    async def hold(ctx: Ctx) -> None:
        began.add(ctx.queue)
        await release.wait()

    async def all_began() -> bool:
        return began == set(both)

    desks = {queue: Desk(redis_url, queue) for queue in both}
    ids = {queue: new_id(queue) for queue in both}
    for queue, desk in desks.items():
        await desk.client.call(desk.queue.init())
        envelope = encode_envelope(Envelope(1, 1, ids[queue], type="hold", created_ms=1))
        await desk.client.command("XADD", desk.queue.keys["1"], "5-1", "d", envelope)
        await desk.client.command("HSET", desk.queue.keys["loc"], ids[queue], "15-1")
    async with working(app, redis_url, queues=shares(*both)):
        await eventually(all_began)
        release.set()
        for queue, desk in desks.items():
            assert (await desk.ended(ids[queue])).state is State.COMPLETED
            await desk.close()


async def test_a_given_up_handler_takes_its_slot_along_at_once(desk: Desk, redis_url: str) -> None:
    """The call that reports it must not claim for the slot that it still holds."""
    app = App("t")
    release, go = deaf(app), asyncio.Event()

    @app.task()
    async def hold() -> None:
        await go.wait()

    async with working(app, redis_url, concurrency=2, hard_extra_s=0.05, max_leaks=2):
        given_up = await desk.submit("deaf")
        held = [await desk.submit("hold") for _ in range(3)]
        assert (await desk.ended(given_up)).state is State.FAILED
        states = [(await desk.look(task)).state for task in held]
        assert sorted(states) == [State.PENDING, State.PENDING, State.PROCESSING]
        release.set()
        go.set()
        for task in held:
            await desk.ended(task)


async def test_a_worker_whose_every_slot_is_leaked_stops(desk: Desk, redis_url: str) -> None:
    """Also if that is fewer than max_leaks: it would claim nothing for ever."""
    app = App("t")
    release = deaf(app)

    async with working(app, redis_url, concurrency=1, hard_extra_s=0.05, max_leaks=3) as worker:
        await desk.ended(await desk.submit("deaf"))

        async def stopped() -> bool:
            return worker.failed

        await eventually(stopped)
    release.set()


async def test_a_handler_that_never_lets_itself_be_cancelled_does_not_keep_the_worker(
    desk: Desk, redis_url: str
) -> None:
    """The drain hands its task back and ends, although the coroutine goes on."""
    app = App("t")
    begun, end = asyncio.Event(), asyncio.Event()

    @app.task()
    async def stubborn() -> None:
        begun.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    async with working(app, redis_url, grace_s=0.05):
        task = await desk.submit("stubborn")
        await begun.wait()
    assert (await desk.look(task)).state is State.PENDING
    end.set()
