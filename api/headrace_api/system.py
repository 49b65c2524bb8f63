"""The routes about the service itself: health, stats, metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import UNSET
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from headrace.broker.broker import Depth
from headrace.errors import HeadraceError, StoreUnavailable

from .answers import Alive, Health, HealthChecks, Stats
from .created import JSON
from .endpoint import Doc, Route
from .examples import HEALTHY, STATS
from .overview import Overview
from .services import Request, Services

REGISTRY: Final = web.AppKey("headrace_registry", CollectorRegistry)
_HEADERS: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}


def _json(body: Any, status: int = 200) -> web.Response:
    headers = _HEADERS if status != 503 else {**_HEADERS, "Retry-After": "1"}
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers)


async def livez(services: Services, request: Request) -> web.Response:
    """Tell that the process lives; that Redis is away is no reason to restart it."""
    return _json(Alive())


async def health(services: Services, request: Request) -> web.Response:
    """Tell whether submissions can be taken: 200, else 503.

    A file of tokens that cannot be read is told, but no reason to take no requests: the tokens before it hold.
    """
    if services.closing:
        return _json(Health("stopping", HealthChecks("up")), 503)
    try:
        await services.store.command("PING")
    except StoreUnavailable:
        return _json(Health("unavailable", HealthChecks("down")), 503)
    except HeadraceError:
        return _json(Health("unavailable", HealthChecks("refuses")), 503)
    return _json(Health("ok", HealthChecks("up", "stale" if services.guard.stale else UNSET)))


async def stats(services: Services, request: Request) -> web.Response:
    """Count how many tasks are where.

    In the queues of the caller's namespace that its token covers, as it was within the last second.
    """
    seen = await services.namespace(request.caller.namespace).lookout.look()
    if not request.sees_all:
        seen = replace(seen, depths={name: depth for name, depth in seen.depths.items() if request.may(name)})
    return _json(_summary(seen) | {"queues": {name: _counts(depth) for name, depth in seen.depths.items()}})


def _counts(depth: Depth) -> dict[str, int | bool]:
    return {
        "pending": depth.waiting,
        "processing": depth.processing,
        "completed": depth.ended("completed"),
        "failed": depth.ended("failed"),
        "cancelled": depth.ended("cancelled"),
        "scheduled": depth.delayed,
        "parked": depth.parked,
        "dead_letters": depth.dead,
        "paused": depth.paused,
    }


def _summary(seen: Overview) -> dict[str, int | bool]:
    rows = [_counts(depth) for depth in seen.depths.values()]
    names = ("pending", "processing", "completed", "failed", "cancelled", "scheduled", "parked", "dead_letters")
    total: dict[str, int | bool] = {name: sum(row[name] for row in rows) for name in names}
    return total | {"workers": len(seen.active)}


async def metrics(services: Services, request: Request) -> web.Response:
    """Metrics as Prometheus reads them."""
    numbers = services.metrics
    names = services.guard.namespaces
    numbers.tokens_stale = services.guard.stale
    try:
        numbers.overviews = [await services.namespace(name).lookout.look() for name in names]
    except HeadraceError:
        numbers.overviews = None
    known = (services.namespace(name).types.names for name in names)
    numbers.known_types = {name for types in known for name in types}
    text = generate_latest(request.http.app[REGISTRY])
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


_HEALTH: Final = Doc(answer=HEALTHY, also={503: Health})
ROUTES: Final = (
    Route("GET", "/api/v1/stats", stats, answer=Stats, doc=Doc(answer=STATS)),
    Route("GET", "/health", health, open=True, answer=Health, doc=_HEALTH),
    Route("GET", "/readyz", health, open=True, answer=Health, doc=_HEALTH),
    Route("GET", "/livez", livez, open=True, answer=Alive),
    Route("GET", "/metrics", metrics, open=True, answer=str, doc=Doc(media="text/plain")),
)
