"""What tests of a whole system ask of it: submissions, each repeated until it is accepted, and the verdict."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import aiohttp

from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from redis_server import RedisServer

from . import ledger, look
from .checker import Facts, Verdict, check
from .system import System


async def post(session: aiohttp.ClientSession, system: System, number: int, body: Any) -> str:
    """Submit under a key of its own until it is answered with 201. Returns the id."""
    headers = {"Idempotency-Key": f"key-{number}"}
    for attempt in itertools.count():
        url = system.urls[(number + attempt) % len(system.urls)]
        try:
            async with session.post(f"{url}/api/v1/tasks", json=body, headers=headers) as answer:
                if answer.status == 201:
                    return str((await answer.json())["task_id"])
                assert answer.status in {429, 503}, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(0.05)
    raise AssertionError("unreachable")


async def verdict_on(system: System, redis: RedisServer, acked: list[str], within_s: float = 60) -> Verdict:
    """Waits until all has ended."""
    client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
    try:
        assert await look.drained(client, within_s)
        ends = await look.ends_of(client, acked)
        done = await look.completions(client)
        return check(Facts(acked, (), ends, ledger.read(system.ledger), done))
    finally:
        await client.aclose()
