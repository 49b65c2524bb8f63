"""Failure modes of the API under load: Redis stands still under thousands of clients, the API is rolled out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import pytest

from chaos import look
from chaos.calm import Watch
from chaos.rounds import dice, rounds, tell
from chaos.system import System
from conftest import StartRedis
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from redis_server import RedisServer
from worker_harness import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

BODY: Final[dict[str, Any]] = {"type": "coroutine", "payload": {}}
MIB: Final = 1024**2


async def live_in(redis: RedisServer) -> int:
    client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
    try:
        return (await client.call(look.QUEUE.depth())).live
    finally:
        await client.aclose()


# H2


class Crowd:
    """Clients that submit at once, each under a key of its own until it is accepted, and wait between two tries."""

    def __init__(self, session: aiohttp.ClientSession, url: str, count: int, rng: Random) -> None:
        self.accepted: dict[int, str] = {}
        self.refused = 0
        self.wrong: list[str] = []
        """What was answered that a client cannot wait out, or without a word how long to wait."""
        self._session = session
        self._url = f"{url}/api/v1/tasks"
        self._pause_s = max(0.5, count / 500)
        self._rng = rng
        self._clients = [asyncio.create_task(self._client(number)) for number in range(count)]

    async def _client(self, number: int) -> None:
        while not await self._try(number):  # noqa: ASYNC110 - it asks again, as clients do
            await asyncio.sleep(self._rng.uniform(0.1, 1.0) * self._pause_s)

    async def _try(self, number: int) -> bool:
        headers = {"Idempotency-Key": f"key-{number}"}
        async with self._session.post(self._url, json=BODY, headers=headers) as answer:
            said = await answer.json()
            if answer.status == 201:
                self.accepted[number] = said["task_id"]
                return True
            if answer.status not in {429, 503} or "Retry-After" not in answer.headers:
                self.wrong.append(f"{answer.status} {dict(answer.headers)} {said}")
            self.refused += 1
            return False

    async def one_more_than(self, before: int) -> bool:
        return len(self.accepted) > before

    async def all_accepted(self) -> None:
        await asyncio.gather(*self._clients)


@pytest.mark.timeout(600)
async def test_a_redis_that_stands_still_costs_thousands_of_clients_time_and_nothing_else(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    redis, count, frozen_s = start_redis(), rounds(100, 5_000), rounds(2, 60)
    waiting = aiohttp.ClientTimeout(total=60)
    async with (
        System(redis.url, tmp_path, workers=0, HEADRACE_MAX_CONNECTIONS_PER_ADDRESS="10000") as system,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=waiting) as session,
    ):
        api = system.apis[0]
        async with session.post(f"{system.urls[0]}/api/v1/tasks", json=BODY) as answer:
            assert answer.status == 201
        before = api.rss()
        redis.freeze()
        crowd = Crowd(session, system.urls[0], count, dice("frozen Redis"))
        await asyncio.sleep(frozen_s)
        probes = {}
        for path in ("livez", "readyz"):
            async with session.get(f"{system.urls[0]}/{path}") as answer:
                probes[path] = answer.status
        grown, answered = api.rss() - before, len(crowd.accepted)
        redis.thaw()
        watch = Watch(redis.pid, api.pid)
        await eventually(partial(crowd.one_more_than, answered))
        first_s = watch.own_s
        await crowd.all_accepted()
        live = await live_in(redis)
    tell(
        f"{count:,} clients, Redis frozen for {frozen_s} s: {crowd.refused:,} answers 503, {grown / MIB:.0f} MiB more, "
        f"the first 201 after {first_s:.2f} s"
    )
    assert probes == {"livez": 200, "readyz": 503}
    assert crowd.wrong == [] and answered == 0 and crowd.refused >= count
    assert first_s <= 2 and grown < 100 * MIB
    assert len(set(crowd.accepted.values())) == count == live - 1


# H5


class Faithful:
    """A client that keeps its connection for all its requests, and goes to the other API only when nobody listens."""

    def __init__(self, system: System, number: int) -> None:
        self.accepted: list[str] = []
        self.broken: list[str] = []
        """Requests that were sent and not answered."""
        self._urls = system.urls
        self._at = number
        self._name = number

    async def work(self, enough: asyncio.Event) -> None:
        async with aiohttp.ClientSession() as session:
            while not enough.is_set():
                try:
                    await self._submit(session)
                except aiohttp.ClientConnectorError:
                    self._at += 1
                except aiohttp.ClientError as error:
                    self.broken.append(repr(error))

    async def _submit(self, session: aiohttp.ClientSession) -> None:
        headers = {"Idempotency-Key": f"{self._name}-{len(self.accepted)}"}
        url = self._urls[self._at % len(self._urls)]
        async with session.post(f"{url}/api/v1/tasks", json=BODY, headers=headers) as answer:
            said = await answer.json()
            assert answer.status == 201, said
            self.accepted.append(said["task_id"])


@asynccontextmanager
async def at_work(system: System, count: int) -> AsyncIterator[list[Faithful]]:
    enough = asyncio.Event()
    clients = [Faithful(system, number) for number in range(count)]
    working = [asyncio.create_task(each.work(enough)) for each in clients]
    yield clients
    enough.set()
    await asyncio.gather(*working)


@pytest.mark.timeout(600)
async def test_a_roll_out_of_two_apis_breaks_no_request(start_redis: StartRedis, tmp_path: Path) -> None:
    """Each in turn is told to stop under load and started again: no connection ends with a request on it."""
    redis, turns = start_redis(), rounds(4, 20)
    async with (
        System(redis.url, tmp_path, apis=2, workers=0) as system,
        at_work(system, 8) as clients,
    ):

        async def all_go_on(before: list[int]) -> bool:
            return all(len(each.accepted) >= had + 5 for each, had in zip(clients, before, strict=True))

        for number in range(turns):
            await eventually(partial(all_go_on, [len(each.accepted) for each in clients]))
            assert await asyncio.to_thread(system.apis[number % 2].stop) == 0
            system.apis[number % 2].start()
            await system.ready(number % 2)
    accepted = [task_id for each in clients for task_id in each.accepted]
    tell(f"{turns} restarts under {len(accepted):,} submissions, {sum(len(each.broken) for each in clients)} broken")
    assert [line for each in clients for line in each.broken] == []
    assert len(set(accepted)) == len(accepted) == await live_in(redis)
