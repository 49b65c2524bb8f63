"""The routes about the service itself: health, stats, metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from headrace.broker.broker import Depth
from headrace.errors import HeadraceError, StoreUnavailable

from .created import JSON
from .endpoint import Route
from .overview import Overview
from .services import Request, Services

REGISTRY: Final = web.AppKey("headrace_registry", CollectorRegistry)
_HEADERS: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}


def _json(body: Any, status: int = 200) -> web.Response:
    headers = _HEADERS if status != 503 else {**_HEADERS, "Retry-After": "1"}
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers)


async def livez(services: Services, request: Request) -> web.Response:
    """GET /livez: the process answers, so it lives; Redis away is no reason to restart it."""
    return _json({"status": "ok"})


async def health(services: Services, request: Request) -> web.Response:
    """GET /health and /readyz: 200 when submissions can be taken, 503 when not.

    A file of tokens that cannot be read is told, but no reason to take no requests: the tokens before it hold.
    """
    if services.closing:
        return _json({"status": "stopping", "checks": {"redis": "up"}}, 503)
    try:
        await services.store.command("PING")
    except StoreUnavailable:
        return _json({"status": "unavailable", "checks": {"redis": "down"}}, 503)
    except HeadraceError:
        return _json({"status": "unavailable", "checks": {"redis": "refuses"}}, 503)
    tokens = {"tokens": "stale"} if services.guard.stale else {}
    return _json({"status": "ok", "checks": {"redis": "up"} | tokens})


async def stats(services: Services, request: Request) -> web.Response:
    """GET /api/v1/stats: how many tasks are where, in the queues of the caller's namespace that its token covers."""
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
    """GET /metrics: Prometheus text."""
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


ROUTES: Final = (
    Route("GET", "/api/v1/stats", stats),
    Route("GET", "/health", health, open=True),
    Route("GET", "/readyz", health, open=True),
    Route("GET", "/livez", livez, open=True),
    Route("GET", "/metrics", metrics, open=True),
)
