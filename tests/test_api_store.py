"""Redis away, full, slow, emptied, or losing answers: submissions hear of it within a second and lose nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api_kit import EMAIL, Answer, Api, running
from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace.broker import group_commit
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.broker.replies import NewTask
from headrace.errors import DurabilityUnconfirmed, StoreTimeout, StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace.task import Envelope, encode_envelope, new_id
from headrace_api.ingest import Door
from headrace_api.store import Store
from redis_server import RedisServer

SOON = 1.5
"""Seconds: one, and what busy cores may add."""


def new(priority: int = 1, task_id: str | None = None) -> NewTask:
    task_id = task_id or new_id("default")
    return NewTask(task_id, encode_envelope(Envelope(1, priority, task_id, type="t")), priority)


@asynccontextmanager
async def door(redis_url: str, **changes: Any) -> AsyncIterator[Door]:
    settings = ApiSettings.from_env({}, **changes)
    store = Store(RedisSettings.parse(redis_url, "the test"), settings.durability_timeout_s)
    made = Door(store, Queue("default"), settings)
    try:
        yield made
    finally:
        await made.aclose()
        await store.aclose()


async def timed(api: Api, count: int = 1, **headers: str) -> tuple[float, list[Answer]]:
    """The longest of several submissions at once, in seconds, and their answers."""

    async def one() -> tuple[float, Answer]:
        began = time.monotonic()
        answer = await api.submit(EMAIL, **headers)
        return time.monotonic() - began, answer

    rows = await asyncio.gather(*(one() for _ in range(count)))
    return max(seconds for seconds, _ in rows), [answer for _, answer in rows]


def refused(answers: Sequence[Answer], *codes: str) -> None:
    for answer in answers:
        assert (answer.status, answer.code in codes) == (503, True), answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert "Idempotency-Key" in answer.json["hint"]


# -- group commit


async def test_who_comes_while_calls_are_out_goes_in_the_next_one(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 at once take 3 calls, not 200; each gets the answer for its own task."""
    monkeypatch.setattr("headrace_api.store.DEADLINE_S", 30.0)  # for a machine that is busy
    async with door(redis_url) as way:
        await way.submit([new()])
        commands = Commands(way)
        tasks = [new(i % 4) for i in range(200)]
        answers = await asyncio.gather(*(way.submit([task]) for task in tasks))
        sizes = commands.sizes
    assert [answer.id for [answer] in answers] == [task.id for task in tasks]
    assert {answer.status for [answer] in answers} == {"new"}
    assert sizes == [1, 100, 99], "nobody waits for company"


class Commands:
    """Notes how many tasks each submit call of a door carries."""

    def __init__(self, way: Door) -> None:
        self.sizes: list[int] = []
        submit = way.queue.submit

        def noted(batch: Sequence[NewTask], *args: Any, **named: Any) -> Any:
            self.sizes.append(len(batch))
            return submit(batch, *args, **named)

        way.queue = Queue(way.queue.name)
        way.queue.submit = noted  # type: ignore[method-assign]


async def test_at_most_two_calls_are_out(redis_url: str) -> None:
    """Later ones gather behind them: the busier the door, the larger the groups."""
    async with door(redis_url) as way:
        await way.submit([new()])
        commands, out, most = Commands(way), 0, 0
        write = way._store.write

        async def watched(*args: Any) -> Any:
            nonlocal out, most
            out += 1
            most = max(most, out)
            try:
                return await write(*args)
            finally:
                out -= 1

        way._store.write = watched  # type: ignore[method-assign,assignment]
        waiting = []
        for _ in range(30):
            waiting.append(asyncio.create_task(way.submit([new()])))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
    assert most == 2
    assert sum(commands.sizes) == 30
    assert commands.sizes[:2] == [1, 1], "nobody waits for company"
    assert len(commands.sizes) < 30, "who came later went together"


async def test_the_queue_fills_to_its_last_place(redis_url: str) -> None:
    """A group that does not fit as a whole is stored as far as it fits: exactly the limit is accepted."""
    async with running(redis_url, max_depth=37) as api:
        answers = await asyncio.gather(*(api.submit() for _ in range(100)))
        stats = (await api.get("/api/v1/stats")).json
    accepted = [answer for answer in answers if answer.status == 201]
    full = [answer for answer in answers if answer.status == 429]
    assert (len(accepted), len(full), stats["pending"]) == (37, 63, 37)
    assert {answer.code for answer in full} == {"queue_full"}
    assert {answer.headers["Retry-After"] for answer in full} == {"1"}


async def test_a_repetition_is_answered_even_when_the_queue_is_full(redis_url: str) -> None:
    """Known ids take no room."""
    async with running(redis_url, max_depth=1) as api:
        first = await api.submit(EMAIL, Idempotency_Key="k")
        answers = await asyncio.gather(api.submit(EMAIL, Idempotency_Key="k"), api.submit(), api.submit())
    assert [answer.status for answer in answers] == [201, 429, 429]
    assert answers[0].json == first.json


async def test_a_client_that_leaves_disturbs_nobody(redis_url: str) -> None:
    """Its task may be stored; its neighbours in the group get their answers."""
    async with door(redis_url) as way:
        staying = [asyncio.create_task(way.submit([new()])) for _ in range(5)]
        leaving = asyncio.create_task(way.submit([new()]))
        await asyncio.sleep(0)
        leaving.cancel()
        answers = await asyncio.gather(*staying)
    assert {answer.status for [answer] in answers} == {"new"}


async def test_too_many_waiting_are_turned_away_at_once(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen Redis fills no memory: beyond 64 MiB (here 10 kB) a submission is refused without waiting."""
    monkeypatch.setattr(group_commit, "MAX_WAITING", 10_000)
    async with door(redis_url) as way:
        await way.submit([new()])
        redis_server.freeze()
        try:
            waiting = [asyncio.create_task(way.submit([new()])) for _ in range(500)]
            done, _ = await asyncio.wait(waiting, timeout=0.4, return_when=asyncio.FIRST_EXCEPTION)
            assert done, "somebody was refused while the others still wait"
            results = await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            redis_server.thaw()
    assert all(isinstance(result, StoreUnavailable) for result in results)


# -- away, frozen, full, emptied


async def test_redis_that_was_never_there(redis_url: str) -> None:
    """503 with Retry-After, on submissions, reads and stats, at once."""
    async with running(redis_url, door="redis://127.0.0.1:1/0") as api:
        seconds, answers = await timed(api, 20)
        read = await api.get("/api/v1/tasks/550e8400-e29b-41d4-a716-446655440000")
        stats = await api.get("/api/v1/stats")
        ready = await api.get("/readyz")
    refused([*answers, read, stats], "store_unavailable")
    assert ready.status == 503
    assert seconds < SOON


async def test_a_frozen_redis_is_503_within_a_second(redis_server: RedisServer, redis_url: str) -> None:
    """And when it thaws the next submission is accepted, without a restart."""
    async with running(redis_url) as api:
        await api.submitted()
        redis_server.freeze()
        try:
            seconds, answers = await timed(api, 50)
            again, more = await timed(api)
            began = time.monotonic()
            read = await api.get("/api/v1/tasks/550e8400-e29b-41d4-a716-446655440000")
            reading = time.monotonic() - began
        finally:
            redis_server.thaw()
        refused([*answers, *more, read], "store_timeout", "store_unavailable")
        assert max(seconds, again, reading) < SOON
        assert (await api.submit()).status == 201


async def test_the_deadline_is_the_one_that_holds_when_the_store_is_made(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests on a busy machine lengthen it."""
    monkeypatch.setattr("headrace_api.store.DEADLINE_S", 0.05)
    store = Store(RedisSettings.parse(redis_url, "the test"))
    redis_server.freeze()
    try:
        with pytest.raises(StoreTimeout, match=r"within 0\.05 s"):
            await store.command("PING")
    finally:
        redis_server.thaw()
        await store.aclose()


async def test_those_behind_the_calls_that_hang_wait_no_longer_than_they(
    redis_server: RedisServer, redis_url: str
) -> None:
    """Two groups are out, five more wait behind them: all hear of it within a second, not one group after the other."""
    async with door(redis_url) as way:
        await way.submit([new()])
        redis_server.freeze()
        try:
            began = time.monotonic()
            results = await asyncio.gather(*(way.submit([new()]) for _ in range(700)), return_exceptions=True)
            seconds = time.monotonic() - began
        finally:
            redis_server.thaw()
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert seconds < SOON
        assert [answer.status for answer in await way.submit([new()])] == ["new"]


async def test_a_killed_redis_comes_back_and_the_door_opens(redis_server: RedisServer, redis_url: str) -> None:
    """Away: 503 within a second. Back and empty: the queue is made known again, so that stats and workers see it."""
    async with running(redis_url) as api:
        await api.submitted()
        redis_server.kill()
        seconds, answers = await timed(api, 20)
        redis_server.start()
        accepted = await api.submit()
        stats = (await api.get("/api/v1/stats")).json
    refused(answers, "store_unavailable")
    assert seconds < SOON
    assert accepted.status == 201
    assert stats["queues"]["default"]["pending"] == 1


async def test_a_full_redis_refuses_and_work_drains(start_redis: StartRedis) -> None:
    """At maxmemory submissions are 503 store_full, reads and reports go on, and there is room again afterwards."""
    server = start_redis(maxmemory="8mb")
    async with running(server.url) as api:
        body = EMAIL | {"payload": {"x": "y" * 60_000}}
        answers = [await api.submit(body) for _ in range(150)]
        full = [answer for answer in answers if answer.status != 201]
        assert full, "it filled"
        refused(full, "store_full")
        assert full[0].json["detail"] == "The task store has no room now; nothing was stored."
        claims = await api.worker.claim(slots=50)
        for claim in claims:
            assert (await api.ask("DELETE", f"/api/v1/tasks/{claim.task.id}?force=true")).status == 200
        stats = (await api.get("/api/v1/stats")).json
    accepted = sum(answer.status == 201 for answer in answers)
    assert (stats["pending"], stats["cancelled"]) == (accepted - len(claims), len(claims))


async def test_redis_emptied_under_us_heals(redis_url: str) -> None:
    """FLUSHALL: the next submission is accepted, and depth is never taken for zero by mistake."""
    async with running(redis_url) as api:
        await api.submitted()
        await api.worker.client.command("FLUSHALL")
        task_id = await api.submitted()
        stats = (await api.get("/api/v1/stats")).json
        assert (await api.task(task_id))["status"] == "pending"
    assert set(stats) >= {"pending", "queues"}


# -- lost requests and lost answers


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_a_lost_call_is_sent_once_more_and_makes_one_task(
    redis_server: RedisServer, redis_url: str, lost: str
) -> None:
    """The client sees a 201 and nothing of it; the same ids went twice."""
    async with FaultProxy(redis_server.port) as proxy, running(redis_url, door=proxy.url) as api:
        await api.submitted()
        arm = proxy.lose_reply if lost == "reply" else proxy.lose_request
        arm(b'"lost"')
        seconds, _ = 0.0, None
        began = time.monotonic()
        answer = await api.submit(EMAIL | {"payload": {"lost": "lost"}}, Idempotency_Key="k")
        seconds = time.monotonic() - began
        stats = (await api.get("/api/v1/stats")).json
        assert (await api.submit(EMAIL | {"payload": {"lost": "lost"}}, Idempotency_Key="k")).json == answer.json
    assert answer.status == 201, answer.text
    assert proxy.faults == 1
    assert stats["pending"] == 2
    assert seconds < SOON


async def test_a_submission_whose_answer_never_came_is_safe_to_repeat(
    redis_server: RedisServer, redis_url: str
) -> None:
    """503 while nothing passes; with the same Idempotency-Key the repetition makes one task."""
    async with FaultProxy(redis_server.port) as proxy, running(redis_url, door=proxy.url) as api:
        await api.submitted()
        proxy.blackhole()
        seconds, answers = await timed(api, Idempotency_Key="k")
        proxy.heal()
        again = await api.submit(EMAIL, Idempotency_Key="k")
        once_more = await api.submit(EMAIL, Idempotency_Key="k")
        stats = (await api.get("/api/v1/stats")).json
    refused(answers, "store_timeout", "store_unavailable")
    assert seconds < SOON
    assert (again.status, once_more.headers["Idempotent-Replayed"]) == (201, "true")
    assert stats["pending"] == 2


@pytest.mark.parametrize("durability", ["local", "fsync"])
async def test_connections_that_swallow_all_are_given_up(start_redis: StartRedis, durability: str) -> None:
    """Each fails one request; the kernel would keep it for a quarter of an hour."""
    server = start_redis(appendfsync="always")
    async with FaultProxy(server.port) as proxy, running(server.url, door=proxy.url, durability=durability) as api:
        task_id, *_ = [await api.submitted() for _ in range(4)]
        proxy.forget()
        submitted = [(await api.submit()).status for _ in range(6)]
        shown = [(await api.get(f"/api/v1/tasks/{task_id}")).status for _ in range(2)]
    assert 503 in submitted
    assert (submitted[-1], shown[-1]) == (201, 200)


# -- durability


async def test_fsync_is_confirmed_and_local_is_not_held_up(start_redis: StartRedis) -> None:
    """Per queue: one waits for the disk, the other does not."""
    server = start_redis(appendfsync="always")
    async with running(server.url, durability="safe=fsync,default=local") as api:
        for queue in ("safe", "quick"):
            assert (await api.submit(EMAIL | {"queue": queue})).status == 201


async def test_an_unconfirmed_submission_is_503_with_its_ids_and_safe_to_repeat(start_redis: StartRedis) -> None:
    """A frozen replica: stored, but not confirmed. The answer says unknown, and the repetition is the same task."""
    master = start_redis()
    replica = start_redis(replica_of=master)
    await _linked(master)
    async with running(master.url, durability="replicated:1", durability_timeout_s=0.3) as api:
        await _accepted(api, "a")
        replica.freeze()
        try:
            _, [answer] = await timed(api, Idempotency_Key="b")
            _, [again] = await timed(api, Idempotency_Key="b")
        finally:
            replica.thaw()
        refused([answer, again], "durability_unconfirmed")
        assert answer.json["task_ids"] == again.json["task_ids"]
        task_id = await _accepted(api, "b")
        stats = (await api.get("/api/v1/stats")).json
    assert [task_id] == answer.json["task_ids"]
    assert stats["pending"] == 2


async def test_a_retry_that_was_not_confirmed_is_not_confirmed_by_repeating_it(start_redis: StartRedis) -> None:
    """The repetition finds the task pending, and writes all the same: WAIT speaks only of what its connection wrote."""
    master = start_redis()
    replica = start_redis(replica_of=master)
    await _linked(master)
    async with running(master.url, durability="replicated:1", durability_timeout_s=0.3) as api:
        await _accepted(api, "a")
        [claim] = await api.worker.claim()
        await api.worker.report(claim.report("failed"))
        path = f"/api/v1/tasks/{claim.task.id}:retry"
        replica.freeze()
        try:
            answers = [await api.ask("POST", path) for _ in range(5)]  # by each of its connections
        finally:
            replica.thaw()
        refused(answers, "durability_unconfirmed")
        async with asyncio.timeout(20):
            while (await api.ask("POST", path)).status != 200:  # noqa: ASYNC110 - until the replica is back
                await asyncio.sleep(0.05)
        assert (await api.task(claim.task.id))["status"] == "pending"


async def _linked(master: RedisServer) -> None:
    client = AsyncClient(RedisSettings.parse(master.url, "the test"))
    async with asyncio.timeout(20):
        while b"state=online" not in await client.command("INFO", "replication"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await client.aclose()


async def _accepted(api: Api, key: str) -> str:
    async with asyncio.timeout(20):
        while (answer := await api.submit(EMAIL, Idempotency_Key=key)).status != 201:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return str(answer.json["task_id"])


async def test_a_group_shares_one_confirmation_and_each_hears_of_its_own_ids(start_redis: StartRedis) -> None:
    """Paid once per group commit; an unconfirmed group names to each waiter only its own task."""
    server = start_redis()  # without replicas nothing can be confirmed
    async with door(server.url, durability="replicated:1", durability_timeout_s=0.2) as way:
        tasks = [new() for _ in range(20)]
        results = await asyncio.gather(*(way.submit([task]) for task in tasks), return_exceptions=True)
    for task, result in zip(tasks, results, strict=True):
        assert isinstance(result, DurabilityUnconfirmed)
        assert result.task_ids == (task.id,)


async def test_a_server_that_cannot_keep_the_promise_is_said_to_be_misconfigured(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """`fsync` without an append-only file: 503, the reason in the log and not in the answer."""
    server = start_redis()
    async with running(server.url, durability="fsync") as api:
        answer = await api.submit()
    assert (answer.status, answer.code) == (503, "config")
    assert "appendonly" not in answer.text
    assert "appendonly" in caplog.text
