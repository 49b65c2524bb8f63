"""The routes about the service itself: health, stats, metrics."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import UNSET
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from headrace.errors import HeadraceError, StoreUnavailable

from .answers import Alive, Health, HealthChecks, Stats
from .created import JSON
from .endpoint import Doc, Route
from .examples import HEALTHY, STATS
from .services import Request, Services
from .stats import stats_of

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
    warnings = list((await services.safety.look()).values())
    return _json(Health("ok", HealthChecks("up", "stale" if services.guard.stale else UNSET), warnings or UNSET))


async def stats(services: Services, request: Request) -> web.Response:
    """Count how many tasks are where.

    In the queues of the caller's namespace that its token covers, as it was within the last second.
    """
    seen = await services.namespace(request.caller.namespace).lookout.look()
    return _json(stats_of(seen, request.may))


async def metrics(services: Services, request: Request) -> web.Response:
    """Metrics as Prometheus reads them."""
    numbers = services.metrics
    names = services.guard.namespaces
    numbers.tokens_stale = services.guard.stale
    try:
        numbers.overviews = [await services.namespace(name).lookout.look() for name in names]
        numbers.risks = await services.safety.look()
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
