"""The HTTP API: every route in one table, and the application made of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Final

from aiohttp import web
from prometheus_client.registry import Collector

from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings

from . import (
    audit_routes,
    batch,
    bulk_routes,
    event_routes,
    listing,
    openapi_routes,
    queue_routes,
    system,
    tasks,
    type_routes,
)
from .endpoint import endpoint
from .metrics import registry_of
from .routing import application
from .services import SERVICES, Services

_PART: Final = re.compile(r"{(\w+)}")

ROUTES: Final = (
    *tasks.ROUTES,
    *batch.ROUTES,
    *listing.ROUTES,
    *event_routes.ROUTES,
    *queue_routes.ROUTES,
    *bulk_routes.ROUTES,
    *audit_routes.ROUTES,
    *type_routes.ROUTES,
    *system.ROUTES,
    *openapi_routes.ROUTES,
)


def create_app(settings: ApiSettings, redis: RedisSettings, collectors: Iterable[Collector] = ()) -> web.Application:
    """The API as an application. `collectors` are shown on /metrics beside its own.

    Serve it by `headrace_api.server`, which turns aiohttp's own errors into problem documents, too.
    """
    app = application(settings.max_batch_bytes + 1)
    extra = tuple(collectors)

    async def services(app: web.Application) -> AsyncIterator[None]:
        made = app[SERVICES] = Services(settings, redis)
        app[system.REGISTRY] = registry_of(made.metrics, extra)
        yield
        await made.aclose()

    async def let_go(app: web.Application) -> None:
        await app[SERVICES].let_go()

    app[openapi_routes.DESCRIPTION] = openapi_routes.Description(ROUTES)
    app.cleanup_ctx.append(services)
    app.on_shutdown.append(let_go)
    for route in ROUTES:
        path, handler = _PART.sub(_part, route.path), endpoint(route, app)
        app.router.add_route(route.method, path, handler)
        if route.method == "GET":
            app.router.add_route("HEAD", path, handler)
    return app


def _part(name: re.Match[str]) -> str:
    """The pattern of a part of a path. Only type names have colons: `{id}:cancel` is another path than `{id}`."""
    return f"{{{name[1]}:[^/]+}}" if name[1] == "type" else f"{{{name[1]}:[^/:]+}}"
