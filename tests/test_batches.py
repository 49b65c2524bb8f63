"""Batches: many submissions in one round trip, and the wait for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from conftest import StartRedis
from headrace import (
    App,
    Batch,
    Handle,
    HeadraceError,
    InvalidResult,
    InvalidTask,
    QueueFull,
    ResultTimeout,
    State,
    TaskCall,
    TaskCancelled,
    TaskConflict,
    TaskFailed,
    UnknownTask,
    WrongCaller,
)
from headrace.batches import MAX_CALL_BYTES, Plan, parts
from headrace.broker.broker import MAX_SUBMIT, Queue
from headrace.task import new_id
from redis_server import RedisServer
from worker_harness import shares, working


def make_app(url: str = "redis://127.0.0.1:1") -> App[None]:
    app = App("batches", url=url)

    @app.task(max_retries=0)
    async def double(number: int) -> int:
        if number == 13:
            raise ValueError("not this one")
        return 2 * number if number != 7 else float("nan")  # type: ignore[return-value]

    @app.task(queue="words")
    async def shout(word: str) -> str:
        return word.upper()

    return app


def call(app: App[Any], name: str, **options: Any) -> Any:
    """(arguments) → the call of this type, with options."""
    from headrace import Task

    task: Task[..., Any] = Task(app, app.registry[name])
    return task.using(**options).call


@pytest.fixture
async def app(redis_url: str) -> AsyncIterator[App[None]]:
    app = make_app(redis_url)
    yield app
    await app.aclose()


@pytest.fixture
def sync_app(redis_url: str) -> Iterator[App[None]]:
    app = make_app(redis_url)
    yield app
    app.close()


def scripts_run(server: RedisServer) -> int:
    stats = server.redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


# -- submitting


async def test_a_batch_is_one_round_trip_a_queue_and_keeps_its_order(app: App[None], redis_server: RedisServer) -> None:
    double, shout = call(app, "double"), call(app, "shout")
    await app.abatch([double(0), shout("a")])  # the queues are known from here on
    before = scripts_run(redis_server)
    batch = await app.abatch([double(1), shout("b"), double(2), shout("c"), double(3)])
    assert scripts_run(redis_server) - before == 2
    assert len(batch) == 5 and batch[1].id.startswith("words.") and batch[-1].id == batch.handles[4].id
    assert [isinstance(handle, Handle) for handle in batch] == [True] * 5
    assert batch[1:3] == batch.handles[1:3]
    async with working(app, redis_server.url, queues=shares("default", "words")):
        assert await batch.aresults(timeout=10) == [2, "B", 4, "C", 6]


async def test_more_than_a_call_takes_goes_in_several(app: App[None], redis_server: RedisServer) -> None:
    double = call(app, "double")
    await app.abatch([double(0)])
    before = scripts_run(redis_server)
    batch = await app.abatch(double(number) for number in range(100, 100 + 2 * MAX_SUBMIT + 1))
    assert scripts_run(redis_server) - before == 3
    assert len({handle.id for handle in batch}) == 2 * MAX_SUBMIT + 1


def test_a_call_takes_the_most_urgent_first_and_no_more_than_its_bytes() -> None:
    app = make_app()
    urgent = call(app, "shout", priority="high")
    large = "x" * 60_000
    plan = Plan.of(app, [call(app, "shout")(large) for _ in range(80)] + [urgent("now")])
    calls = list(parts(plan.submissions))
    assert sorted(index for part in calls for index in part) == list(range(81))
    assert calls[0][0] == 80
    sizes = [sum(len(plan.submissions[index].new.envelope) for index in part) for part in calls]
    assert len(sizes) == 2 and max(sizes) <= MAX_CALL_BYTES


def test_an_envelope_larger_than_a_call_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.batches.MAX_CALL_BYTES", 10)
    app = make_app()
    plan = Plan.of(app, [call(app, "double")(number) for number in range(3)])
    assert list(parts(plan.submissions)) == [[0], [1], [2]]


async def test_nothing_is_sent_when_one_call_is_wrong(app: App[None], redis_server: RedisServer) -> None:
    calls = [call(app, "double")(1), call(app, "double", delay=-1)(2)]
    with pytest.raises(InvalidTask, match="/delay"):
        await app.abatch(calls)
    assert redis_server.redis.dbsize() == 0


async def test_a_call_of_another_app_is_refused(app: App[None]) -> None:
    with pytest.raises(InvalidTask, match=r"is not of App\('batches'\)"):
        await app.abatch([call(make_app(), "double")(1)])


async def test_what_is_no_call_is_told(app: App[None]) -> None:
    with pytest.raises(TypeError, match=r"as task\.call\(…\) makes them, not 'double'"):
        await app.abatch(["double"])  # type: ignore[arg-type]


async def test_an_empty_batch_sends_nothing(redis_url: str) -> None:
    app = make_app()  # its Redis cannot be reached
    batch: Batch[int] = await app.abatch([])
    assert list(batch) == [] and await batch.aresults() == []


async def test_options_count_for_each_call(app: App[None]) -> None:
    same = call(app, "double", key="k")
    batch = await app.abatch([same(1), same(1), call(app, "double", unique="u")(2), call(app, "double", unique="u")(3)])
    assert batch[0].id == batch[1].id
    assert batch[2].id == batch[3].id
    later = await app.abatch([call(app, "double", delay=60)(1)])
    assert await later[0].astate() is State.SCHEDULED
    with pytest.raises(TaskConflict):
        await app.abatch([same(2)])


async def test_a_full_queue_takes_none_of_a_call_and_the_error_says_what_went_before(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", str(MAX_SUBMIT + 5))
    async with make_app(redis_url) as app:
        double = call(app, "double")
        with pytest.raises(QueueFull) as refused:
            await app.abatch(double(number) for number in range(MAX_SUBMIT + 6))
        assert refused.value.__notes__ == ["1,000 of the batch's 1,006 tasks were stored before that."]
        depth = await app.connections._here().client.call(Queue("default").depth())
        assert depth.live == MAX_SUBMIT
        with pytest.raises(QueueFull) as refused:
            await app.abatch(double(number) for number in range(6))
        assert not hasattr(refused.value, "__notes__")


async def test_a_batch_outlives_a_restart_of_redis(start_redis: StartRedis) -> None:
    server = start_redis(appendfsync="always")
    async with make_app(server.url) as app:
        await app.abatch([call(app, "double")(0)])
        await asyncio.to_thread(server.kill)
        sending = asyncio.create_task(app.abatch(call(app, "double")(number) for number in range(20)))
        await asyncio.to_thread(server.start)
        assert len({handle.id for handle in await sending}) == 20
        assert (await app.connections._here().client.call(Queue("default").depth())).live == 21


# -- waiting


async def test_results_are_told_by_the_journal_without_a_poll_a_task(
    app: App[None], redis_url: str, redis_server: RedisServer
) -> None:
    batch = await app.abatch(call(app, "double")(number) for number in range(100, 300))
    waiting = asyncio.create_task(batch.aresults(timeout=20))
    while app.connections._here().watches == {}:  # noqa: ASYNC110 - until it waits
        await asyncio.sleep(0)
    redis_server.redis.script_flush()
    redis_server.redis.config_resetstat()
    async with working(app, redis_url, concurrency=5):
        assert await waiting == [2 * number for number in range(100, 300)]
    # Two looks at all of them before, then at most one a report, of which there is at most one a task.
    assert scripts_run(redis_server) < 2 + 2 * 200 + 50


async def test_many_are_looked_at_in_slices(app: App[None], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.waiting.MAX_ITEMS", 3)
    batch = await app.abatch(call(app, "double")(number) for number in range(100, 110))
    async with working(app, redis_url):
        assert await batch.aresults(timeout=10) == [2 * number for number in range(100, 110)]


async def test_a_look_at_many_sees_what_a_look_at_each_sees(app: App[None], redis_url: str) -> None:
    double, client = call(app, "double"), app.connections._here
    queue = Queue("default")
    ended = await app.abatch([double(1), double(13)])
    async with working(app, redis_url):
        await ended.aoutcomes(timeout=10)
    waiting = await app.abatch([double(2), call(app, "double", delay=60)(3), double(4)])
    await client().client.call(queue.cycle("w", 1))
    ids = [*(handle.id for handle in (*ended, *waiting)), new_id()]
    found = await client().client.call(queue.find(ids))
    assert [each and each.place[0] for each in found] == ["t", "t", "1", "z", "1", None]
    for task_id, seen in zip(ids, found, strict=True):
        alone = await client().client.call(queue.get(task_id))
        assert seen == alone or (seen and alone and replace(seen, claimed_ms=alone.claimed_ms) == alone)


async def test_what_did_not_complete_is_told_in_its_place(app: App[None], redis_url: str) -> None:
    double = call(app, "double")
    batch: Batch[int] = await app.abatch(
        [double(1), double(13), double(2), call(app, "double", delay=600)(3), double(13)]
    )
    cancel = Queue("default").cancel(batch[3].id)
    await app.connections._here().client.call(cancel)
    async with working(app, redis_url):
        first, failed, second, cancelled, also = await batch.aoutcomes(timeout=10)
        assert (first, second) == (2, 4)
        assert isinstance(failed, TaskFailed) and isinstance(also, TaskFailed)
        assert isinstance(cancelled, TaskCancelled)
        with pytest.raises(TaskFailed, match="not this one") as raised:
            await batch.aresults(timeout=10)
    assert raised.value.__notes__ == ["3 of 5 tasks of the batch gave no result; outcomes() tells of each."]


async def test_a_result_of_another_type_costs_only_itself(app: App[None], redis_url: str) -> None:
    """JSON has no NaN; and a handler's return type may be another one than when the task ran."""
    batch: Batch[int] = await app.abatch([call(app, "double")(1), call(app, "double")(7)])
    async with working(app, redis_url):
        done, wrong = await batch.aoutcomes(timeout=10)
    assert done == 2
    assert isinstance(wrong, InvalidResult) and wrong.task_id == batch[1].id
    assert str(wrong) == (
        f"Task {batch[1].id} completed, but its result does not fit its return type: Expected `int`, got `null`."
    )


async def test_time_runs_out_for_those_that_go_on(app: App[None], redis_url: str) -> None:
    batch: Batch[int] = await app.abatch([call(app, "double")(1), call(app, "double", delay=600)(2)])
    async with working(app, redis_url):
        assert await batch[0].aget(timeout=10) == 2
        done, late = await batch.aoutcomes(timeout=0.02)
    assert done == 2
    assert isinstance(late, ResultTimeout) and (late.seconds, late.state) == (0.02, "scheduled")


async def test_a_task_that_nobody_knows_is_told_in_its_place(app: App[None]) -> None:
    unknown: Handle[int] = Handle(new_id(), app.connections, lambda text: text)
    [outcome] = await Batch([unknown], app.connections).aoutcomes(timeout=10)
    assert isinstance(outcome, UnknownTask)


async def test_synchronous_callers_use_the_same_words(sync_app: App[None], redis_url: str) -> None:
    def program() -> list[int | HeadraceError]:
        batch: Batch[int] = sync_app.batch(call(sync_app, "double")(number) for number in (1, 2))
        assert batch.results(timeout=10) == [2, 4]
        return batch.outcomes()

    async with working(sync_app, redis_url):
        assert await asyncio.to_thread(program) == [2, 4]
        with pytest.raises(WrongCaller, match=r"await app\.abatch"):
            sync_app.batch([])
        batch: Batch[int] = await sync_app.abatch([])
        for method in (batch.results, batch.outcomes):
            with pytest.raises(
                WrongCaller, match=rf"Batch\.{method.__name__}\(\).*await batch\.a{method.__name__}\(\)"
            ):
                method()
    await sync_app.aclose()


def test_types_of_a_batch() -> None:
    """What checkers say stands in test_typing.py; at run time a call is what `call` made."""
    assert isinstance(call(make_app(), "double")(1), TaskCall)
