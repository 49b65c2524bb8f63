"""Many submissions under idempotency keys, before the secret behind them was confirmed or while it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from api_kit import EMAIL, running
from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace import App
from headrace.broker.keys import NamespaceKeys, QueueKeys
from headrace.connections import Connections
from headrace.redis_settings import RedisSettings
from headrace_api.idempotency import Keys
from headrace_api.store import Store
from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer

SECRET = NamespaceKeys("default")["secret"]
MANY = 100
FSYNC: dict[str, Any] = {"durability": "fsync", "durability_timeout_s": 3.0}
"""Redis' log goes to the disk once a second, so a confirmation takes about that long."""


@pytest.fixture
def slow_disk(start_redis: StartRedis, redis_binary: RedisBinary) -> RedisServer:
    """Confirms as slowly as Redis does by default; 7.0 has no WAITAOF and has to answer after the write."""
    return start_redis(appendfsync="everysec" if redis_binary.version >= (7, 2) else "always")


def secrets_asked(server: RedisServer) -> int:
    """How often a secret was written or proposed."""
    return int(server.redis.info("commandstats")["cmdstat_set"]["calls"])


def live_in(server: RedisServer) -> int:
    return int(server.redis.hlen(QueueKeys("default", "default")["loc"]))


async def test_first_submissions_of_an_api_share_a_confirmation(slow_disk: RedisServer) -> None:
    """Each by itself would wait for the disk in turn, until the deadlines close the connections for all."""
    async with running(slow_disk.url, **FSYNC) as api:
        answers = await asyncio.gather(*(api.submit(EMAIL, Idempotency_Key=f"k{n}") for n in range(MANY)))
    assert {answer.status for answer in answers} == {201}
    assert secrets_asked(slow_disk) <= 4
    assert live_in(slow_disk) == MANY


async def test_the_tasks_of_a_partial_batch_share_a_confirmation(slow_disk: RedisServer) -> None:
    """Each of them is stored by itself."""
    async with running(slow_disk.url, **FSYNC) as api:
        batch = {"tasks": [EMAIL] * MANY}
        answer = await api.ask("POST", "/api/v1/tasks:batch?partial=true", json=batch, headers={"Idempotency-Key": "k"})
    assert (answer.status, answer.json["failed"], answer.json["count"]) == (207, 0, MANY)
    assert secrets_asked(slow_disk) <= 4


def app_at(url: str, **settings: Any) -> App[None]:
    app = App("t")
    environ = {f"HEADRACE_{name.upper()}": str(value) for name, value in settings.items()}
    app._connections = Connections(url, None, environ)
    return app


async def test_first_submissions_of_a_loop_share_a_confirmation(slow_disk: RedisServer) -> None:
    """They have one connection, where each would wait behind all others."""
    app = app_at(slow_disk.url, **FSYNC)

    @app.task()
    async def pay() -> None: ...

    async with app:
        handles = await asyncio.gather(*(pay.using(key=f"k{n}").aenqueue() for n in range(MANY)))
    assert len({handle.id for handle in handles}) == live_in(slow_disk) == MANY
    assert secrets_asked(slow_disk) <= 2


async def test_no_task_is_stored_under_the_id_of_a_secret_that_is_another_now(
    start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between naming a task and storing it the API came to another Redis: its repetition would be a second task."""
    server, confirm = start_redis(), Keys.confirm

    async def after_a_failover(keys: Keys, *args: Any) -> None:
        monkeypatch.undo()
        before = await keys._store.connection()
        server.redis.set(SECRET, b"another")
        server.redis.client_kill_filter(_type="normal", skipme=True)
        await before.wait_closed()
        await confirm(keys, *args)

    async with running(server.url) as api:
        monkeypatch.setattr(Keys, "confirm", after_a_failover)
        first = await api.submit(EMAIL, Idempotency_Key="k")
        assert (first.status, first.code, live_in(server)) == (503, "store_unavailable", 0)
        ids = [await api.submitted(EMAIL, Idempotency_Key="k") for _ in range(2)]
    assert ids[0] == ids[1] and live_in(server) == 1


def shared_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "headrace-shared"]


async def leave(call: Coroutine[Any, Any, object]) -> None:
    """Be a caller who goes once the secret is asked for."""
    task = asyncio.create_task(call)
    async with asyncio.timeout(5):
        while not shared_tasks():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert len(shared_tasks()) == 1


async def test_an_app_that_is_closed_leaves_nobody_behind_who_asks(redis_server: RedisServer, redis_url: str) -> None:
    """Also if all have left who wanted the answer."""
    async with FaultProxy(redis_server.port) as proxy:
        app = app_at(proxy.url, durability="replicated:1", durability_timeout_s=0.01)

        @app.task()
        async def pay() -> None: ...

        async with app:
            await app.connections.reach()[0].connection()
            proxy.half_open()
            await leave(pay.using(key="k").aenqueue())
        assert shared_tasks() == []


async def test_an_api_that_is_closed_leaves_nobody_behind_who_asks(redis_server: RedisServer, redis_url: str) -> None:
    """Before its connections are closed what is out on them ends."""
    async with FaultProxy(redis_server.port) as proxy:
        store = Store(RedisSettings.parse(proxy.url, "the test"), deadline_s=0.3)
        keys = Keys(store, "default")
        await store.connection()
        proxy.half_open()
        await leave(keys.secret())
        await keys.aclose()
        assert shared_tasks() == []
        await store.aclose()
