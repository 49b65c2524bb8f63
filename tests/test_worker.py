"""A worker on a real Redis: what becomes of tasks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from headrace import App, Ctx, Permanent, Retry, RetryAfter
from headrace.task import State, new_id
from worker_harness import Desk, deaf, endless, eventually, shares, working


async def test_async_and_sync_handlers_complete_with_their_results(desk: Desk, redis_url: str) -> None:
    """A coroutine and a function in a thread both run once, and their results are kept."""
    app = App("t")

    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    @app.task()
    def name_of_thread() -> str:
        return threading.current_thread().name

    first = await desk.submit("double", {"n": 21})
    second = await desk.submit("name_of_thread")
    async with working(app, redis_url) as worker:
        seen = await desk.ended(first)
        other = await desk.ended(second)
    assert seen.state is State.COMPLETED and bytes(seen.result or b"") == b"42"
    assert seen.worker == worker.name and seen.counters.attempts == 1
    assert seen.started_ms is not None and seen.ended_ms is not None and seen.started_ms <= seen.ended_ms
    assert threading.current_thread().name not in bytes(other.result or b"").decode()


async def test_a_failure_is_retried_until_it_works(desk: Desk, redis_url: str) -> None:
    """Each failure is counted and kept with its error; the attempt that works completes the task."""
    app = App("t")
    attempts: list[int] = []

    @app.task()
    async def flaky(ctx: Ctx) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError(f"not yet {ctx.attempt}")
        return "at last"

    async with working(app, redis_url):
        seen = await desk.ended(await desk.submit("flaky"))
    assert attempts == [1, 2, 3]
    assert seen.state is State.COMPLETED and seen.counters.failures == 2
    assert [past.error.message for past in seen.attempts if past.error] == ["not yet 1", "not yet 2"]


@pytest.mark.parametrize(("given", "runs"), [(None, 3), (0, 1), (1, 2)])
async def test_retries_end_in_the_dead_letter(desk: Desk, redis_url: str, given: int | None, runs: int) -> None:
    """The submission's max_retries wins over the type's; afterwards the task is dead, with its last error."""
    app = App("t")

    @app.task(max_retries=2)
    async def broken() -> None:
        raise LookupError("never")

    async with working(app, redis_url):
        seen = await desk.ended(await desk.submit("broken", max_retries=given))
    assert seen.state is State.FAILED and seen.counters.failures == runs
    last = seen.attempts[-1].error
    assert last is not None and last.type == "LookupError" and "never" in last.trace


async def test_permanent_and_unlisted_errors_are_not_retried(desk: Desk, redis_url: str) -> None:
    """Permanent, and an exception that the type's Retry does not name, go to the dead letter at once."""
    app = App("t")

    @app.task()
    async def hopeless() -> None:
        raise Permanent("no such customer")

    @app.task(retry=Retry(5, on=(OSError,)))
    async def surprised() -> None:
        raise KeyError("x")

    async with working(app, redis_url):
        for name in ("hopeless", "surprised"):
            seen = await desk.ended(await desk.submit(name))
            assert seen.state is State.FAILED and seen.counters.failures == 1


async def test_retry_after_sets_the_delay(desk: Desk, redis_url: str) -> None:
    """RetryAfter(60) makes the task due in a minute, not by the backoff."""
    app = App("t")

    @app.task()
    async def throttled() -> None:
        raise RetryAfter(60, "slow down")

    async with working(app, redis_url):
        task = await desk.submit("throttled")
        seen = await desk.until(task, lambda view: view.state is State.RETRYING)
    assert seen.due_ms is not None and 55_000 < seen.due_ms - time.time() * 1000 < 61_000


async def test_a_wrong_payload_is_dead_without_a_retry(desk: Desk, redis_url: str) -> None:
    """What only the worker can refuse is failed as invalid_payload, naming the field."""
    app = App("t")

    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    async with working(app, redis_url):
        seen = await desk.ended(await desk.submit("double", {"n": "x"}))
    error = seen.attempts[-1].error
    assert seen.state is State.FAILED and error is not None
    assert error.reason == "invalid_payload" and "/n" in error.message


async def test_an_unknown_type_waits_for_a_worker_that_knows_it(desk: Desk, redis_url: str) -> None:
    """It is parked, free of charge, and runs as soon as a worker with its handler starts."""
    old, new = App("old"), App("new")

    @new.task()
    async def novel() -> str:
        return "done"

    async with working(old, redis_url):
        task = await desk.submit("novel")
        parked = await desk.until(task, lambda view: view.state is State.PARKED)
    assert parked.counters.failures == 0 and parked.counters.interruptions == 1
    async with working(new, redis_url):
        assert (await desk.ended(task)).state is State.COMPLETED


async def test_a_newer_envelope_waits_for_a_newer_worker(desk: Desk, redis_url: str) -> None:
    """An envelope of a later version is parked, not failed."""
    app = App("t")

    @app.task()
    async def known() -> None: ...

    async with working(app, redis_url):
        task = await desk.submit("known", version=2)
        seen = await desk.until(task, lambda view: view.state is State.PARKED)
        error = seen.attempts[-1].error
        assert error is not None and error.reason == "newer_version"


async def test_hostile_entries_end_in_the_dead_letter(desk: Desk, redis_url: str) -> None:
    """Whatever is written straight into a stream is reported dead; the worker goes on with real work."""
    app = App("t")

    @app.task()
    async def fine() -> str:
        return "ok"

    await desk.client.call(desk.queue.init())
    hostile: list[tuple[bytes | str, ...]] = [
        ("x", "y"),
        ("d", b"\xff\xfe\x00"),
        ("d", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
        ("d", '{"v":1,"p":1,"i":"../../etc","t":"os.system","c":1,"a":{}}'),
        ("d", '{"v":"x","p":9}'),
        ("d", "[" * 5000),
        ("d", '{"v":1,"p":1,"i":"00000000-0000-4000-8000-000000000000","t":5,"a":{}}', "n", "not,numbers"),
    ]
    for fields in hostile:
        await desk.client.command("XADD", desk.queue.keys["3"], "*", *fields)
    async with working(app, redis_url):
        assert (await desk.ended(await desk.submit("fine"))).state is State.COMPLETED

        async def all_dead() -> bool:
            return (await desk.client.call(desk.queue.depth())).dead == len(hostile)

        await eventually(all_dead)
    ids = await desk.client.command("ZRANGE", desk.queue.keys["dead"], 0, -1)
    for task_id in ids:
        assert (await desk.look(task_id.decode())).state is State.FAILED


async def test_strict_priority_with_one_slot(desk: Desk, redis_url: str) -> None:
    """What waits runs by priority, and in order within one."""
    app = App("t")
    order: list[str] = []

    @app.task()
    async def note(name: str) -> None:
        order.append(name)

    last = ""
    for priority in (0, 1, 2, 3):
        for n in range(3):
            last = await desk.submit("note", {"name": f"{priority}{n}"}, priority)
    first_of_all = "00"
    async with working(app, redis_url, concurrency=1):
        await desk.ended(last)

        async def all_ran() -> bool:
            return len(order) == 12

        await eventually(all_ran)
    assert order == [f"{p}{n}" for p in (3, 2, 1, 0) for n in range(3)] and first_of_all in order


async def test_a_delayed_task_runs_when_due_without_polling(desk: Desk, redis_url: str) -> None:
    """The marker tells an idle worker of a new earliest due time; its beat is far too slow to do so."""
    app = App("t")
    started: list[float] = []

    @app.task()
    async def late() -> None:
        started.append(time.time())

    async with working(app, redis_url, beat_s=30, dead_after_s=100):
        await desk.ended(await desk.submit("late"))
        submitted = time.time()
        await desk.ended(await desk.submit("late", delay_ms=300))
    assert 0.299 <= started[1] - submitted < 10


async def test_cancel_waiting_running_and_in_a_thread(
    desk: Desk, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A waiting task ends at once; a coroutine gets CancelledError; a thread sees ctx.cancelled."""
    app = App("t")
    begun = asyncio.Event()
    in_thread = threading.Event()

    @app.task()
    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    @app.task()
    def loops(ctx: Ctx) -> None:
        in_thread.set()
        while not ctx.cancelled:
            time.sleep(0.001)
        raise RuntimeError("stopped")

    waiting = await desk.submit("forever")
    assert await desk.client.call(desk.queue.cancel(waiting)) == "cancelled"
    async with working(app, redis_url):
        running = await desk.submit("forever")
        await begun.wait()
        assert await desk.client.call(desk.queue.cancel(running)) == "asked"
        assert (await desk.ended(running)).state is State.CANCELLED
        threaded = await desk.submit("loops")
        await asyncio.to_thread(in_thread.wait)
        assert await desk.client.call(desk.queue.cancel(threaded)) == "asked"
        assert (await desk.ended(threaded)).state is State.CANCELLED
    told = [text for text in caplog.messages if text.startswith("forever cancelled after")]
    assert len(told) == 1
    assert told[0].endswith("s: Cancelled"), "no colon without words after it"


async def test_a_soft_timeout_cancels_and_counts_as_a_failure(desk: Desk, redis_url: str) -> None:
    """The record says timeout, and how long the type allows."""
    app = App("t")

    @app.task(timeout=0.05, max_retries=0)
    async def slow() -> None:
        await asyncio.sleep(60)

    async with working(app, redis_url):
        seen = await desk.ended(await desk.submit("slow"))
    error = seen.attempts[-1].error
    assert seen.state is State.FAILED and error is not None
    assert error.reason == "timeout" and "0.05 s" in error.message


async def test_threads_that_never_end_are_given_up_and_end_the_worker(desk: Desk, redis_url: str) -> None:
    """At the hard timeout the attempt is reported; after max_leaks of them the worker hands back and exits with 1."""
    app = App("t")
    release = deaf(app)

    async with working(app, redis_url, hard_extra_s=0.1, max_leaks=2, grace_s=0.1) as worker:
        tasks = [await desk.submit("deaf") for _ in range(2)]
        for task in tasks:
            assert (await desk.ended(task)).state is State.FAILED

        async def stopped() -> bool:
            return worker.failed

        await eventually(stopped)
    release.set()


async def test_a_graceful_stop_lets_running_tasks_end(desk: Desk, redis_url: str) -> None:
    """What ends within the grace completes at its first attempt; nothing new is claimed."""
    app = App("t")
    begun, go = asyncio.Event(), asyncio.Event()

    @app.task()
    async def held() -> str:
        begun.set()
        await go.wait()
        return "ended"

    async with working(app, redis_url, concurrency=1) as worker:
        first = await desk.submit("held")
        await begun.wait()
        second = await desk.submit("held")
        worker.stop()
        await asyncio.sleep(0)
        go.set()
        seen = await desk.ended(first)
    assert seen.state is State.COMPLETED and seen.counters.attempts == 1
    assert (await desk.look(second)).state is State.PENDING
    assert (await desk.client.call(desk.queue.workers())) == []


async def test_what_outlasts_the_grace_is_handed_back_free_of_charge(desk: Desk, redis_url: str) -> None:
    """It is pending again, with an interruption and without a failure or crash."""
    app = App("t")
    begun = endless(app)

    async with working(app, redis_url, grace_s=0.05) as worker:
        task = await desk.submit("endless")
        await begun.wait()
        worker.stop()
    seen = await desk.look(task)
    assert seen.state is State.PENDING
    assert (seen.counters.failures, seen.counters.crashes, seen.counters.interruptions) == (0, 0, 1)


async def test_several_queues_share_the_slots(redis_url: str) -> None:
    """All queues of a worker are served, and an empty one costs the other nothing."""
    app = App("t")

    @app.task()
    async def note() -> None: ...

    desks = [Desk(redis_url, name) for name in ("orders", "mails")]
    async with working(app, redis_url, queues=shares("orders", mails=3), concurrency=4):
        for desk in desks:
            tasks = [await desk.submit("note") for _ in range(20)]
            for task in tasks:
                assert (await desk.ended(task)).state is State.COMPLETED
    for desk in desks:
        await desk.close()


async def test_pause_and_resume(desk: Desk, redis_url: str) -> None:
    """While a queue is paused nothing is claimed; resuming wakes an idle worker."""
    app = App("t")

    @app.task()
    async def note() -> None: ...

    async with working(app, redis_url, beat_s=30, dead_after_s=100):
        await desk.ended(await desk.submit("note"))
        await desk.client.call(desk.queue.pause(True))
        task = await desk.submit("note")
        await asyncio.sleep(0.2)
        assert (await desk.look(task)).state is State.PENDING
        await desk.client.call(desk.queue.pause(False))
        assert (await desk.ended(task)).state is State.COMPLETED


@dataclass
class Deps:
    """What the handlers of the next test share."""

    greeting: str


async def test_deps_and_middleware(desk: Desk, redis_url: str) -> None:
    """The lifespan's value reaches the handler; middleware wraps every attempt, also a thread's."""
    from contextlib import asynccontextmanager

    seen: list[str] = []

    async def deps() -> AsyncIterator[Deps]:
        seen.append("open")
        yield Deps("hello")
        seen.append("close")

    @asynccontextmanager
    async def around(ctx: Ctx) -> AsyncIterator[None]:
        seen.append(f"before {ctx.type}")
        yield
        seen.append(f"after {ctx.type}")

    app = App("t", deps=deps, middleware=(around,))

    @app.task()
    async def greet(ctx: Ctx[Deps]) -> str:
        return ctx.deps.greeting

    @app.task()
    def threaded() -> int:
        return 7

    async with working(app, redis_url):
        assert bytes((await desk.ended(await desk.submit("greet"))).result or b"") == b'"hello"'
        assert bytes((await desk.ended(await desk.submit("threaded"))).result or b"") == b"7"
    assert seen == ["open", "before greet", "after greet", "before threaded", "after threaded", "close"]


async def test_process_handlers_run_elsewhere_and_can_be_killed(desk: Desk, redis_url: str) -> None:
    """Another process runs them; at the hard timeout it is killed; its death and its errors are on the record."""
    import process_app

    async with working(process_app.app, redis_url, app="process_app:app", hard_extra_s=0.1, processes=2):
        seen = await desk.ended(await desk.submit("pid_of"))
        pid, attempt = msgspec.json.decode(bytes(seen.result or b""))
        assert pid != os.getpid() and attempt == 1
        for name, word in (("spin", "killed"), ("kill_me", "SIGKILL"), ("broken", "in the child")):
            ended = await desk.ended(await desk.submit(name))
            error = ended.attempts[-1].error
            assert ended.state is State.FAILED and error is not None and word in error.message, (name, error)
        running = await desk.submit("spin")
        await desk.until(running, lambda view: view.state is State.PROCESSING)
        await desk.client.call(desk.queue.cancel(running))
        assert (await desk.ended(running)).state is State.CANCELLED


async def test_a_raw_result_with_line_breaks_keeps_the_record_whole(desk: Desk, redis_url: str) -> None:
    """Attempts are lines; ready-made JSON in a result must not add any."""
    app = App("t")

    @app.task()
    async def ready() -> msgspec.Raw:
        return msgspec.Raw(b'{\n"a":\n[1,\n2]}')

    async with working(app, redis_url):
        seen = await desk.ended(await desk.submit("ready"))
    assert len(seen.attempts) == 1 and msgspec.json.decode(bytes(seen.result or b"")) == {"a": [1, 2]}


async def test_only_the_last_attempt_keeps_its_traceback(desk: Desk, redis_url: str) -> None:
    """It begins in the application, and a dead letter holds one, not eight."""
    app = App("t")

    @app.task(max_retries=2)
    async def broken() -> None:
        raise LookupError("never")

    async with working(app, redis_url):
        seen = await desk.ended(await desk.submit("broken"))
    traces = [past.error.trace for past in seen.attempts if past.error]
    assert traces[:2] == ["", ""] and "in broken" in traces[2] and "executor.py" not in traces[2]


def test_ids_of_a_forked_process_differ() -> None:
    """Ids are drawn in advance; a fork must not inherit them."""
    new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "\n".join(new_id() for _ in range(200)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        theirs = set(pipe.read().split())
    os.waitpid(child, 0)
    ours = {new_id() for _ in range(200)}
    assert len(theirs) == 200 and not theirs & ours


async def test_what_never_starts_is_logged_with_its_task(
    desk: Desk, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A parked task's line carries its id, type and attempt, and says what it waits for."""
    async with working(App("t"), redis_url):
        task = await desk.submit("nobody_knows")
        await desk.until(task, lambda view: view.state is State.PARKED)
    [line] = [each for each in caplog.records if "parked" in each.message]
    ctx = vars(line)["ctx"]
    assert (ctx.id, ctx.type, ctx.attempt) == (task, "nobody_knows", 1) and "waits for one that does" in line.message
