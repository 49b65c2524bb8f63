"""Idempotency keys over failures of Redis: the secret that makes their ids lasts as long as the tasks do."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from api_kit import EMAIL, Api, running
from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace import App
from headrace.broker.keys import NamespaceKeys, QueueKeys
from headrace.connections import Connections
from redis_server import RedisServer, await_true
from worker_harness import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

REPLICATED: dict[str, Any] = {"durability": "replicated:1", "durability_timeout_s": 0.3}
SECRET = NamespaceKeys("default")["secret"]


def follows(replica: RedisServer) -> bool:
    return bool(replica.redis.info("replication")["master_link_status"] == "up")


async def cut_in_two(start_redis: StartRedis) -> tuple[RedisServer, RedisServer]:
    """A master that has lost its replica, and that replica, which is a master too and has one of its own."""
    master = start_redis()
    heir = start_redis(replica_of=master)
    await asyncio.to_thread(await_true, partial(follows, heir))
    heir.redis.replicaof("NO", "ONE")
    second = start_redis(replica_of=heir)
    await asyncio.to_thread(await_true, partial(follows, second))
    return master, heir


def lead_to(proxy: FaultProxy, server: RedisServer) -> None:
    """The failover, as clients see it."""
    proxy.target = server.port
    proxy.reset()


async def accepted(api: Api) -> str:
    """The id of the task under the key, asked for until it is there."""

    async def ask() -> str | None:
        answer = await api.submit(EMAIL, Idempotency_Key="k")
        return str(answer.json["task_id"]) if answer.status == 201 else None

    return str(await eventually(ask))


def live_in(server: RedisServer) -> int:
    return int(server.redis.hlen(QueueKeys("default", "default")["loc"]))


async def test_an_api_that_outlives_a_failover_makes_the_ids_of_the_new_master(start_redis: StartRedis) -> None:
    """It read a secret that no replica had; on the new master another API made another one."""
    master, heir = await cut_in_two(start_redis)
    async with FaultProxy(master.port) as proxy, running(proxy.url, **REPLICATED) as one:
        answer = await one.submit(EMAIL, Idempotency_Key="k")
        assert (answer.status, answer.code) == (503, "durability_unconfirmed")
        lead_to(proxy, heir)
        async with running(proxy.url, **REPLICATED) as two:
            ids = [await accepted(api) for api in (two, one)]
    assert ids[0] == ids[1] and live_in(heir) == 1


async def test_no_task_has_an_id_of_a_secret_that_may_be_lost(start_redis: StartRedis) -> None:
    """Such a task could outlive it, by a connection that leads to another master already."""
    master, _ = await cut_in_two(start_redis)
    async with running(master.url, **REPLICATED) as api:
        for _ in range(2):
            assert (await api.submit(EMAIL, Idempotency_Key="k")).code == "durability_unconfirmed"
        assert live_in(master) == 0
        replica = start_redis(replica_of=master)
        await asyncio.to_thread(await_true, partial(follows, replica))
        await accepted(api)
        assert live_in(master) == 1


async def test_redis_that_comes_back_empty_gets_the_same_secret_again(start_redis: StartRedis) -> None:
    """So keys keep their meaning; and whoever made another one first is followed."""
    server = start_redis()
    async with running(server.url) as one:
        first = await accepted(one)
        await asyncio.to_thread(server.restart)
        assert await accepted(one) == first
        await asyncio.to_thread(server.restart)
        async with running(server.url) as two:
            ids = [await accepted(api) for api in (two, one)]
    assert ids[0] == ids[1] and live_in(server) == 1


async def test_the_library_names_no_task_by_a_secret_that_may_be_lost(start_redis: StartRedis) -> None:
    """A submission that goes on through the failover is the same task as one that comes after it."""
    master, heir = await cut_in_two(start_redis)
    environ = {"HEADRACE_DURABILITY": "replicated:1", "HEADRACE_DURABILITY_TIMEOUT_S": "0.2"}
    async with FaultProxy(master.port) as proxy:
        apps = [App("t"), App("t")]
        for app in apps:
            app._connections = Connections(proxy.url, None, environ)

        def pay_by(app: App[None]) -> asyncio.Task[str]:
            @app.task()
            async def pay() -> None: ...

            async def submit() -> str:
                return (await pay.using(key="k").aenqueue()).id

            return asyncio.create_task(submit())

        async def unconfirmed() -> bool:
            waited = master.redis.info("commandstats").get("cmdstat_wait", {"calls": 0})
            return bool(master.redis.exists(SECRET)) and waited["calls"] > 1

        first = pay_by(apps[0])
        await eventually(unconfirmed)
        lead_to(proxy, heir)
        assert await first == await pay_by(apps[1])
        assert live_in(heir) == 1
        for app in apps:
            await app.aclose()


async def test_a_new_api_lists_at_full_memory(start_redis: StartRedis) -> None:
    """Cursors of lists are made with the secret, too: it is read, and even made, when nothing else fits in."""
    server = start_redis()
    async with running(server.url) as one:
        await one.submitted()
    server.redis.config_set("maxmemory", "1")
    async with running(server.url) as api:
        assert (await api.get("/api/v1/tasks")).status == 200
        assert (await api.submit()).code == "store_full"
