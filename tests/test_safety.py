"""A Redis that may lose tasks by its settings: told in readiness, in metrics and in the log, and nothing is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from api_kit import running
from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace import App
from headrace.broker import safety
from headrace.broker.client import AsyncClient
from headrace.broker.connection import RedisError
from headrace.broker.safety import LOOK_S, RISKS, Safety, judge
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.settings import Durabilities
from headrace_cli.fake_redis_session import Memory
from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer
from worker_harness import Desk, eventually, working

POLICIES = ("noeviction", "allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl")


@pytest.fixture(scope="module")
def server(redis_binary: RedisBinary) -> Iterator[RedisServer]:
    with RedisServer(redis_binary) as server:
        yield server


async def said_of(url: str) -> set[str]:
    client = AsyncClient(RedisSettings.parse(url, "the test"))
    try:
        return set(await Safety(client.command).look())
    finally:
        await client.aclose()


@pytest.mark.parametrize("file", ["yes", "no"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_each_policy_with_and_without_a_file(server: RedisServer, policy: str, file: str) -> None:
    server.redis.config_set("maxmemory-policy", policy)
    server.redis.config_set("appendonly", file)
    expected = {"eviction"} if policy != "noeviction" else set()
    assert await said_of(server.url) == expected | ({"persistence"} if file == "no" else set())


def test_the_sentence_tells_what_is_lost_and_what_to_set() -> None:
    every, records = (judge(f"maxmemory_policy:{policy}\naof_enabled:1") for policy in ("allkeys-lfu", "volatile-ttl"))
    assert "maxmemory-policy allkeys-lfu" in every["eviction"] and "is lost tasks" in every["eviction"]
    assert "records of ended tasks" in records["eviction"] and "set maxmemory-policy noeviction" in records["eviction"]
    assert "set appendonly yes" in judge("maxmemory_policy:noeviction\naof_enabled:0")["persistence"]


def test_the_stand_in_of_development_is_warned_of_by_who_starts_it_only() -> None:
    memory = Memory(1)
    assert judge(memory.info("memory") + memory.info("persistence")) == {}


@pytest.mark.parametrize("info", ["", "used_memory:1", "maxmemory_policy:noeviction", "aof_enabled:1"])
def test_a_server_that_says_half_of_it_is_told(info: str) -> None:
    assert "untold" in judge(info)


class Answers:
    """What a server says to INFO, in turn."""

    def __init__(self, *said: Any) -> None:
        self._said = list(said)
        self.now = 0.0
        self.safety = Safety(self._ask, lambda: self.now)

    async def _ask(self, command: str, section: str) -> Any:
        said = self._said[0] if section == "memory" else self._said.pop(0)
        if isinstance(said, Exception):
            self._said.pop(0) if section == "memory" else None
            raise said
        return said


GOOD, BAD = b"maxmemory_policy:noeviction\r\naof_enabled:1", b"maxmemory_policy:noeviction\r\naof_enabled:0"


async def test_settings_that_change_are_seen_within_a_minute_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    answers = Answers(GOOD, BAD, BAD, GOOD)
    with caplog.at_level(logging.WARNING, safety.__name__):
        seen = []
        for _ in range(4):
            seen.append(set(await answers.safety.look()))
            assert set(await answers.safety.look()) == seen[-1], "not asked again within the minute"
            answers.now += LOOK_S
    assert seen == [set(), {"persistence"}, {"persistence"}, set()]
    assert len(caplog.messages) == 1


async def test_a_redis_that_is_away_changes_nothing_and_one_that_refuses_is_untold() -> None:
    answers = Answers(BAD, StoreUnavailable("redis", "away"), RedisError("NOPERM"))
    assert set(await answers.safety.look()) == {"persistence"}
    answers.now += LOOK_S
    assert set(await answers.safety.look()) == {"persistence"}
    assert set(await answers.safety.look()) == {"untold"}, "asked again at once, since nothing was heard"


# what processes make of it


def risk_lines(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.startswith("headrace_redis_risk{")]
    return {line.partition('"')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_the_api_is_ready_and_warns(start_redis: StartRedis) -> None:
    server = start_redis(args=["--maxmemory-policy", "allkeys-lru"])
    async with running(server.url) as api:
        answer = await api.get("/readyz")
        assert answer.status == 200 and answer.json["status"] == "ok"
        assert len(answer.json["warnings"]) == 2 and "allkeys-lru" in answer.json["warnings"][0]
        assert risk_lines((await api.get("/metrics")).text) == {"eviction": 1, "persistence": 1, "untold": 0}


async def test_a_worker_is_ready_and_warns(start_redis: StartRedis) -> None:
    server = start_redis(args=["--maxmemory-policy", "allkeys-lru"])
    async with working(App("t"), server.url) as worker, aiohttp.ClientSession() as session:
        await eventually(_up(worker))

        async def look() -> Any:
            async with session.get(f"http://127.0.0.1:{worker._server.port}/readyz") as answer:
                body = await answer.json()
                return (answer.status, body) if "warnings" in body else None

        status, body = await eventually(look)
        assert status == 200 and len(body["warnings"]) == 2
        async with session.get(f"http://127.0.0.1:{worker._server.port}/metrics") as answer:
            assert risk_lines(await answer.text()) == {"eviction": 1, "persistence": 1, "untold": 0}


async def test_a_good_redis_is_warned_of_nowhere(start_redis: StartRedis) -> None:
    server = start_redis(appendfsync="everysec")
    async with running(server.url) as api, working(App("t"), server.url) as worker:
        assert "warnings" not in (await api.get("/readyz")).json
        assert risk_lines((await api.get("/metrics")).text) == dict.fromkeys(RISKS, 0)
        await eventually(_up(worker))
        assert worker.health().warnings == ()


def _up(worker: Any) -> Any:
    async def up() -> bool:
        return bool(worker.stats.redis_up)

    return up


# a managed Redis: no CONFIG, a proxy in front


HIDDEN = ["--rename-command", "CONFIG", "", "--rename-command", "INFO", "", "--rename-command", "CLIENT", ""]


@pytest.mark.parametrize("durability", ["local", "fsync"])
async def test_a_redis_without_config_info_and_client_serves_all(start_redis: StartRedis, durability: str) -> None:
    """As managed servers are: CONFIG, INFO and CLIENT unknown, and a proxy in front that drops connections."""
    server = start_redis(appendfsync="always", args=HIDDEN)
    app = App("t")

    @app.task()
    async def work(number: int) -> int:
        return number

    if durability == "fsync" and server.version < (7, 2):
        pytest.skip("what `fsync` may promise is then not known: WAITAOF came with 7.2")
    async with (
        FaultProxy(server.port) as proxy,
        running(server.url, door=proxy.url, durability=durability) as api,
        working(app, proxy.url, durability=Durabilities.parse(durability)),
    ):
        desk = Desk(server.url)
        for number in range(6):
            answer = await api.submit({"type": "work", "payload": {"number": number}}, Idempotency_Key=f"k{number}")
            while answer.status == 503:
                await asyncio.sleep(0.02)
                answer = await api.submit({"type": "work", "payload": {"number": number}}, Idempotency_Key=f"k{number}")
            assert answer.status == 201, answer.text
            assert (await desk.ended(answer.json["task_id"])).state == "completed"
            proxy.reset()
        await desk.close()

        async def warnings() -> Any:
            return (await api.get("/readyz")).json.get("warnings")

        assert ["does not say" in each for each in await eventually(warnings)] == [True]
