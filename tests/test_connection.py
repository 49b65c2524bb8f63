"""Both clients on every way in to Redis, and what they say when it is not as it should be."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import replace

import pytest

from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connection import RedisError
from headrace.broker.refusals import remedied
from headrace.broker.sync_client import SyncClient
from headrace.errors import ConfigError, DurabilityUnconfirmed, StoreFull, StoreTimeout, StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.settings import Fsync, Replicated
from headrace.task import Envelope, encode_envelope, new_id
from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer, SentinelSet, await_true

QUEUE = Queue("default")


def settings(url: str, **changes: float) -> RedisSettings:
    return replace(RedisSettings.parse(url, "the test"), **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def client(url: str, **changes: float) -> AsyncIterator[AsyncClient]:
    async with aclosing(AsyncClient(settings(url, **changes))) as one:
        yield one


def new_task() -> NewTask:
    task_id = new_id()
    return NewTask(task_id, encode_envelope(Envelope(1, 1, task_id, type="t", created_ms=1)), 1)


@pytest.fixture(params=["plain", "password", "acl", "tls", "mutual tls", "unix"])
def way_in(request: pytest.FixtureRequest, start_redis: StartRedis) -> str:
    """The URL of a server that is entered in one of the supported ways."""
    match request.param:
        case "password":
            return start_redis(password="s3cret/@:").url
        case "acl":
            server = start_redis(acl=["user default off", "user shop on >w0rd ~hr:* +@all"])
            return server.url_for("shop", "w0rd")
        case "tls":
            return start_redis(tls="server").url
        case "mutual tls":
            return start_redis(tls="mutual").url
        case "unix":
            return start_redis().unix_url
        case _:
            return start_redis().url


async def test_every_way_in(way_in: str) -> None:
    """Plain, password, ACL user, TLS with and without a client certificate, Unix socket: both clients get in."""
    async with client(way_in) as one:
        connection = await one.connection()
        assert len(connection.run_id) == 40 and connection.version >= (7, 0, 0)
        assert (await one.call(QUEUE.submit([new_task()])))[0].status == "new"
    with closing(SyncClient(settings(way_in))) as sync:
        assert (await asyncio.to_thread(sync.call, QUEUE.submit([new_task()])))[0].status == "new"


@pytest.fixture(scope="module")
def sentinels(redis_binary: RedisBinary) -> Iterator[SentinelSet]:
    with SentinelSet(redis_binary) as group:
        yield group


async def test_sentinel_finds_the_master_and_its_successor(sentinels: SentinelSet) -> None:
    """The master that the sentinels name is used, and after a failover the new one."""
    async with client(sentinels.url) as one:
        await one.call(QUEUE.init())
        assert (await one.call(QUEUE.submit([new_task()]), Replicated(1)))[0].status == "new"
        before = sentinels.master_port()
        sentinels.master.kill()
        await asyncio.to_thread(await_true, lambda: sentinels.master_port() != before)

        async def submitted() -> bool:
            try:
                answers = await one.call(QUEUE.submit([new_task()]))
            except StoreUnavailable:
                return False
            return len(answers) == 1

        async with asyncio.timeout(20):
            while not await submitted():  # noqa: ASYNC110 - what is awaited happens in Redis
                await asyncio.sleep(0.05)
        assert (await one.call(QUEUE.depth())).live == 2
    with closing(SyncClient(settings(sentinels.url))) as sync:
        assert (await asyncio.to_thread(sync.call, QUEUE.depth())).live == 2


def master_of(sentinel: RedisServer) -> str:
    return str(sentinel.redis.info("sentinel")["master0"]["address"])


async def until_answered(ask: Callable[[], Awaitable[object]]) -> None:
    """A sentinel of a busy machine takes its master for down now and then; but no try is a long one."""
    async with asyncio.timeout(20):
        answered = False
        while not answered:
            began = time.monotonic()
            with suppress(StoreUnavailable):
                answered = bool(await ask())
            assert time.monotonic() - began < 3


async def test_silent_sentinels_keep_nobody_away(sentinels: SentinelSet) -> None:
    """The first one listed is frozen and the second one dead: both clients get in, within what they wait anyhow."""
    frozen, dead, _ = sentinels.sentinels
    # After the failover of the test before: one that is left alone learns of it no more.
    await asyncio.to_thread(await_true, lambda: len({master_of(each) for each in sentinels.sentinels}) == 1)
    frozen.freeze()
    dead.kill()
    try:
        async with client(sentinels.url) as one:
            await until_answered(lambda: one.command("PING"))
        with closing(SyncClient(settings(sentinels.url))) as sync:
            await until_answered(lambda: asyncio.to_thread(sync.call, QUEUE.depth()))
    finally:
        frozen.ensure()
        dead.ensure()


async def test_sentinels_that_know_no_master_are_named(sentinels: SentinelSet) -> None:
    """Each with what it says, or that it says nothing."""
    frozen, dead, lives = sentinels.sentinels
    frozen.freeze()
    dead.kill()
    try:
        async with client(sentinels.url.replace("/mymaster/", "/other/")) as one:
            with pytest.raises(StoreUnavailable) as raised:
                await one.command("PING")
    finally:
        frozen.ensure()
        dead.ensure()
    said = raised.value.cause
    assert said.startswith("no sentinel names a master: ")
    assert f"{frozen.address} (no answer within 0.5 s)" in said
    assert f"{dead.address} (Connection refused)" in said
    assert f"{lives.address} (" in said and "No such master" in said


async def test_nobody_there() -> None:
    """A refused connection names the address and where it came from."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{free.getsockname()[1]}/0"
        async with client(url) as one:
            with pytest.raises(StoreUnavailable, match="from the test"):
                await one.call(QUEUE.depth())


async def test_wrong_password(start_redis: StartRedis) -> None:
    """A refused login is not "away": waiting does not mend it."""
    server = start_redis(password="right")
    async with client(server.url.replace("right", "wrong")) as one:
        with pytest.raises(RedisError, match="WRONGPASS"):
            await one.call(QUEUE.depth())
    wrong = SyncClient(settings(server.url.replace("right", "wrong")))
    with closing(wrong) as sync, pytest.raises(RedisError, match="refused the login"):
        await asyncio.to_thread(sync.call, QUEUE.depth())


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("redis://{}/0", "It wants a password: write it into HEADRACE_REDIS_PASSWORD"),
        ("redis://:wrong@{}/0", "Correct the user or the password in the address"),
        ("redis://:right@{}/9999", "correct the number at the end of the address"),
    ],
)
async def test_a_refusal_says_what_to_do(start_redis: StartRedis, address: str, remedy: str) -> None:
    wanted = address.format(start_redis(password="right").address)
    with closing(SyncClient(settings(wanted))) as sync, pytest.raises(RedisError, match=remedy):
        await asyncio.to_thread(sync.call, QUEUE.depth())
    async with client(wanted) as one:
        with pytest.raises(RedisError, match=remedy):
            await one.call(QUEUE.depth())


def test_a_refusal_as_redis_py_7_words_it() -> None:
    """It says no HELLO, to which Redis answers otherwise."""
    assert "HEADRACE_REDIS_PASSWORD" in remedied("Authentication required.")


async def test_a_password_that_redis_does_not_have_is_told_as_one_too_many(redis_url: str) -> None:
    async with client(redis_url.replace("://", "://:needless@")) as one:
        with pytest.raises(RedisError, match="It has no password: take yours out of the address"):
            await one.call(QUEUE.depth())


async def test_a_frozen_server_is_a_timeout(start_redis: StartRedis) -> None:
    """No answer within the limit is StoreTimeout; the connection is not used again, so no answer is mixed up."""
    server = start_redis()
    async with client(server.url, timeout_s=0.3, connect_timeout_s=0.3) as one:
        await one.call(QUEUE.init())
        server.freeze()
        with pytest.raises(StoreTimeout):
            await one.call(QUEUE.depth())
        server.thaw()
        assert (await one.call(QUEUE.depth())).live == 0


async def test_a_frozen_server_is_not_suspected_of_tls(start_redis: StartRedis) -> None:
    """One that wants it ends the connection; one that keeps silent may be anything."""
    server = start_redis()
    server.freeze()
    settings = replace(RedisSettings.parse(server.url, "the test"), timeout_s=0.2)
    with pytest.raises(StoreUnavailable) as caught:
        async with aclosing(AsyncClient(settings)) as client:
            await client.command("PING")
    assert "no answer within" in str(caught.value) and "perhaps" not in str(caught.value)


async def test_callers_that_leave_do_not_end_the_connecting(start_redis: StartRedis) -> None:
    """Else callers with a deadline would never get in where that takes longer: they share one try and its outcome."""
    server = start_redis()
    before = server.redis.info("stats")["total_connections_received"]
    async with client(server.url) as one:
        server.freeze()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await one.command("PING")
        server.thaw()
        assert await one.command("PING") == b"PONG"
        assert server.redis.info("stats")["total_connections_received"] == before + 1


@pytest.mark.parametrize("turns", [1, 2, 50])
async def test_closing_ends_a_connecting_that_is_out(start_redis: StartRedis, turns: int) -> None:
    """However far it is. It would open a connection that nobody closes; who waits for it hears of the end."""
    server = start_redis()
    server.freeze()
    async with client(server.url) as one:
        asked = asyncio.create_task(one.command("PING"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.aclose()
        with pytest.raises(StoreUnavailable, match="closed while connecting"):
            await asked
        assert asyncio.all_tasks() == {asyncio.current_task()}
        server.thaw()
        assert await one.command("PING") == b"PONG", "a later call opens another"


async def test_callers_with_a_bound_of_their_own_are_not_left_with_a_deaf_connection(
    redis_url: str, redis_server: RedisServer
) -> None:
    """A firewall forgot it, and each caller is cancelled before the time-out: it is closed all the same."""
    async with FaultProxy(redis_server.port) as proxy, client(proxy.url, timeout_s=0.3) as one:
        await one.command("PING")
        proxy.forget()

        async def answered() -> bool:
            try:
                async with asyncio.timeout(0.1):
                    return bool(await one.command("PING"))
            except (TimeoutError, StoreUnavailable):
                return False

        async with asyncio.timeout(20):
            while not await answered():
                pass


async def test_a_lost_script_cache_is_no_error(redis_url: str) -> None:
    """After SCRIPT FLUSH the source is sent; both clients go on."""
    async with client(redis_url) as one:
        await one.call(QUEUE.init())
        await one.command("SCRIPT", "FLUSH")
        assert (await one.call(QUEUE.depth())).live == 0
        await one.command("SCRIPT", "FLUSH")
        with closing(SyncClient(settings(redis_url))) as sync:
            assert (await asyncio.to_thread(sync.call, QUEUE.depth())).live == 0


async def test_cancelled_calls_never_mix_up_answers(redis_url: str, redis_server: RedisServer) -> None:
    """A storm of cancelled calls behind a proxy: each of the others gets its own answer."""
    async with FaultProxy(redis_server.port) as proxy, client(proxy.url) as one:

        async def ask(n: int) -> None:
            assert await one.command("ECHO", f"{n}") == b"%d" % n

        tasks = [asyncio.create_task(ask(n)) for n in range(400)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]
    assert wrong == [] and sum(r is None for r in results) >= 200


async def test_full_memory_refuses_submissions_only(start_redis: StartRedis) -> None:
    """At maxmemory a submission is StoreFull in both clients, while claims go on."""
    server = start_redis()
    async with client(server.url) as one:
        await one.call(QUEUE.init())
        await one.call(QUEUE.submit([new_task()]))
        await one.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFull):
            await one.call(QUEUE.submit([new_task()]))
        with closing(SyncClient(settings(server.url))) as sync, pytest.raises(StoreFull):
            await asyncio.to_thread(sync.call, QUEUE.submit([new_task()]))
        assert len((await one.call(QUEUE.cycle("w:1", 1))).claims) == 1


async def test_fsync_is_confirmed_or_refused_at_the_start(start_redis: StartRedis) -> None:
    """With an AOF a submission is confirmed; without one (or, on 7.0, with everysec) ConfigError says what to set."""
    kept = start_redis(appendfsync="always")
    async with client(kept.url) as one:
        assert (await one.call(QUEUE.submit([new_task()], touch=True), Fsync()))[0].status == "new"
    async with client(start_redis().url) as one:
        with pytest.raises(ConfigError, match="appendonly yes"):
            await one.call(QUEUE.submit([new_task()], touch=True), Fsync())
    if kept.version < (7, 2, 0):
        async with client(start_redis(appendfsync="everysec").url) as one:
            with pytest.raises(ConfigError, match="appendfsync always"):
                await one.call(QUEUE.submit([new_task()], touch=True), Fsync())


async def test_replicated_waits_for_the_replica(start_redis: StartRedis) -> None:
    """With the replica frozen a submission, and its repetition, is unconfirmed; thawed, the repetition is confirmed."""
    master = start_redis()
    replica = start_redis(replica_of=master)
    await asyncio.to_thread(await_true, lambda: replica.redis.info("replication")["master_link_status"] == "up")
    task = new_task()
    async with client(master.url) as one:
        replica.freeze()
        for _ in range(2):
            with pytest.raises(DurabilityUnconfirmed):
                await one.call(QUEUE.submit([task], touch=True), Replicated(1), timeout_s=0.3)
        replica.thaw()
        answer = await one.call(QUEUE.submit([task], touch=True), Replicated(1), timeout_s=5)
        assert answer[0].status == "known"
