"""Tags, expiry and unique keys: from the library, over HTTP, and in the worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from api_kit import EMAIL, Api, running
from headrace import App, Handle, InvalidTask, State, Task, TaskCancelled, TaskExpired, Unique
from headrace.broker.broker import Queue, view
from headrace.broker.sync_client import SyncClient
from worker_harness import Desk, eventually, working

QUEUE = Queue("default")


def declare(app: App[None]) -> Task[[int], int]:
    """A task that gives back what it got."""

    @app.task()
    async def echo(n: int) -> int:
        return n

    return echo


async def test_an_expired_task_is_never_run(redis_url: str, desk: Desk) -> None:
    """Whoever claims it ends it as cancelled with the reason; `get` says so, and it is counted."""
    app, ran = App("t", url=redis_url), list[int]()

    @app.task()
    async def send(n: int) -> None:
        ran.append(n)

    late = await send.using(expires=datetime.now(UTC) - timedelta(seconds=1)).aenqueue(1)
    good = await send.using(expires=60).aenqueue(2)
    async with working(app, redis_url) as worker:
        await good.aget(timeout=10)
        with pytest.raises(TaskExpired, match="expired before a worker could begin it") as caught:
            await late.aget(timeout=10)
        stats = worker.stats
    await app.aclose()
    assert isinstance(caught.value, TaskCancelled)
    assert ran == [2]
    seen = await desk.look(late.id)
    assert seen.state is State.CANCELLED and seen.attempts[-1].error is not None
    assert seen.attempts[-1].error.reason == "expired"
    assert (stats.expired, stats.types["send"].outcomes["cancelled"]) == (1, 1)
    assert sum(stats.types["send"].duration.counts) == 1, "what never ran took no time"


async def test_a_delayed_task_that_expires_while_nobody_works(redis_url: str) -> None:
    """It becomes due, is claimed, and is not run."""
    app = App("t", url=redis_url)
    echo = declare(app)
    handle = await echo.using(delay=0.01, expires=0.02).aenqueue(1)
    await asyncio.sleep(0.03)
    async with working(app, redis_url):
        with pytest.raises(TaskExpired):
            await handle.aget(timeout=10)
    await app.aclose()


def test_unique_for_a_time_outlasts_the_task(app: App[None], broker: SyncClient, redis_url: str) -> None:
    """It refuses others until its time is over, though it ended, and no longer, though it may still wait."""
    echo = declare(app)
    held = echo.using(unique=Unique("report", until=timedelta(hours=1)))
    first = held.enqueue(1)
    assert held.enqueue(2).id == first.id
    broker.call(QUEUE.cancel(first.id))
    assert held.enqueue(3).id == first.id, "although the task has ended"
    assert echo.using(unique="report").enqueue(3).id == first.id, "the key is one, however long it is held"
    with redis.Redis.from_url(redis_url) as raw:
        [key] = raw.keys(QUEUE.keys["once"] + "*")
        assert 3_500_000 < raw.pttl(key) <= 3_600_000
        raw.delete(key)  # as its expiry would
    assert held.enqueue(4).id != first.id


def test_unique_until_finished_refuses_one_for_a_time(app: App[None]) -> None:
    """Both kinds see each other."""
    echo = declare(app)
    first = echo.using(unique="k").enqueue(1)
    assert echo.using(unique=Unique("k", until=60), delay=60).enqueue(2).id == first.id


def test_a_delayed_task_holds_its_key_for_a_time_too(app: App[None], broker: SyncClient) -> None:
    """From its submission, with whatever delay."""
    echo = declare(app).using(unique=Unique("k", until=60))
    first = echo.using(delay=30).enqueue(1)
    assert first.state() is State.SCHEDULED
    assert echo.using(eta=datetime.now(UTC) + timedelta(seconds=5)).enqueue(1).id == first.id


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"tags": "acme"}, "/tags"),
        ({"tags": ["a b"]}, "/tags"),
        ({"tags": [""]}, "/tags"),
        ({"tags": ["x" * 65]}, "/tags"),
        ({"tags": [7]}, "/tags"),
        ({"tags": ["x"] * 17}, "/tags"),
        ({"expires": 0}, "/expires"),
        ({"expires": "tomorrow"}, "/expires"),
        ({"expires": float("nan")}, "/expires"),
        ({"expires": timedelta(days=400)}, "/expires"),
        ({"expires": datetime.now()}, "/expires"),
        ({"expires": 5, "delay": 5}, "/expires"),
        ({"expires": 5, "eta": datetime.now(UTC) + timedelta(hours=1)}, "/expires"),
        ({"unique": ""}, "/unique"),
        ({"unique": Unique("x" * 256)}, "/unique"),
        ({"unique": Unique("k", until=0)}, "/unique/until"),
        ({"unique": Unique("k", until=timedelta(days=32))}, "/unique/until"),
    ],
)
def test_bad_options_are_refused_before_redis_is_asked(options: dict[str, Any], pointer: str) -> None:
    """With a pointer, as the API would answer."""
    with pytest.raises(InvalidTask) as caught:
        declare(App("t", url="redis://127.0.0.1:1")).using(**options).enqueue(1)
    assert caught.value.errors[0].pointer == pointer


def test_tags_travel_in_the_envelope(app: App[None], broker: SyncClient) -> None:
    """In the order given, and `using` replaces them."""
    tagged = declare(app).using(tags=("acme", "eu/west"))
    assert _tags(broker, tagged.enqueue(1)) == ("acme", "eu/west")
    assert _tags(broker, tagged.using(tags=["b"]).enqueue(1)) == ("b",)


def _tags(broker: SyncClient, handle: Handle[int]) -> tuple[str, ...]:
    found = broker.call(QUEUE.get(handle.id))
    assert found is not None
    envelope = view(handle.id, "default", found).envelope
    assert envelope is not None
    return envelope.tags


# over HTTP


async def test_http_takes_tags_and_expiry_and_shows_them(redis_url: str) -> None:
    """Seconds or a time; shown as a time."""
    async with running(redis_url) as api:
        task_id = await api.submitted(EMAIL | {"tags": ["acme", "eu/west"], "expires": 60})
        shown = await api.task(task_id)
        other = await api.task(await api.submitted(EMAIL | {"expires": "2026-12-31T00:00:00Z"}))
        plain = await api.task(await api.submitted(EMAIL))
    assert shown["tags"] == ["acme", "eu/west"]
    left = datetime.fromisoformat(shown["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=55) < left <= timedelta(seconds=60)
    assert (other["expires_at"], plain["expires_at"], plain["tags"]) == ("2026-12-31T00:00:00Z", None, [])


async def test_http_refuses_a_held_unique_key_with_its_holder(redis_url: str) -> None:
    """409 with the holder's id; free again when that has ended."""
    body = EMAIL | {"unique": {"key": "user-7"}}
    async with running(redis_url) as api:
        first = await api.submitted(body)
        refused = await api.submit(body)
        assert (refused.status, refused.code, refused.json["task_ids"]) == (409, "unique_held", [first])
        await api.ask("DELETE", f"/api/v1/tasks/{first}")
        assert await api.submitted(body) != first


async def test_http_unique_for_a_time(redis_url: str) -> None:
    """It holds after the end of the task; library and HTTP share the key."""
    app = App("t", url=redis_url)
    async with running(redis_url) as api:
        first = await api.submitted(EMAIL | {"unique": {"key": "k", "until": 3600}})
        await api.ask("DELETE", f"/api/v1/tasks/{first}")
        refused = await api.submit(EMAIL | {"unique": {"key": "k", "until": "finished"}})
        assert (refused.status, refused.json["task_ids"]) == (409, [first])
        assert (await declare(app).using(unique="k").aenqueue(1)).id == first
    await app.aclose()


async def test_http_repeats_a_unique_submission_under_its_idempotency_key(redis_url: str) -> None:
    """It is the same task, so its own key does not refuse it."""
    body = EMAIL | {"unique": {"key": "k"}}
    async with running(redis_url) as api:
        first = await api.submitted(body, Idempotency_Key="a")
        again = await api.submit(body, Idempotency_Key="a")
    assert (again.status, again.json["task_id"], again.headers["Idempotent-Replayed"]) == (201, first, "true")


async def test_http_batch_names_the_holder_and_stores_the_rest(redis_url: str) -> None:
    """A duplicate in a thousand does not refuse the others."""
    async with running(redis_url) as api:
        first = await api.submitted(EMAIL | {"unique": {"key": "k"}})
        batch = {"tasks": [EMAIL, EMAIL | {"unique": {"key": "k"}}, EMAIL | {"tags": ["x"]}]}
        answer = await api.ask("POST", "/api/v1/tasks:batch", json=batch)
        assert answer.status == 201
        rows = answer.json["tasks"]
        assert [row["status"] for row in rows] == ["submitted", "held", "submitted"]
        assert rows[1]["task_id"] == first
        assert (await api.task(rows[2]["task_id"]))["tags"] == ["x"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"tags": "acme"}, "/tags"),
        ({"tags": ["ok", "a b"]}, "/tags/1"),
        ({"tags": ["x"] * 17}, "/tags"),
        ({"tags": [7]}, "/tags/0"),
        ({"expires": 0}, "/expires"),
        ({"expires": "tomorrow"}, "/expires"),
        ({"expires": "2026-01-01T00:00:00"}, "/expires"),
        ({"expires": "2999-01-01T00:00:00Z"}, "/expires"),
        ({"expires": 5, "delay": 6}, "/expires"),
        ({"expires": True}, "/expires"),
        ({"unique": "k"}, "/unique"),
        ({"unique": {"key": ""}}, "/unique/key"),
        ({"unique": {}}, "/unique/key"),
        ({"unique": {"key": "x" * 256}}, "/unique/key"),
        ({"unique": {"key": "k", "until": "ended"}}, "/unique/until"),
        ({"unique": {"key": "k", "until": -1}}, "/unique/until"),
        ({"unique": {"key": "k", "untl": 5}}, "/unique/untl"),
    ],
)
async def test_http_refuses_bad_fields(shared_api: Api, fields: dict[str, Any], pointer: str) -> None:
    """422 with the place."""
    answer = await shared_api.submit(EMAIL | fields)
    assert (answer.status, answer.code, list(answer.errors)) == (422, "invalid_task", [pointer])


@pytest.fixture
async def shared_api(redis_url: str) -> AsyncIterator[Api]:
    async with running(redis_url) as api:
        yield api


async def test_expiry_is_told_over_http(redis_url: str) -> None:
    """As the error of the cancelled task."""
    app = App("t", url=redis_url)
    declare(app)
    async with running(redis_url) as api, working(app, redis_url):
        past = datetime.fromtimestamp(time.time() - 5, UTC).isoformat()
        task_id = await api.submitted({"type": "echo", "payload": {"n": 1}, "expires": past})

        async def ended() -> Any:
            shown = await api.task(task_id)
            return shown if shown["status"] == "cancelled" else None

        shown = await eventually(ended)
    assert shown["error"]["reason"] == "expired"
