"""The operator's port for probes and Prometheus: /healthz, /livez, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .loop import Numbers

STALL_S: Final = 30.0
"""A loop that did not tick for so long stands still, and the process should be started anew."""


@dataclass(frozen=True, slots=True)
class Health:
    """How an operator process is."""

    wrong: str = ""
    """What is wrong with it, so that it should be started anew."""
    stands_by: str = ""
    """Why it does not act."""
    cut_off: bool = False
    """It does not act because it cannot reach the API server: nobody can say that another one does."""

    @property
    def ready(self) -> bool:
        """A candidate that sees another one hold the Lease is as ready as it can be."""
        return not (self.wrong or self.cut_off)


def alive(numbers: Numbers, now_s: float, began_s: float) -> str:
    """'' if all is well, else what is wrong."""
    silent_s = now_s - max(numbers.last_tick_s, began_s)
    return f"the control loop has stood still for {silent_s:.0f} s" if silent_s > STALL_S else ""


@asynccontextmanager
async def serving(
    host: str, port: int, registry: CollectorRegistry, health: Callable[[], Health]
) -> AsyncIterator[int]:
    """The port is open until the block ends. Gives its number. Raises OSError."""

    async def probe(request: web.Request) -> web.Response:
        found = health()
        good = found.ready if request.path == "/readyz" else not found.wrong
        said = found.wrong or found.stands_by or "ok"
        return web.json_response({"status": said}, status=200 if good else 503)

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
