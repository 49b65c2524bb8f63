"""App, tasks and handles: declaring, submitting, waiting, and running a handler in place."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest

from conftest import StartRedis
from headrace import (
    App,
    BadDefinition,
    ConfigError,
    Ctx,
    Handle,
    InvalidPayload,
    InvalidTask,
    Permanent,
    Priority,
    QueueFull,
    ResultTimeout,
    Retry,
    State,
    StoreUnavailable,
    Task,
    TaskCancelled,
    TaskConflict,
    TaskFailed,
    TooLarge,
    UnknownTask,
    WrongCaller,
)
from headrace import task as tasks
from headrace.broker.broker import Queue, Report
from headrace.broker.sync_client import SyncClient
from headrace.client import Client, Enter, Pause
from headrace.connections import Connections
from headrace.redis_settings import RedisSettings
from headrace.settings import ClientSettings, WorkerSettings
from headrace.submission import Options, TaskCall, prepare
from redis_server import RedisServer


@dataclass
class Page:
    url: str
    words: int


@dataclass
class Deps:
    cdn: str


def make_app(url: str = "redis://127.0.0.1:1", **options: Any) -> App[None]:
    return App("test", url=url, **options)


def declare(app: App[Any]) -> Task[[str, int], Page]:
    @app.task()
    async def count(url: str, words: int = 2) -> Page:
        return Page(url, words)

    return count


@pytest.fixture
def app(redis_url: str) -> Iterator[App[None]]:
    app = make_app(redis_url)
    yield app
    app.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[SyncClient]:
    client = SyncClient(RedisSettings.parse(redis_url, "test"))
    yield client
    client.close()


def claim(broker: SyncClient, queue: Queue) -> tuple[bytes, bytes]:
    """Take the next task of the queue; its place and its envelope."""
    cycle = broker.call(queue.cycle("w1", 1))
    [(place, envelope, _)] = cycle.claims
    return place, envelope


def finish(broker: SyncClient, queue: Queue, outcome: str, **facts: Any) -> None:
    """Run the next task as a worker would, to this end."""
    place, envelope = claim(broker, queue)
    line = tasks.encode_attempt(tasks.Attempt(place.decode(), outcome, "w1", 1, 2, **facts))
    carried = tasks.extend(b"", tasks.Counters(1, int(outcome == "failed")), line)
    record = tasks.record(outcome, envelope, carried)
    task_id = tasks.decode_envelope(envelope).id
    broker.call(queue.cycle("w1", 0, [Report(place, task_id, outcome, "", "count", record)]))


def envelope_of(broker: SyncClient, handle: Handle[Any]) -> tasks.Envelope:
    queue = tasks.queue_of(handle.id)
    assert queue is not None
    found = broker.call(Queue(queue).get(handle.id))
    assert found is not None
    text = found.text if found.place[0] in "rs3210" else tasks.cut(found.text)[1]
    return tasks.decode_envelope(text)


# Declaring


def test_declaration_becomes_a_definition() -> None:
    """What the decorator was told, and for the rest the defaults."""
    app = make_app(queue="images")

    @app.task("images.resize", priority="high", max_retries=5, timeout=30)
    def resize(url: str) -> str:
        """Make it smaller."""
        return url

    crunch_def = TOP.registry["crunch_top"]
    definition = app.registry["images.resize"]
    assert (definition.kind, crunch_def.kind) == ("sync", "process")
    assert (definition.queue, definition.priority) == ("images", Priority.HIGH)
    assert definition.retry == Retry(5)
    assert (definition.soft_timeout_s, definition.hard_timeout_s) == (30, 60)
    assert (crunch_def.soft_timeout_s, crunch_def.hard_timeout_s, crunch_def.max_retries) == (300, 330, 3)
    assert (resize.__name__, resize.__doc__) == ("resize", "Make it smaller.")


TOP = make_app()


@TOP.task(process=True)
def crunch_top() -> None: ...


def test_settings_fill_what_was_not_said() -> None:
    """A worker's settings count where the declaration is silent, and only there."""
    app = make_app()

    @app.task(max_retries=1, timeout=5)
    async def said() -> None: ...

    @app.task()
    async def silent() -> None: ...

    settings = WorkerSettings(max_retries=9, backoff_base_s=3, soft_timeout_s=60, hard_extra_s=7)
    a, b = (app.registry[name].with_settings(settings) for name in ("said", "silent"))
    assert (a.max_retries, a.retry.base_s, a.soft_timeout_s, a.hard_timeout_s) == (1, 3, 5, 12)
    assert (b.max_retries, b.retry.base_s, b.soft_timeout_s, b.hard_timeout_s) == (9, 3, 60, 67)


def test_description_for_the_door() -> None:
    """What workers publish: schema with a stable hash, first lines of the docstring, defaults."""
    app = make_app()
    declare(app)
    described = app.registry["count"].describe()
    assert json.loads(msgspec.json.encode(described))["queue"] == "default"
    assert described == app.registry["count"].describe()
    [payload] = described["schema"]["$defs"].values()
    assert payload["required"] == ["url"]


def bad_generator(x: int) -> Iterator[int]:
    yield x


async def bad_async_generator(x: int) -> AsyncIterator[int]:
    yield x


async def fine(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("declare_it", "words"),
    [
        (lambda app: app.task(fine), ["parentheses", "@app.task()", "fine"]),
        (lambda app: app.task("no name!")(fine), ["'no name!'", "fine"]),
        (lambda app: app.task(queue="Bad")(fine), ["'Bad'"]),
        (lambda app: app.task(priority="urgent")(fine), ["'urgent'"]),
        (lambda app: app.task(timeout=0)(fine), ["timeout is 0"]),
        (lambda app: app.task(timeout=float("nan"))(fine), ["timeout is nan"]),
        (lambda app: app.task(max_retries=-1)(fine), ["max_retries is -1"]),
        (
            lambda app: app.task(max_retries=5, retry=Retry(base_s=10))(fine),
            ["max_retries is 5, but its retry is for 3, Retry's default. Say it once: retry=Retry(5, …)."],
        ),
        (lambda app: app.task(max_retries=5, retry=Retry(4))(fine), ["max_retries is 5, but its retry is for 4. Say"]),
        (lambda app: app.task(process=True)(fine), ["process=True", "async"]),
        (lambda app: app.task(process=True)(lambda: None), ["another process"]),
        (lambda app: app.task()(lambda: None), ["'<lambda>'"]),
        (lambda app: app.task()(bad_generator), ["yields"]),
        (lambda app: app.task()(bad_async_generator), ["yields"]),
        (lambda app: app.task()(print), ["plain function"]),
        (lambda app: [app.task()(fine), app.task()(fine)], ["'fine' is taken", "another_name"]),
        (lambda app: App("x", queue="Bad"), ["'Bad'"]),
        (lambda app: App("x", namespace="a/b"), ["'a/b'"]),
        (lambda app: App("x", middleware=cast(Any, ("nothing",))), ["middleware 'nothing'"]),
        (lambda app: App("x", deps=cast(Any, "nothing")), ["deps 'nothing'", "async generator function"]),
        (lambda app: app.task(timeout=cast(Any, "30"))(fine), ["timeout is '30'. Give seconds, more than 0."]),
        (lambda app: app.task(timeout=cast(Any, timedelta(seconds=30)))(fine), ["timeout is datetime.timedelta"]),
        (lambda app: app.task(retention=cast(Any, "1d"))(fine), ["retention is '1d'. Give seconds"]),
        (lambda app: app.task(max_retries=cast(Any, "3"))(fine), ["max_retries is '3'. Give a whole number"]),
        (lambda app: app.task(max_retries=True)(fine), ["max_retries is True"]),
        (lambda app: app.task(retry=cast(Any, 5))(fine), ["retry is 5. Write retry=Retry(5, …)."]),
        (lambda app: app.task(queue=cast(Any, 5))(fine), ["queue is 5. Give a text."]),
        (lambda app: app.task(cast(Any, 5))(fine), ["name is 5. Give a text."]),
        (lambda app: app.task(priority=cast(Any, 1.5))(fine), ["priority is 1.5. Give a name"]),
    ],
)
def test_bad_declaration_is_refused_at_import(declare_it: Callable[[App[None]], Any], words: list[str]) -> None:
    """With the place, what is wrong, and what to write instead."""
    with pytest.raises(BadDefinition) as caught:
        declare_it(make_app())
    for word in words:
        assert word in str(caught.value)


# Who may call what


def test_importing_and_declaring_open_nothing() -> None:
    """A wrong address does no harm until something is submitted."""
    count = declare(make_app("redis://nowhere.invalid:1"))
    assert count.call("u", 1).payload == b'{"url":"u","words":1}'


def test_task_cannot_be_called() -> None:
    """Calling could mean either, so it is refused and both are named."""
    count = declare(make_app())
    with pytest.raises(WrongCaller, match=r"count\.enqueue.*count\.aenqueue.*count\.run"):
        count("u")  # type: ignore[operator]


async def test_blocking_calls_are_refused_in_a_loop() -> None:
    """At once and before anything is sent; the sentence names the right method."""
    count = declare(make_app())
    handle = count.handle(tasks.new_id())
    with pytest.raises(WrongCaller, match=r"await count\.aenqueue"):
        count.enqueue("u", 1)
    with pytest.raises(WrongCaller, match=r"await handle\.aget"):
        handle.get()
    with pytest.raises(WrongCaller, match=r"await handle\.astate"):
        handle.state()


async def test_thread_beside_a_loop_may_block(app: App[None]) -> None:
    """A sync handler runs in a thread of an async worker; there enqueue is right."""
    count = declare(app)
    handle = await asyncio.to_thread(count.enqueue, "u", 1)
    assert tasks.queue_of(handle.id) == "default"


def test_bad_setting_is_found_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at import, where it would break programs that never submit."""
    monkeypatch.setenv("HEADRACE_MAX_DEPHT", "5")
    count = declare(make_app())
    with pytest.raises(ConfigError, match="HEADRACE_MAX_DEPTH"):
        count.enqueue("u", 1)


# Submitting


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
        ({"id": "7"}, "/id"),
        ({"id": tasks.new_id("b")}, "/id"),
        ({"id": tasks.new_id(), "key": "x"}, "/key"),
        ({"key": ""}, "/key"),
        ({"key": "ü" * 128}, "/key"),
        ({"unique": "x" * 256}, "/unique"),
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


# Redis away


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


# Waiting


def test_get_returns_what_the_annotation_says(app: App[None], broker: SyncClient) -> None:
    """A dataclass comes back as one."""
    handle = declare(app).enqueue("u", 1)
    finish(broker, Queue("default"), "completed", result=msgspec.Raw(b'{"url":"u","words":1}'))
    assert handle.get(timeout=5) == Page("u", 1)
    assert handle.state() is State.COMPLETED


async def test_aget_hears_of_the_end(redis_url: str, broker: SyncClient) -> None:
    """Many waiters of one queue share a reader, and hear at once."""
    async with make_app(redis_url) as app:
        count = declare(app)
        handles = [await count.aenqueue("u", n) for n in range(20)]
        waiting = asyncio.gather(*(handle.aget(timeout=10) for handle in handles))
        await asyncio.sleep(0)
        start = time.monotonic()
        for n in range(20):
            result = msgspec.Raw(b'{"url":"u","words":%d}' % n)
            await asyncio.to_thread(finish, broker, Queue("default"), "completed", result=result)
        assert [page.words for page in await waiting] == list(range(20))
        assert time.monotonic() - start < 4  # the fallback looks after 5 s


async def test_aget_of_what_has_ended(redis_url: str, broker: SyncClient) -> None:
    """No news will come, so the first look answers."""
    async with make_app(redis_url) as app:
        handle = await declare(app).aenqueue("u", 1)
        await asyncio.to_thread(finish, broker, Queue("default"), "completed")
        with pytest.raises(msgspec.ValidationError):
            await handle.aget(timeout=5)  # the result is null, and Page is no null


async def test_reader_stops_when_nobody_waits(redis_url: str, broker: SyncClient) -> None:
    """Waiting again starts it again, from where the journal is then."""
    async with make_app(redis_url) as app:
        count = declare(app)
        for n in range(2):
            handle = await count.aenqueue("u", n)
            waiting = asyncio.create_task(handle.aget(timeout=10))
            result = msgspec.Raw(b'{"url":"u","words":1}')
            await asyncio.to_thread(finish, broker, Queue("default"), "completed", result=result)
            assert (await waiting).words == 1
            reader = app.connections._here().watches["default"]._reader
            assert reader is not None
            await asyncio.wait_for(reader, 5)


async def test_wait_outlives_a_restart(start_redis: StartRedis) -> None:
    """A wait rides out an outage of Redis and gets its result afterwards, by the journal."""
    server = start_redis(appendfsync="always")
    broker = SyncClient(RedisSettings.parse(server.url, "test"))
    async with make_app(server.url) as app:
        handle = await declare(app).aenqueue("u", 1)
        waiting = asyncio.create_task(handle.aget(timeout=30))
        with pytest.raises(ResultTimeout):
            await handle.aget(timeout=0.05)
        connection = await app.connections._here().watches["default"]._client.connection()
        await asyncio.to_thread(server.kill)
        await connection.wait_closed()
        await asyncio.to_thread(server.start)
        result = msgspec.Raw(b'{"url":"u","words":1}')
        await asyncio.to_thread(finish, broker, Queue("default"), "completed", result=result)
        assert (await waiting).words == 1
    broker.close()


async def test_journal_that_may_not_be_read_is_said(start_redis: StartRedis, caplog: pytest.LogCaptureFixture) -> None:
    """Waiting works without it; the log says why it is slow."""
    server = start_redis(acl=["user default on nopass ~* &* +@all -xread -xrevrange"])
    async with make_app(server.url) as app:
        handle = await declare(app).aenqueue("u", 1)
        with pytest.raises(ResultTimeout):
            await handle.aget(timeout=0.2)
    assert "journal cannot be read" in caplog.text


def test_ends_that_are_no_result(app: App[None], broker: SyncClient) -> None:
    """Failed, cancelled, unknown: each is an error of its own."""
    count, queue = declare(app), Queue("default")
    failed = count.enqueue("u", 1)
    finish(broker, queue, "failed", error=tasks.Failure("ValueError", "no such page"))
    with pytest.raises(TaskFailed, match="ValueError: no such page"):
        failed.get(timeout=1)
    crashed = count.enqueue("u", 1)
    finish(broker, queue, "failed", cause="OOMKilled")
    with pytest.raises(TaskFailed, match="OOMKilled"):
        crashed.get(timeout=1)
    cancelled = count.enqueue("u", 1)
    broker.call(queue.cancel(cancelled.id))
    with pytest.raises(TaskCancelled):
        cancelled.get(timeout=1)
    with pytest.raises(UnknownTask):
        count.handle(tasks.new_id()).get(timeout=1)
    with pytest.raises(UnknownTask):
        count.handle("../../etc")


async def test_timeout_names_the_state(redis_url: str) -> None:
    """Both ways of waiting say what the task is doing instead."""
    async with make_app(redis_url) as app:
        handle = await declare(app).aenqueue("u", 1)
        with pytest.raises(ResultTimeout, match=r"still pending after 0\.2 s"):
            await handle.aget(timeout=0.2)
        with pytest.raises(ResultTimeout, match="still pending"):
            await asyncio.to_thread(handle.get, 0.05)


def test_one_app_in_several_loops(app: App[None]) -> None:
    """Connections belong to a loop; the App does not."""

    async def submit() -> str:
        try:
            return (await declare_once(app).aenqueue("u", 1)).id
        finally:
            await app.aclose()

    assert asyncio.run(submit()) != asyncio.run(submit())


def declare_once(app: App[None]) -> Task[[str, int], Page]:
    if "count" in app.registry:
        return Task(app, app.registry["count"])
    return declare(app)


async def test_aclose_leaves_nothing_open(redis_url: str) -> None:
    """Not even a reader in the middle of its wait; a warning about an open transport would fail this test."""
    app = make_app(redis_url)
    handle = await declare(app).aenqueue("u", 1)
    with pytest.raises(ResultTimeout):
        await handle.aget(timeout=0.05)
    waiting = asyncio.create_task(handle.aget(timeout=30))
    await asyncio.sleep(0)
    reader = app.connections._here().watches["default"]._reader
    assert reader is not None
    assert not reader.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await app.aclose()
    gc.collect()


# Running in place


async def test_run_goes_through_json() -> None:
    """Arguments and result are what a worker would see, without Redis."""
    app = make_app()

    @app.task()
    def pairs(given: tuple[int, str]) -> tuple[int, str]:
        return (given[0] + 1, threading.current_thread().name)

    number, thread = await pairs.run((1, "x"))
    assert number == 2
    assert thread != threading.current_thread().name
    with pytest.raises(InvalidPayload):
        await pairs.run((1, 2))  # type: ignore[arg-type]


async def test_run_gives_deps_and_middleware() -> None:
    """The lifespan is entered and left, middleware nests in its order, and the Ctx is what handlers get."""
    seen: list[str] = []

    async def deps() -> AsyncIterator[Deps]:
        seen.append("open")
        yield Deps("cdn")
        seen.append("close")

    def named(name: str) -> Callable[[Ctx[Any]], Any]:
        @asynccontextmanager
        async def middleware(ctx: Ctx[Any]) -> AsyncIterator[None]:
            seen.append(f"{name} {ctx.type}")
            yield
            seen.append(f"{name} left")

        return middleware

    app = App("test", deps=deps, middleware=(named("a"), named("b")))

    @app.task()
    async def link(ctx: Ctx[Deps], path: str) -> str:
        seen.append(f"attempt {ctx.attempt}")
        return f"{ctx.deps.cdn}/{path}"

    assert await link.run("x") == "cdn/x"
    assert seen == ["open", "a link", "b link", "attempt 1", "b left", "a left", "close"]


async def test_run_raises_what_the_handler_raises() -> None:
    """And the lifespan's end still runs."""
    seen: list[str] = []

    async def deps() -> AsyncIterator[None]:
        try:
            yield
        finally:
            seen.append("closed")

    app = App("test", deps=deps)

    @app.task()
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await fail.run()
    assert seen == ["closed"]


async def test_lifespan_cannot_swallow_an_error() -> None:
    """It sees what went wrong and may clean up; what it raises instead is raised."""
    seen: list[str] = []

    async def swallowing() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            seen.append("saw it")

    async def again() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            yield

    async def worse() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            raise KeyError("worse") from None

    for deps, raised in ((swallowing, ValueError), (again, ValueError), (worse, KeyError)):
        with pytest.raises(raised):
            async with App("test", deps=deps).lifespan():
                raise ValueError("wrong")
    assert seen == ["saw it"]


async def no_deps() -> AsyncIterator[int]:
    if len("ab") == 3:
        yield 1


async def two_deps() -> AsyncIterator[int]:
    yield 1
    yield 2


async def plain_deps() -> int:
    return 1


def sync_deps() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("deps", "word"),
    [(no_deps, "nothing"), (two_deps, "more than once"), (plain_deps, "one value"), (sync_deps, "no async generator")],
)
async def test_lifespan_yields_once(deps: Any, word: str) -> None:
    """Anything else is refused with the form that is right."""
    app: App[int] = App("test", deps=deps)
    with pytest.raises(BadDefinition, match=f"{word}.*one `yield"):
        async with app.lifespan():
            pass


class Hollow(msgspec.Struct):
    """Without its field it raises AttributeError while it is written."""

    field: int


def test_result_that_is_no_json() -> None:
    """It cannot get better by a retry, and a large one names the limit."""
    definition = declare(make_app()).definition
    with pytest.raises(Permanent, match="cannot be written as JSON"):
        definition.encode_result(object(), 100)
    hollow = Hollow(1)
    del hollow.field
    with pytest.raises(Permanent, match="cannot be written as JSON"):
        definition.encode_result(hollow, 100)
    with pytest.raises(TooLarge, match="result"):
        definition.encode_result("x" * 200, 100)
    assert definition.encode_result(None, 100) is None
    assert definition.encode_result(Page("u", 1), 100) == b'{"url":"u","words":1}'


def test_ctx_tells_its_fence_and_its_time() -> None:
    """The token grows with epoch, then attempt; the remaining time is never negative."""
    old = Ctx(id="a", type="t", queue="q", attempt=9, epoch=1, deadline=0.0, deps=None)
    new = Ctx(id="a", type="t", queue="q", attempt=1, epoch=2, deadline=time.monotonic() + 60, deps=None)
    assert old.token < new.token
    assert old.remaining_s == 0
    assert 50 < new.remaining_s <= 60


def test_connections_read_the_environment_once(redis_url: str) -> None:
    """What was found at the first use holds; a later change of the environment moves nobody to another server."""
    environ = {"HEADRACE_URL": redis_url, "HEADRACE_NAMESPACE": "team-a"}
    connections = Connections(None, None, environ)
    assert connections.client().settings.namespace == "team-a"
    environ["HEADRACE_NAMESPACE"] = "team-b"
    assert connections.client().settings.namespace == "team-a"
