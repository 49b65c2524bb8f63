"""What `headrace dev` asks over HTTP: its API for the sample task, its workers for their metrics.

It is imported after the workers were started, because aiohttp takes about as long as they do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import aiohttp

from headrace.errors import HeadraceError

from .dev_probe import Found
from .dev_screen import say_result
from .dev_stack import Stack

SAMPLE_WAIT_S: Final = 20
_LISTEN_S: Final = 1.0
_SCRAPE_S: Final = 1.0


async def run_sample(stack: Stack, found: Found) -> None:
    """Submit the application's first sample, and show what becomes of it."""
    sample = found.samples[0]
    began = time.monotonic()
    body = {"type": sample.type, "priority": sample.priority, "payload": sample.payload}
    try:
        async with aiohttp.ClientSession(stack.url) as session:
            async with session.post("/api/v1/tasks", json=body) as answer:
                submitted = await answer.json(content_type=None)
            if answer.status != 201:
                stack.screen.say(f"the sample {sample.type} was refused: {submitted['detail']}", level="warning")
                return
            async with session.get(f"/api/v1/tasks/{submitted['task_id']}?wait={SAMPLE_WAIT_S}") as answer:
                task = await answer.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        stack.screen.say(f"the sample {sample.type} was not run: {error}", level="warning")
        return
    say_result(stack.screen, task, time.monotonic() - began)


async def keep_listening(stack: Stack) -> None:
    """Hear the workers' metrics again and again, so that the API's page is a second old at most."""
    while True:
        await asyncio.sleep(_LISTEN_S)
        await listen(stack)


async def listen(stack: Stack) -> None:
    """Ask every worker for its metrics. One that does not answer keeps the numbers it last told."""
    ports = await _metrics_ports(stack)
    timeout = aiohttp.ClientTimeout(total=_SCRAPE_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(_scrape(stack, session, name, port) for name, port in ports.items()))


async def _metrics_ports(stack: Stack) -> Mapping[str, int]:
    ours = stack.worker_ids
    try:
        seen = [each for each in await stack.store.workers() if each.id in ours]
    except HeadraceError:
        return {}
    return {each.id: each.facts["metrics_port"] for each in seen if each.facts.get("metrics_port")}


async def _scrape(stack: Stack, session: aiohttp.ClientSession, worker_id: str, port: int) -> None:
    try:
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return
    if worker_id in stack.worker_ids:
        stack.workers.sums.heard(worker_id, text)
