"""One task that ends its worker each time, among a thousand on ten slots: it alone comes to the dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from chaos import ledger, look, memory
from chaos.checker import Facts, check
from chaos.rounds import dice, rounds, tell
from chaos.system import Program, System
from conftest import StartRedis
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.task import State
from headrace_cli.ports import free_port

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SLOTS: Final = 10
PROBE_S: Final = 1.0
FAILURES: Final = 3
"""Probes in a row without an answer after which a kubelet kills."""


@asynccontextmanager
async def supervised(worker: Program, port: int) -> AsyncIterator[list[str]]:
    """As a kubelet does: who has ended is started again, who does not answer its probe is killed. Yields why."""
    why: list[str] = []

    async def watch(session: aiohttp.ClientSession) -> None:
        silent = 0
        while True:
            await asyncio.sleep(PROBE_S / 4)
            code = worker.ended_by_itself
            silent = 0 if await _lives(session, port) else silent + 1
            answered.set() if not silent else None
            if code is None and not (silent >= FAILURES and answered.is_set()):
                continue
            why.append(f"exit code {code}" if code is not None else "silent")
            await asyncio.to_thread(worker.kill)
            answered.clear()
            worker.start()

    answered = asyncio.Event()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PROBE_S)) as session:
        watching = asyncio.create_task(watch(session))
        try:
            yield why
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _lives(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/livez") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def submit(session: aiohttp.ClientSession, url: str, bodies: list[dict[str, Any]]) -> list[str]:
    ids: list[str] = []
    for at in range(0, len(bodies), 500):
        async with session.post(f"{url}/api/v1/tasks:batch", json={"tasks": bodies[at : at + 500]}) as answer:
            assert answer.status == 201, await answer.text()
            ids += [task["task_id"] for task in (await answer.json())["tasks"]]
    return ids


@pytest.mark.parametrize("how", ["kill -9", "segfault", "out of memory", "blocked loop"])
@pytest.mark.timeout(600)
async def test_one_pill_among_a_thousand(start_redis: StartRedis, tmp_path: Path, how: str) -> None:
    redis, port, count = start_redis(), free_port(), rounds(200, 1_000)
    place = dice(how).randrange(count)
    bodies: list[dict[str, Any]] = [{"type": "coroutine", "payload": {"ms": 20}} for _ in range(count)]
    bodies.insert(place, {"type": "pill", "payload": {"how": how}})
    with memory.bounded() if how == "out of memory" else nullcontext(tmp_path) as group:
        if group is None:
            pytest.skip("this user may make no control group, by which the kernel bounds memory")
        own: dict[str, Any] = {
            "HEADRACE_METRICS_PORT": str(port),
            "HEADRACE_CONCURRENCY": str(SLOTS),
            "HEADRACE_BACKOFF_CAP_S": "0.2",
            memory.VARIABLE: str(group),
        }
        async with System(redis.url, tmp_path, workers=1, **own) as system, aiohttp.ClientSession() as session:
            ids = await submit(session, system.urls[0], bodies)
            client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
            async with supervised(system.workers[0], port) as why:
                assert await look.drained(client, 300), why
            ends = await look.ends_of(client, ids)
            completions = await look.completions(client)
            await client.aclose()
    tell(f"the worker ended {len(why)} times, {sum(end.crashes for end in ends.values()) - 3} neighbours ran again")
    poison = ends.pop(ids[place])
    assert (poison.state, poison.crashes, poison.failures) == (State.FAILED, 3, 0), why
    assert {end.state for end in ends.values()} == {State.COMPLETED}
    assert max(end.crashes for end in ends.values()) <= 1, "a suspect is run alone, so nobody crashes twice with it"
    assert sum(end.crashes for end in ends.values()) < SLOTS, "only who ran beside it at its first crash"
    facts = Facts(ids, (), ends | {ids[place]: poison}, ledger.read(system.ledger), completions)
    assert check(facts).wrong == []
