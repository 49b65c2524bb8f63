"""Failure modes of a whole system of processes: killed APIs and workers, frozen workers, and all at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from chaos import ledger, look
from chaos.clients import post, verdict_on
from chaos.rounds import dice, rounds, tell
from chaos.soak import Options, soak
from chaos.system import DEAD_AFTER_S, System
from conftest import StartRedis
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.task import State
from headrace_cli.redis_binary import RedisBinary
from worker_harness import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


# F10


async def test_a_frozen_worker_that_comes_back_completes_nothing(start_redis: StartRedis, tmp_path: Path) -> None:
    """SIGSTOP for three times its time to live: another finishes its tasks; what it says later is stale."""
    redis = start_redis(appendfsync="always")
    async with System(redis.url, tmp_path, workers=1) as system, aiohttp.ClientSession() as session:
        body = {"type": "coroutine", "payload": {"ms": 1_500}}
        acked = [await post(session, system, number, body) for number in range(5)]

        async def all_run() -> bool:
            return len(ledger.read(system.ledger).begun) == 5

        await eventually(all_run)
        frozen = system.workers[0]
        frozen.freeze()
        other = System(redis.url, tmp_path, apis=0, workers=2).workers[1]
        other.start()
        try:
            client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
            assert await look.drained(client, 30)
            await asyncio.sleep(DEAD_AFTER_S / 3)
            frozen.thaw()

            async def it_reported() -> bool:
                lost = any(words in frozen.log.read_text() for words in ("no longer ours", "came too late"))
                return lost or len(ledger.read(system.ledger).ended) > 5

            await eventually(it_reported)
            ends = await look.ends_of(client, acked)
            await client.aclose()
            verdict = await verdict_on(system, redis, acked)
        finally:
            other.kill()
    assert verdict.wrong == [] and verdict.reruns == 5
    assert [(end.state, end.crashes, end.result and end.result[1]) for end in ends.values()] == [
        (State.COMPLETED, 1, 2)
    ] * 5


# F19


async def test_a_rolling_restart_charges_nothing_and_repeats_nothing(start_redis: StartRedis, tmp_path: Path) -> None:
    """All workers are stopped and started in turn under load; tasks are shorter than the grace."""
    redis = start_redis()
    async with System(redis.url, tmp_path, workers=2) as system, aiohttp.ClientSession() as session:
        acked, enough = list[str](), asyncio.Event()
        body = {"type": "coroutine", "payload": {"ms": 100}}

        async def feed() -> None:
            while not enough.is_set():
                acked.append(await post(session, system, len(acked), body))
                await asyncio.sleep(0.01)

        feeding = asyncio.create_task(feed())
        for number in range(rounds(2, 60)):
            program = system.workers[number % 2]
            await system.works(program)
            assert await asyncio.to_thread(program.stop) == 0
            program.start()
        enough.set()
        await feeding
        verdict = await verdict_on(system, redis, acked)
        client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
        ends = await look.ends_of(client, acked)
        await client.aclose()
    assert verdict.wrong == [] and verdict.reruns == 0
    assert {(end.failures, end.crashes) for end in ends.values()} == {(0, 0)}


# H1


async def test_a_killed_api_neither_loses_nor_doubles_a_submission(start_redis: StartRedis, tmp_path: Path) -> None:
    """kill -9 of the API again and again while clients repeat under their keys: as many tasks as keys."""
    redis = start_redis()
    rng, count = dice("killed api"), rounds(300, 5_000)
    async with System(redis.url, tmp_path, workers=1) as system, aiohttp.ClientSession() as session:
        numbers = iter(range(count))
        acked: list[str] = []

        async def client() -> None:
            for number in numbers:
                task_id = await post(session, system, number, {"type": "coroutine", "payload": {}})
                acked.append(task_id)

        clients = [asyncio.create_task(client()) for _ in range(8)]
        kills = 0
        while not all(each.done() for each in clients):
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            await asyncio.to_thread(system.apis[0].kill)
            kills += 1
            system.apis[0].start()
            await system.ready(0)
        await asyncio.gather(*clients)
        verdict = await verdict_on(system, redis, acked)
        client_ = AsyncClient(RedisSettings.parse(redis.url, "the test"))
        completed = await look.completions(client_)
        await client_.aclose()
    assert len(set(acked)) == len(acked) == completed == count
    assert verdict.wrong == [] and kills > 0
    tell(f"{kills} kills")


# all at once


@pytest.mark.timeout(300)
async def test_a_short_soak_finds_nothing(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """The soak of `make soak`, with a fault every three seconds and every fault but the longest ones."""
    seed = dice("soak").randrange(10**6)
    options = Options(seed, minutes=rounds(1, 3) / 3, rate=20, every_s=(2.0, 4.0))
    report = await soak(options, redis_binary, tmp_path)
    tell(report.text())
    assert report.wrong == []
    assert len(report.heard.acked) > 100 and len(report.done) >= 3
