"""App and tasks: submitting, also while Redis is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from app_kit import Page, declare, envelope_of, finish, make_app
from headrace import (
    App,
    InvalidPayload,
    InvalidTask,
    QueueFull,
    State,
    StoreUnavailable,
    TaskConflict,
    TooLarge,
)
from headrace import task as tasks
from headrace.broker.broker import Queue
from headrace.broker.sync_client import SyncClient
from headrace.client import Client, Enter, Pause
from headrace.settings import ClientSettings
from headrace.submission import Options, TaskCall, prepare
from redis_server import RedisServer


def test_submitted_task_waits_as_said(app: App[None], broker: SyncClient) -> None:
    """The envelope holds type, priority, payload and what the options said."""
    handle = declare(app).using(priority="critical", max_retries=7).enqueue("u", 5)
    envelope = envelope_of(broker, handle)
    assert (envelope.type, envelope.priority, envelope.max_retries) == ("count", 3, 7)
    assert bytes(envelope.payload) == b'{"url":"u","words":5}'
    assert abs(envelope.created_ms - time.time() * 1000) < 10_000
    assert handle.state() is State.PENDING


async def test_submitted_from_asyncio(redis_url: str, broker: SyncClient) -> None:
    """The same from a coroutine."""
    async with make_app(redis_url) as app:
        handle = await declare(app).using(queue="orders", priority=0).aenqueue("u", 5)
        assert handle.id.startswith("orders.")
        assert envelope_of(broker, handle).priority == 0
        assert await handle.astate() is State.PENDING


def test_queue_is_made_known_once(app: App[None], broker: SyncClient, redis_server: RedisServer) -> None:
    """The first submission lists the queue and makes its group, so that its depth is known before any worker."""
    count = declare(app)
    count.using(queue="orders").enqueue("u", 1)
    assert redis_server.redis.smembers("hr:{default}:queues") == {b"orders"}
    assert broker.call(Queue("orders").depth()).waiting == 1
    before = redis_server.redis.info("commandstats")["cmdstat_xgroup|create"]["calls"]
    count.using(queue="orders").enqueue("u", 1)
    assert redis_server.redis.info("commandstats")["cmdstat_xgroup|create"]["calls"] == before


@pytest.mark.parametrize(
    "options",
    [
        lambda: {"delay": 60},
        lambda: {"delay": timedelta(minutes=1)},
        lambda: {"eta": datetime.now(UTC) + timedelta(minutes=1)},
    ],
    ids=["seconds", "timedelta", "eta"],
)
def test_delayed_task_is_scheduled(app: App[None], broker: SyncClient, options: Callable[[], dict[str, Any]]) -> None:
    """It is due when it was asked to be."""
    handle = declare(app).using(**options()).enqueue("u", 1)
    found = broker.call(Queue("default").get(handle.id))
    assert found is not None
    assert found.due_ms is not None
    assert 0 < found.due_ms - time.time() * 1000 <= 120_000
    assert handle.state() is State.SCHEDULED


def test_key_makes_one_task(app: App[None], broker: SyncClient) -> None:
    """Repeated under the same key it is the same task; another payload under it is refused; another type is not."""
    count = declare(app)

    @app.task()
    def other(url: str) -> None: ...

    first = count.using(key="order-7").enqueue("u", 1)
    assert count.using(key="order-7").enqueue("u", 1).id == first.id
    assert broker.call(Queue("default").depth()).live == 1
    with pytest.raises(TaskConflict, match=first.id):
        count.using(key="order-7").enqueue("u", 2)
    assert other.using(key="order-7").enqueue("u").id != first.id
    assert count.using(key="order-7", queue="b").enqueue("u", 1).id != first.id
    finish(broker, Queue("default"), "completed")
    assert count.using(key="order-7").enqueue("u", 1).id == first.id
    with pytest.raises(TaskConflict):
        count.using(key="order-7").enqueue("u", 2)


def test_the_id_of_a_key_needs_the_secret_of_the_namespace(app: App[None], redis_url: str) -> None:
    """All processes agree on it, and nobody finds it out by guessing keys; with another secret it is another."""
    first = declare(app).using(key="order-7").enqueue("u", 1)
    other = make_app(redis_url)
    assert declare(other).using(key="order-7").enqueue("u", 1).id == first.id
    other.close()
    call: TaskCall[Page] = TaskCall(declare(make_app()).definition, b'{"url":"u","words":1}', Options(key="order-7"))
    unnamed = prepare(call, ClientSettings(), 5)
    assert unnamed.named is not None and unnamed.id != first.id
    named = unnamed.named(b"x")
    assert len({named.id, unnamed.named(b"y").id, first.id}) == 3
    assert named.named is None and tasks.decode_envelope(named.new.envelope).id == named.id
    assert named.id == unnamed.named(b"x").id


def test_id_of_the_caller(app: App[None]) -> None:
    """A chosen id is kept, and repeated it makes one task."""
    count, task_id = declare(app), tasks.new_id()
    assert count.using(id=task_id).enqueue("u", 1).id == task_id
    assert count.using(id=task_id).enqueue("u", 1).id == task_id
    with pytest.raises(TaskConflict):
        count.using(id=task_id).enqueue("v", 1)


def test_unique_key_names_the_live_task(app: App[None], broker: SyncClient) -> None:
    """While one lives under the key, that one is meant; afterwards a new one is made."""
    count = declare(app).using(unique="report")
    first = count.enqueue("u", 1)
    assert count.enqueue("v", 2).id == first.id
    finish(broker, Queue("default"), "completed")
    assert count.enqueue("v", 2).id != first.id


def test_full_queue_is_said(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the queue and its limit."""
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "1")
    app = make_app(redis_url)
    count = declare(app)
    count.enqueue("u", 1)
    with pytest.raises(QueueFull, match="limit of 1 live tasks"):
        count.enqueue("u", 1)
    app.close()


def test_too_many_queues_is_said(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients name queues, so their number is bounded; nothing is stored."""
    monkeypatch.setenv("HEADRACE_MAX_QUEUES", "1")
    app = make_app(redis_url)
    count = declare(app)
    count.enqueue("u", 1)
    with pytest.raises(InvalidTask, match="HEADRACE_MAX_QUEUES") as caught:
        count.using(queue="another").enqueue("u", 1)
    assert caught.value.errors[0].pointer == "/queue"
    app.close()


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"delay": -1}, "/delay"),
        ({"delay": float("nan")}, "/delay"),
        ({"delay": 400 * 86_400}, "/delay"),
        ({"delay": "5"}, "/delay"),
        ({"eta": "2999-01-01T00:00:00Z"}, "/eta"),
        ({"key": 17}, "/key"),
        ({"delay": 1, "eta": datetime.now(UTC)}, "/eta"),
        ({"eta": datetime.now()}, "/eta"),
        ({"eta": datetime.now(UTC) + timedelta(days=400)}, "/eta"),
        ({"priority": "urgent"}, "/priority"),
        ({"priority": 4}, "/priority"),
        ({"priority": (2,)}, "/priority"),
        ({"id": "7"}, "/id"),
        ({"id": tasks.new_id("b")}, "/id"),
        ({"id": tasks.new_id(), "key": "x"}, "/key"),
        ({"key": ""}, "/key"),
        ({"key": "ü" * 128}, "/key"),
        ({"unique": "x" * 256}, "/unique"),
        ({"unique": 17}, "/unique"),
        ({"max_retries": 101}, "/max_retries"),
        ({"queue": "Bad"}, "/queue"),
        ({"queue": 5}, "/queue"),
        ({"id": uuid4()}, "/id"),
        ({"tags": 5}, "/tags"),
    ],
)
def test_bad_option_is_refused_before_redis_is_asked(options: dict[str, Any], pointer: str) -> None:
    """With a pointer, as the API would answer."""
    with pytest.raises(InvalidTask) as caught:
        declare(make_app()).using(**options).enqueue("u", 1)
    assert caught.value.errors[0].pointer == pointer


def test_bad_arguments_are_refused_before_redis_is_asked() -> None:
    """The producer validates as the worker will."""
    with pytest.raises(InvalidPayload, match=r"/words: Expected `int`, got `str`"):
        declare(make_app()).enqueue("u", "many")  # type: ignore[arg-type]
    with pytest.raises(TooLarge, match="65536"):
        declare(make_app()).enqueue("u" * 70_000, 1)


def test_options_chain() -> None:
    """What is not given stays as it was."""
    count = declare(make_app()).using(delay=5, priority="low").using(delay=6)
    assert count.options == Options(delay=6, priority="low")


def test_a_call_without_options_is_what_empty_options_make() -> None:
    """It goes a shorter way to the same task."""
    page = declare(make_app())
    as_declared, read = (
        prepare(TaskCall(page.definition, b'{"url":"u"}', options), ClientSettings(), 5, "00-trace")
        for options in (page.options, Options())
    )
    envelopes = [tasks.decode_envelope(sent.new.envelope) for sent in (as_declared, read)]
    assert msgspec.structs.replace(envelopes[0], id=envelopes[1].id) == envelopes[1]
    assert as_declared.id == envelopes[0].id == as_declared.new.id
    assert msgspec.structs.replace(read, id=as_declared.id, new=as_declared.new) == as_declared
    assert msgspec.structs.replace(read.new, id=as_declared.id, envelope=as_declared.new.envelope) == as_declared.new


def test_trace_is_handed_on() -> None:
    """A task submitted by a handler belongs to the trace of the handler's task."""
    call: TaskCall[Page] = TaskCall(declare(make_app()).definition, b"{}", Options())
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = prepare(call, ClientSettings(), 5, trace)
    assert tasks.decode_envelope(sent.new.envelope).trace == trace


def test_redis_that_was_never_there_is_said_at_once() -> None:
    """Nobody waits ten seconds to learn that nothing runs; the sentence names address and source."""
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:1/0 \(from the argument\).*headrace dev"):
        declare(make_app()).enqueue("u", 1)
    assert time.monotonic() - start < 2


def steps_of(client: Client, sent: Any) -> Any:
    steps = client.submit(sent)
    return steps, next(steps)


def make_sent(key: str | None = None) -> Any:
    call: TaskCall[Page] = TaskCall(declare(make_app()).definition, b'{"url":"u"}', Options(key=key))
    return prepare(call, ClientSettings(), 5)


AWAY = StoreUnavailable("redis://h", "gone")


def test_lost_answer_is_asked_again_with_the_same_id() -> None:
    """After Redis was reached once, a lost answer is repeated; `known` then says that it had arrived."""
    now = [0.0]
    client = Client(ClientSettings(), clock=lambda: now[0])
    client._reached = True
    sent = make_sent()
    steps, step = steps_of(client, sent)
    sends = 0
    while True:
        if not isinstance(step, Enter):
            step = steps.send(True)
            continue
        call = step.alone().call
        assert sent.id in call.words
        sends += 1
        if sends == 3:
            break
        step = steps.throw(AWAY)
        assert isinstance(step, Pause)
        assert 0 < step.seconds <= 1
        step = steps.send(None)
    with pytest.raises(StopIteration) as done:
        steps.send(call.parse([b"k"]))
    assert done.value.value == sent.id


def test_patience_ends() -> None:
    """After submit_timeout_s the last error is raised."""
    now = [0.0]
    client = Client(ClientSettings(submit_timeout_s=3), clock=lambda: now[0])
    client._reached = True
    steps, step = steps_of(client, make_sent())
    with pytest.raises(StoreUnavailable):
        while True:
            if isinstance(step, Pause):
                now[0] += step.seconds
                step = steps.send(None)
            else:
                step = steps.throw(AWAY)
    assert 1 < now[0] <= 3


def test_restarted_redis_is_ridden_out(redis_server: RedisServer, redis_url: str) -> None:
    """A submission during a restart of Redis waits for it and makes one task."""
    app = make_app(redis_url)
    count = declare(app)
    count.enqueue("u", 1)
    redis_server.kill()
    starter = threading.Timer(0.3, redis_server.start)
    starter.start()
    handle = count.enqueue("v", 1)
    starter.join()
    assert handle.state() is State.PENDING
    app.close()
