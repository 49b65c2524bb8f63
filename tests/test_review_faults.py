"""A worker whose Redis refuses, hangs or forgets, and the connection under it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

import worker_harness
from chaos.proxy import FaultProxy
from headrace import App, Ctx
from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connection import Connection
from headrace.broker.sync_client import SyncClient
from headrace.errors import ConfigError, DurabilityUnconfirmed, StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.runtime import drain, due, worker
from headrace.runtime.due import Promotions
from headrace.runtime.worker import Worker
from headrace.settings import Durabilities, Fsync, Replicated
from headrace.task import Envelope, State, encode_envelope, new_id
from redis_server import RedisServer, await_true
from worker_harness import WAIT_S, Desk, eventually, quick, shares, working

QUEUE = Queue("default")


def counting() -> tuple[App[None], list[str]]:
    app = App("t")
    runs: list[str] = []

    @app.task()
    async def count(ctx: Ctx) -> None:
        runs.append(ctx.id)

    return app, runs


impatient = partial(worker_harness.impatient, durability_timeout_s=0.1)


# the connection


class Pipe:
    """In place of a transport."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None: ...


def feed(connection: Connection, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


async def test_an_answer_that_closes_leaves_one_answer_to_each() -> None:
    """The replies behind it lie in the same buffer; their requests have been told that the connection is lost."""
    connection = Connection(RedisSettings())
    connection.connection_made(Pipe())  # type: ignore[arg-type]
    heard: list[list[Any]] = [[], [], []]
    connection.send(("ONE",), lambda reply: (heard[0].append(reply), connection.close("enough")))  # type: ignore[func-returns-value, arg-type]
    connection.send(("TWO",), heard[1].append)
    connection.send(("THREE",), heard[2].append)
    feed(connection, b"-ERR no\r\n+OK\r\n+OK\r\n")
    assert [len(each) for each in heard] == [1, 1, 1]
    assert isinstance(heard[1][0], StoreUnavailable) and isinstance(heard[2][0], StoreUnavailable)


async def test_an_answer_that_raises_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """At a loss all others hear of it, and whoever waits for the end comes back."""
    connection = Connection(RedisSettings())
    connection.connection_made(Pipe())  # type: ignore[arg-type]
    heard: list[Any] = []

    def broken(reply: Any) -> None:
        raise KeyError("a bug")

    connection.send(("ONE",), broken)
    connection.send(("TWO",), heard.append)
    connection.connection_lost(None)
    await asyncio.wait_for(connection.wait_closed(), WAIT_S)
    assert len(heard) == 1 and "a bug" in caplog.text


@pytest.mark.parametrize("many", [False, True])
async def test_what_cannot_be_sent_shifts_no_answer(many: bool) -> None:
    """A text that is none (half a character) is refused, and whoever asks next hears its own answer."""
    connection = Connection(RedisSettings())
    connection.connection_made(Pipe())  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        if many:
            await connection.calls([QUEUE.depth(), structs.replace(QUEUE.depth(), args=("\udcff",))], 1)
        else:
            await connection.command("ECHO", "\udcff")
    asked = asyncio.create_task(connection.command("ECHO", "mine"))
    await asyncio.sleep(0)
    feed(connection, b"+mine\r\n")
    assert await asyncio.wait_for(asked, WAIT_S) == b"mine"


@pytest.mark.parametrize("answered", [False, True])
async def test_a_connection_that_is_deaf_is_closed_although_nobody_waits_any_more(answered: bool) -> None:
    """Callers with a shorter bound of their own leave before its time-out, and would keep it for ever."""
    connection = Connection(RedisSettings(timeout_s=0.02))
    connection.connection_made(Pipe())  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await connection.command("PING")
    if answered:
        feed(connection, b"+PONG\r\n")
        await asyncio.sleep(0.1)
        assert connection.lost is None
    else:
        async with asyncio.timeout(WAIT_S):
            while connection.lost is None:  # noqa: ASYNC110 - a closed pipe tells nobody
                await asyncio.sleep(0.01)
        assert "no answer within 0.02 s" in str(connection.lost)


async def test_a_lost_script_cache_confirms_nothing(start_redis: Callable[..., RedisServer]) -> None:
    """The WAIT behind a call that did not run says nothing of the call that then runs."""
    master = start_redis()
    replica = start_redis(replica_of=master)
    await asyncio.to_thread(await_true, lambda: replica.redis.info("replication")["master_link_status"] == "up")
    async with aclosing(AsyncClient(RedisSettings.parse(master.url, "the test"))) as client:
        await client.call(QUEUE.submit([new_task()]), Replicated(1))
        replica.freeze()
        master.redis.script_flush()
        with pytest.raises(DurabilityUnconfirmed):
            await client.call(QUEUE.submit([new_task()]), Replicated(1), timeout_s=0.3)
        replica.thaw()


def new_task() -> NewTask:
    task_id = new_id()
    return NewTask(task_id, encode_envelope(Envelope(1, 1, task_id, type="t", created_ms=1)), 1)


async def test_a_replica_is_away_for_both_clients(start_redis: Callable[..., RedisServer]) -> None:
    """READONLY passes with the failover, so it is no refusal."""
    replica = start_redis(replica_of=start_redis())
    await asyncio.to_thread(await_true, lambda: replica.redis.info("replication")["master_link_status"] == "up")
    settings = RedisSettings.parse(replica.url, "the test")
    async with aclosing(AsyncClient(settings)) as client:
        with pytest.raises(StoreUnavailable):
            await client.call(QUEUE.submit([new_task()]))
    with closing(SyncClient(settings)) as sync, pytest.raises(StoreUnavailable):
        await asyncio.to_thread(sync.call, QUEUE.submit([new_task()]))


async def test_a_synchronous_client_does_not_take_fsync_on_trust(start_redis: Callable[..., RedisServer]) -> None:
    """A server that cannot keep that promise is refused before anything is stored, as the other client does."""
    server = start_redis()
    client = SyncClient(RedisSettings.parse(server.url, "the test"))
    with closing(client) as sync, pytest.raises(ConfigError, match="appendonly yes"):
        await asyncio.to_thread(sync.call, QUEUE.submit([new_task()]), Fsync())
    assert server.redis.dbsize() == 0


# refusals


async def test_a_replica_costs_no_connections(start_redis: Callable[..., RedisServer], caplog: Any) -> None:
    """A worker that was sent to a replica tries again and again, with one connection at a time and few words."""
    replica = start_redis(replica_of=start_redis())
    await asyncio.to_thread(await_true, lambda: replica.redis.info("replication")["master_link_status"] == "up")
    app, _ = counting()
    with caplog.at_level(logging.INFO):
        async with working(app, replica.url) as one:

            async def tried() -> bool:
                return one.stats.redis_errors >= 6

            await eventually(tried)
            held = [each for each in replica.redis.client_list() if each["name"] == "headrace-claims"]
            assert len(held) <= 1
    said = [record for record in caplog.records if "READONLY" in record.getMessage()]
    assert 1 <= len(said) <= 2


@pytest.mark.parametrize(("denied", "said"), [("-blpop", "permission"), ("-xreadgroup", "XREADGROUP is refused")])
async def test_denied_commands_do_not_make_a_worker_spin(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture, denied: str, said: str
) -> None:
    """Without the right to wait, or to claim, it reconnects ever more slowly and says why once."""
    server = start_redis(acl=["user default on nopass ~* &* +@all", f"user shop on >w0rd ~hr:* +@all {denied}"])
    app, _ = counting()
    with caplog.at_level(logging.INFO):
        async with Desk(server.url) as desk, working(app, server.url_for("shop", "w0rd")):
            await desk.submit("count")

            async def refused() -> bool:
                return said in caplog.text

            await eventually(refused)
            before = server.redis.info("stats")["total_connections_received"]
            await asyncio.sleep(1.0)
            after = server.redis.info("stats")["total_connections_received"]
    assert after - before < 10
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) <= 4, caplog.text


async def test_fsync_without_an_aof_claims_nothing_and_says_what_to_set(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as the server can keep the promise, work goes on."""
    server = start_redis()
    app, runs = counting()
    durability = Durabilities({"default": Fsync()})
    async with Desk(server.url) as desk, working(app, server.url, durability=durability):
        task = await desk.submit("count")

        async def said() -> bool:
            return "appendonly yes" in caplog.text

        await eventually(said)
        assert runs == []
        server.redis.config_set("appendonly", "yes")
        server.redis.config_set("appendfsync", "always")
        assert (await desk.ended(task)).state is State.COMPLETED


async def test_a_drain_hands_back_though_reports_cannot_be_confirmed(
    desk: Desk, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its replica nothing is confirmed; what outlasts the grace is returned free of charge all the same."""
    monkeypatch.setattr(drain, "REPORT_S", 0.5)
    app, _ = counting()
    begun = asyncio.Event()

    @app.task()
    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    lonely = Durabilities({"default": Replicated(1)})
    slow = {"beat_s": 30, "dead_after_s": 100}  # no beat comes and returns it by reconciling
    async with working(app, redis_url, grace_s=0.05, durability=lonely, durability_timeout_s=0.05, **slow) as one:
        done, kept = await desk.submit("count"), await desk.submit("endless")
        await begun.wait()
        assert (await desk.ended(done)).state is State.COMPLETED
        assert one._claims["default"].unreported == 1
    seen = await desk.look(kept)
    assert seen.state is State.PENDING and (seen.counters.crashes, seen.counters.interruptions) == (0, 1)


# hangs


async def test_half_open_connections_are_noticed(desk: Desk, redis_server: RedisServer, redis_url: str) -> None:
    """Nobody resets them: the worker itself gives a request up that has no answer, and connects anew."""
    app, runs = counting()
    async with FaultProxy(redis_server.port) as proxy, impatient(app, proxy.url, dead_after_s=60):
        await desk.ended(await desk.submit("count"))
        proxy.forget()
        task = await desk.submit("count")
        assert (await desk.ended(task)).state is State.COMPLETED
    assert len(runs) == 2


async def test_a_claim_that_is_out_when_the_stop_comes_is_returned(desk: Desk, redis_server: RedisServer) -> None:
    """Its reply is late: what it brings is handed back, not begun, while what ran before ends within the grace."""
    app, runs = counting()
    begun, go = asyncio.Event(), asyncio.Event()

    @app.task()
    async def held() -> None:
        begun.set()
        await go.wait()

    async with LateReplies(redis_server.port) as proxy:
        async with working(app, proxy.url, concurrency=2) as one:
            first = await desk.submit("held")
            await begun.wait()
            proxy.hold()
            task = await desk.submit("count")
            await desk.until(task, lambda seen: seen.state is State.PROCESSING)
            one.stop()
            await asyncio.sleep(0)
            proxy.pass_on()
            seen = await desk.until(task, lambda seen: seen.state is not State.PROCESSING)
            go.set()
        assert (await desk.look(first)).state is State.COMPLETED
    assert runs == [] and seen.state is State.PENDING and seen.counters.interruptions == 1
    assert await desk.client.call(desk.queue.workers()) == []


class LateReplies(FaultProxy):
    """Requests pass; replies of cycles wait while they are held."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.go = asyncio.Event()
        self.go.set()

    def hold(self) -> None:
        self.go.clear()

    def pass_on(self) -> None:
        self.go.set()

    async def _hold(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        claim = data.count(b"\r\n") > 8 and b'"t":"count"' in data
        if claim and self._is_home(writer):
            await self.go.wait()


# duties


async def test_a_duty_that_breaks_stops_the_worker(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would look alive and do half of its work; whoever started it starts it again."""

    async def broken(*_: Any, **__: Any) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(worker, "reclaim_pass", broken)
    app, _ = counting()
    one = Worker(app, quick(), RedisSettings.parse(redis_url, "the test"))
    assert await asyncio.wait_for(one.run(), WAIT_S) is False
    assert "a bug" in caplog.text


async def test_hostile_workers_names_stop_nobody(desk: Desk, redis_url: str) -> None:
    """Anybody may have named a consumer; one that is no UTF-8 does not end the search for dead workers."""
    app, _ = counting()
    await desk.client.call(desk.queue.init())
    await desk.client.command("XGROUP", "CREATECONSUMER", desk.queue.keys["1"], "g", b"\xff\xfe")
    await desk.client.command("HSET", desk.queue.keys["w"], b"\xfe\xff", b"\xff")
    task = await desk.submit("count")
    assert len((await desk.client.call(desk.queue.cycle("gone:1", 1))).claims) == 1
    async with working(app, redis_url) as one:
        seen = await desk.ended(task)
        assert not one.failed
    assert seen.state is State.COMPLETED and seen.counters.crashes == 1


async def test_a_second_signal_ends_the_grace(desk: Desk, redis_url: str) -> None:
    """What runs is handed back at once."""
    app = App("t")
    begun = asyncio.Event()

    @app.task()
    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with working(app, redis_url, grace_s=600) as one:
        task = await desk.submit("endless")
        await begun.wait()
        one.stop()
        one.hurry()
    assert (await desk.look(task)).counters.interruptions == 1


async def test_one_slot_serves_two_queues_without_waiting_for_a_look(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that one queue leaves free is offered to the others, and a queue with a backlog does not keep it."""
    from headrace.runtime import claims

    monkeypatch.setattr(claims, "LOOK_S", 3600.0)
    app = App("t")

    @app.task()
    async def note() -> None: ...

    async with Desk(redis_url, "orders") as orders, Desk(redis_url, "mails") as mails:
        for desk in (orders, mails):
            await desk.submit("note")
        backlog = [await orders.submit("note") for _ in range(30)]
        async with working(
            app, redis_url, queues=shares("orders", "mails"), concurrency=1, beat_s=30, dead_after_s=100
        ):
            for desk in (mails, orders, mails):
                assert (await desk.ended(await desk.submit("note"))).state is State.COMPLETED
            for task in backlog:
                await orders.ended(task)


# promotions


class Slow(AsyncClient):
    """A client whose promotions the test answers: (promoted, next due ms)."""

    def __init__(self) -> None:
        super().__init__(RedisSettings())
        self.asked: list[asyncio.Future[Any]] = []

    async def call(self, call: Any, *_: Any, **__: Any) -> Any:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


async def until(good: Callable[[], bool]) -> None:
    async def look() -> bool:
        return good()

    await eventually(look)


async def test_one_promotion_at_a_time_and_none_forgotten() -> None:
    """While one is out, due times that are told do not start others; the earliest of them is planned afterwards."""
    client, tasks = Slow(), set[asyncio.Task[None]]()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.add(asyncio.create_task(work))

    promotions = Promotions(client, spawn)
    promotions.plan(QUEUE, 0)
    await until(lambda: len(client.asked) == 1)
    for _ in range(50):
        promotions.plan(QUEUE, promotions.now_ms() + 100)
        await asyncio.sleep(0)
    assert len(client.asked) == 1
    client.asked[0].set_result((1, promotions.now_ms() + 3_600_000))
    await until(lambda: len(client.asked) == 2)
    client.asked[1].set_result((1, None))
    promotions.close()
    await asyncio.gather(*tasks)


async def test_a_clock_that_was_set_back_does_not_make_promotions_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """By our clock it is due, by Redis' it is not: they come at most every AGAIN_S until a beat tells the time."""
    monkeypatch.setattr(due, "AGAIN_S", 3600.0)
    client, tasks = Slow(), set[asyncio.Task[None]]()
    promotions = Promotions(client, lambda work: tasks.add(asyncio.create_task(work)))
    promotions.plan(QUEUE, 1)
    await until(lambda: len(client.asked) == 1)
    client.asked[0].set_result((0, 1))
    await asyncio.gather(*tasks)
    for _ in range(100):
        promotions.plan(QUEUE, 1)
        await asyncio.sleep(0)
    assert len(client.asked) == 1
    promotions.close()


async def test_a_beat_that_waited_for_the_loop_does_not_delay_promotions() -> None:
    """Its time is half a second old when it is read: the clock is not put back for that, but it is for an hour."""
    promotions = Promotions(Slow(), lambda work: None)
    now = promotions.now_ms()
    promotions.learn(now)
    promotions.learn(promotions.now_ms() - 500)
    assert promotions.now_ms() - now >= -10
    promotions.learn(promotions.now_ms() - 3_600_000)
    assert promotions.now_ms() - now < -3_000_000


# the process


HANDLERS = """
import asyncio, sys, time
from headrace import App

app = App("t")

@app.task()
async def coroutine() -> None:
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue

@app.task()
async def pool() -> None:
    print("begun", flush=True)
    await asyncio.to_thread(time.sleep, 3600)

@app.task()
def thread() -> None:
    print("begun", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("kind", ["coroutine", "pool", "thread"])
async def test_the_process_ends_whatever_its_handlers_do(desk: Desk, redis_url: str, tmp_path: Path, kind: str) -> None:
    """SIGTERM: handed back, signed off, exit code 0, although the handler goes on for an hour."""
    (tmp_path / "stubborn_app.py").write_text(HANDLERS)
    environ = {**os.environ, "HEADRACE_URL": redis_url, "HEADRACE_GRACE_S": "0.1", "HEADRACE_METRICS_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace_cli", "worker", "--app", "stubborn_app",
        cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        task = await desk.submit(kind)
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readuntil(b"begun"), WAIT_S)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    seen = await desk.look(task)
    assert seen.state is State.PENDING and seen.counters.interruptions == 1


async def test_a_worker_is_ready_from_its_first_connection_until_it_stops(desk: Desk, redis_url: str) -> None:
    """Before, and while it drains, it takes no tasks; it is alive all the time."""
    app, _ = counting()
    async with working(app, redis_url) as one:
        before = one.health()
        await desk.ended(await desk.submit("count"))
        during = one.health()
        one.stop()
        after = one.health()
    assert [each.ready for each in (before, during, after)] == [False, True, False]
    assert all(each.alive for each in (before, during, after))
