"""A connection whose answers are wrong, late or missing, and clients of a server that cannot keep its promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

import pytest
from msgspec import structs

from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connection import Connection
from headrace.broker.sync_client import SyncClient
from headrace.errors import ConfigError, DurabilityUnconfirmed, StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.settings import Fsync, Replicated
from headrace.task import Envelope, encode_envelope, new_id
from redis_server import RedisServer, await_true
from worker_harness import WAIT_S

QUEUE = Queue("default")


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
