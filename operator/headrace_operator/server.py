"""The operator's port for probes and Prometheus: /healthz, /livez, /readyz, /metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .loop import Numbers

STALL_S: Final = 30.0
"""A loop that did not tick for so long stands still, and the process should be started anew."""


def alive(numbers: Numbers, works: bool, now_s: float, began_s: float) -> str:
    """'' if all is well, else what is wrong. One that waits for the Lease does not tick, and is well."""
    if not works:
        return ""
    silent_s = now_s - max(numbers.last_tick_s, began_s)
    return f"the control loop has stood still for {silent_s:.0f} s" if silent_s > STALL_S else ""


@asynccontextmanager
async def serving(host: str, port: int, registry: CollectorRegistry, health: Callable[[], str]) -> AsyncIterator[int]:
    """The port is open until the block ends. Gives its number. Raises OSError."""

    async def probe(request: web.Request) -> web.Response:
        wrong = health()
        return web.json_response({"status": wrong or "ok"}, status=503 if wrong else 200)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    for path in ("/healthz", "/livez", "/readyz", "/health"):
        app.router.add_get(path, probe)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def since(began_s: float) -> float:
    """Seconds since a moment of the monotonic clock."""
    return time.monotonic() - began_s
