"""Sentinels that are wrong, and masters that answer no more or are none any longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from conftest import StartRedis
from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connecting import connect
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.task import Envelope, encode_envelope, new_id
from redis_server import RedisServer

QUEUE = Queue("default")


@dataclass
class Sentinel:
    """Says what it is told to say, to whoever asks."""

    says: bytes = b"*-1\r\n"
    port: int = 0

    def names(self, server: RedisServer) -> None:
        facts = ["ip", "127.0.0.1", "port", str(server.port), "flags", "master"]
        self.says = b"*6\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(each), each.encode()) for each in facts)

    def settings(self, user: str = "", **changes: Any) -> RedisSettings:
        url = f"redis+sentinel://{user}127.0.0.1:{self.port}/mymaster/0"
        return replace(RedisSettings.parse(url, "the test"), **changes)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"mymaster\r\n")
            writer.write(self.says)
            await reader.read()
        writer.close()


@pytest.fixture
async def sentinel() -> AsyncIterator[Sentinel]:
    one = Sentinel()
    server = await asyncio.start_server(one.answer, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


@asynccontextmanager
async def client(settings: RedisSettings) -> AsyncIterator[AsyncClient]:
    async with aclosing(AsyncClient(settings)) as one:
        yield one


def new_task() -> NewTask:
    task_id = new_id()
    return NewTask(task_id, encode_envelope(Envelope(1, 1, task_id, type="t", created_ms=1)), 1)


@pytest.mark.parametrize(
    "says",
    [
        b"$-1\r\n",
        b":1\r\n",
        b"*1\r\n$2\r\nip\r\n",
        b"*2\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n",
        b"*6\r\n$2\r\nip\r\n$1\r\n\xff\r\n$4\r\nport\r\n$1\r\n1\r\n$5\r\nflags\r\n$6\r\nmaster\r\n",
        b"*6\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$5\r\n99999\r\n$5\r\nflags\r\n$6\r\nmaster\r\n",
        b"*6\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$1\r\n1\r\n$5\r\nflags\r\n:1\r\n",
    ],
)
async def test_what_no_sentinel_would_say_is_no_master(sentinel: Sentinel, says: bytes) -> None:
    """Whatever stands at that address: it is named, as one that names no master."""
    sentinel.says = says
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{sentinel.port} .its answer is none of a sentinel"):
        await connect(sentinel.settings())


async def test_a_replica_is_no_master_whoever_names_it(sentinel: Sentinel, start_redis: StartRedis) -> None:
    """A sentinel that was cut off names the old master, which follows the new one by now."""
    master = start_redis()
    sentinel.names(start_redis(replica_of=master))
    with pytest.raises(StoreUnavailable, match="a replica"):
        await connect(sentinel.settings())
    sentinel.names(master)
    (await connect(sentinel.settings())).close()


async def test_who_may_not_ask_for_the_role_gets_in(sentinel: Sentinel, start_redis: StartRedis) -> None:
    """Managed servers refuse INFO to some."""
    sentinel.names(start_redis(acl=["user default off", "user shop on >w0rd ~hr:* +@all -info"]))
    connection = await connect(sentinel.settings("shop:w0rd@"))
    assert connection.run_id == ""
    connection.close()


async def test_a_demoted_master_is_left_for_the_new_one(sentinel: Sentinel, start_redis: StartRedis) -> None:
    """It refuses one write; the next one asks the sentinels again."""
    old, new = start_redis(), start_redis()
    sentinel.names(old)
    async with client(sentinel.settings()) as one:
        await one.call(QUEUE.init())
        old.redis.replicaof("127.0.0.1", new.port)
        sentinel.names(new)
        with pytest.raises(StoreUnavailable):  # it says READONLY, or ends all connections to load what the new one has
            await one.call(QUEUE.submit([new_task()]))
        await one.call(QUEUE.init())
        assert (await one.call(QUEUE.submit([new_task()])))[0].status == "new"
    assert new.redis.dbsize() > 0


async def test_a_hanging_master_holds_nobody_up_longer_than_connecting_may_take(
    sentinel: Sentinel, start_redis: StartRedis
) -> None:
    """The kernel of a frozen one still accepts; the new one is there long before a command's own time is up."""
    old, new = start_redis(), start_redis()
    sentinel.names(old)
    old.freeze()
    async with client(sentinel.settings(connect_timeout_s=0.3, timeout_s=600)) as one:
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.3 s"):
            async with asyncio.timeout(60):
                await one.command("PING")
        sentinel.names(new)
        assert await one.command("PING") == b"PONG"


async def test_who_waits_for_a_failed_try_begins_none_after_the_closing(sentinel: Sentinel) -> None:
    """Nobody would close what that opens."""
    one = AsyncClient(sentinel.settings())
    waiting = [asyncio.create_task(one.connection()) for _ in range(2)]
    await asyncio.sleep(0)
    (connecting,) = (task for task in asyncio.all_tasks() if task.get_name() == "headrace-connect")

    def close_now(_: object) -> None:
        with pytest.raises(StopIteration):  # nothing is left to wait for
            one.aclose().send(None)

    connecting.add_done_callback(close_now)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all("closed while connecting" in str(each) for each in results)
    with pytest.raises(StoreUnavailable, match="no sentinel names a master"):
        await one.command("PING")
    await one.aclose()
