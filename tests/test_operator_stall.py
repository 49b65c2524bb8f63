"""A control loop that stands still fails the probe, which says so; and it is not what one slow pool can bring about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from headrace_operator import server
from headrace_operator.main import Operator
from headrace_operator.requests import Requests
from headrace_operator.server import serving
from headrace_operator.settings import OperatorSettings
from headrace_operator.term import Term


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    """One that leads, and has no pools."""
    settings = OperatorSettings(tick_s=0.1)
    made = Operator(settings, {})
    made.term = Term(settings, {}, Requests(cast(Any, None)), lambda: True)
    running = asyncio.create_task(made.term.loop.run())
    yield made
    running.cancel()
    await made.term.aclose()


async def probe(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, json.loads(await answer.read())["status"]


async def test_a_loop_that_stands_still_fails_the_probe_which_says_why(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALL_S", 1.0)
    async with serving("127.0.0.1", 0, CollectorRegistry(), operator.health) as port:
        await asyncio.sleep(1.5)
        assert await probe(port, "/healthz") == (200, "ok"), "it ticks"
        assert operator.term is not None
        monkeypatch.setattr(operator.term.loop, "tick", asyncio.Event().wait)
        async with asyncio.timeout(20):
            while (await probe(port, "/healthz"))[0] == 200:  # noqa: ASYNC110 - time is what passes
                await asyncio.sleep(0.05)
        for path in ("/healthz", "/livez", "/readyz"):
            code, why = await probe(port, path)
            assert code == 503 and why.startswith("the control loop has stood still for")
