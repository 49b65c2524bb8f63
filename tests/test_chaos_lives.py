"""Failure modes of worker processes among others: kill -9 again and again, a GIL that is kept, clocks a day off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from chaos import ledger, look
from chaos.clients import post, verdict_on
from chaos.rounds import dice, rounds, tell
from chaos.servers import Clock, build_shim
from chaos.system import DEAD_AFTER_S, Program, System
from conftest import StartRedis
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.task import State
from worker_harness import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SLOTS: Final = 4


def begun(system: System, count: int) -> Callable[[], Awaitable[bool]]:
    async def look_at_it() -> bool:
        return len(ledger.read(system.ledger).begun) >= count

    return look_at_it


# kill -9


async def held_by(client: AsyncClient, worker: Program) -> set[tuple[str, bytes]]:
    """Attempts that Redis has given to it and not taken back: stream and entry."""
    held = set[tuple[str, bytes]]()
    for digit in "3210rs":
        key = look.QUEUE.keys[digit]
        if not await client.command("EXISTS", key):
            continue
        rows = await client.command("XPENDING", key, "g", "-", "+", 1_000)
        held |= {(digit, entry) for entry, name, *_ in rows if name.startswith(worker.name.encode())}
    return held


@pytest.mark.timeout(900)
async def test_kill_9_makes_no_more_run_again_than_was_in_flight(start_redis: StartRedis, tmp_path: Path) -> None:
    """Two workers under load are killed in turn; what each held at its death, and nothing else, may run once more."""
    redis, rng, kills = start_redis(appendfsync="always"), dice("kill -9"), rounds(3, 20)
    held = set[tuple[str, bytes]]()
    async with (
        System(redis.url, tmp_path, workers=2, HEADRACE_CONCURRENCY=str(SLOTS)) as system,
        aiohttp.ClientSession() as session,
    ):
        client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
        acked, enough = list[str](), asyncio.Event()

        async def feed() -> None:
            while not enough.is_set():
                acked.append(await post(session, system, len(acked), {"type": "coroutine", "payload": {"ms": 100}}))
                await asyncio.sleep(0.01)

        feeding = asyncio.create_task(feed())
        for number in range(kills):
            victim = system.workers[number % 2]
            await system.works(victim)
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            await asyncio.to_thread(victim.kill)
            had = await held_by(client, victim) - held
            assert len(had) <= SLOTS
            held |= had
            victim.start()
        enough.set()
        await feeding
        verdict = await verdict_on(system, redis, acked, 180)
        ends = await look.ends_of(client, acked)
        await client.aclose()
    crashes = sum(end.crashes for end in ends.values())
    tell(f"{kills} times kill -9: {len(held)} in flight of {len(acked)}, {verdict.reruns} ran again")
    assert verdict.wrong == []
    assert held and verdict.reruns <= crashes <= len(held)


# F13


async def test_a_worker_whose_gil_is_kept_loses_its_task_and_nothing_else(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    """It cannot beat, so another takes its task over. What it says later is stale, and then it works on."""
    redis = start_redis()
    async with System(redis.url, tmp_path, workers=2) as system, aiohttp.ClientSession() as session:
        hard = await post(session, system, 0, {"type": "stone", "payload": {"s": int(3 * DEAD_AFTER_S)}})

        async def both_have_ended() -> bool:
            return sum(note.task_id == hard for note in ledger.read(system.ledger).ended) == 2

        await eventually(both_have_ended, 60)
        runs = [note.worker for note in ledger.read(system.ledger).begun]
        acked = [
            await post(session, system, number, {"type": "coroutine", "payload": {"ms": 500}})
            for number in range(1, 41)
        ]
        verdict = await verdict_on(system, redis, [hard, *acked])
        client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
        ends = await look.ends_of(client, [hard, *acked])
        await client.aclose()
        assert system.fallen() == []
        later = {note.worker for note in ledger.read(system.ledger).begun[2:]}
    end = ends.pop(hard)
    assert (end.state, end.attempts, end.crashes, end.result and end.result[1]) == (State.COMPLETED, 2, 1, 2)
    assert verdict.wrong == [] and verdict.reruns == 1
    assert len(set(runs)) == 2 and later == set(runs), "both work on"
    assert {each.crashes for each in ends.values()} == {0}


# F14

DAY_S: Final = 86_400.0


async def off_by(system: System, session: aiohttp.ClientSession) -> float:
    """How far the clock of the API is from this process'."""
    async with session.get(f"{system.urls[0]}/livez") as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()


def noted_off(system: System, by_s: float) -> bool:
    """Whether a worker noted a run at a time that is so far off."""
    return any(abs(note.at - time.time() - by_s) < 3_600 for note in ledger.read(system.ledger).begun)


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S])
@pytest.mark.parametrize("whose", ["worker", "api"])
async def test_a_worker_or_an_api_whose_clock_jumps_by_a_day_changes_nothing(
    start_redis: StartRedis, tmp_path: Path, whose: str, by_s: float
) -> None:
    """While tasks run, and back: nothing runs twice or is stuck, and what is due in a second is run in a second."""
    library = build_shim(tmp_path)
    if library is None:
        pytest.skip("no C compiler, with which the shim for clocks is made")
    redis, clock = start_redis(), Clock(library, tmp_path / "skew")
    system = System(redis.url, tmp_path, workers=2)
    (system.workers[0] if whose == "worker" else system.apis[0]).give(clock.environ)
    async with system, aiohttp.ClientSession() as session:

        async def submit(count: int, ms: int, **options: Any) -> list[str]:
            body = {"type": "coroutine", "payload": {"ms": ms}, **options}
            return [await post(session, system, len(acked) + number, body) for number in range(count)]

        acked = list[str]()
        for program in system.workers:
            while program.name not in {note.worker.partition(":")[0] for note in ledger.read(system.ledger).begun}:
                acked += await submit(10, 50)
        acked += await submit(20, 1_500)
        await eventually(begun(system, len(acked)))
        clock.set(by_s)
        acked += await submit(20, 50)
        started = time.monotonic()
        [delayed] = await submit(1, 0, delay=1)
        acked.append(delayed)
        await eventually(begun(system, len(acked)))
        assert any(note.task_id == delayed for note in ledger.read(system.ledger).begun)
        assert 1 <= time.monotonic() - started < 10, "the delayed one, which is the last"
        moved = noted_off(system, by_s) if whose == "worker" else abs(await off_by(system, session) - by_s) < 3_600
        assert moved, "the clock was moved"
        clock.set(0)
        acked += await submit(20, 50)
        verdict = await verdict_on(system, redis, acked)
        client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
        ends = await look.ends_of(client, acked)
        await client.aclose()
        assert system.fallen() == []
    assert verdict.wrong == [] and verdict.reruns == 0
    assert {(end.state, end.crashes) for end in ends.values()} == {(State.COMPLETED, 0)}
