"""The routes of task types: what workers know, for whoever builds a form or a client."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from headrace import known_types
from headrace.known_types import TypeView
from headrace.listing import carry_out

from .created import JSON
from .endpoint import Doc, Route
from .services import Request, Services
from .store import queue_of_namespace

_HEADERS: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}


class TypeList(msgspec.Struct, frozen=True):
    """The types of the caller's namespace, by name. A token of some queues sees those whose own queue it covers."""

    types: list[TypeView]


async def list_types(services: Services, request: Request) -> web.Response:
    """List the task types that workers know, with the JSON Schema of their payloads.

    They stay known when no worker is left. A payload is accepted if any version that workers know accepts it.
    """
    return _json(TypeList(await _look(services, request)))


async def show_type(services: Services, request: Request) -> web.Response:
    """Show a task type."""
    return _json(known_types.named(request.http.match_info["type"], await _look(services, request)))


async def _look(services: Services, request: Request) -> list[TypeView]:
    namespace = services.namespace(request.caller.namespace)
    seen = await namespace.lookout.look()
    queues = [queue_of_namespace(namespace.name, name) for name, workers in seen.serving.items() if workers]
    async with services.looks:
        found = await carry_out(known_types.look(namespace.name, queues, seen.active.__contains__), services.store)
    return [each for each in found if request.sees_all or request.may(each.queue or "default")]


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), headers=_HEADERS)


_TYPE: Final[dict[str, Any]] = {
    "type": "send_email",
    "queue": "default",
    "priority": 1,
    "max_retries": 3,
    "timeout_s": 300.0,
    "doc": "Send an e-mail.",
    "schema": {
        "$ref": "#/$defs/Payload",
        "$defs": {
            "Payload": {
                "title": "Payload",
                "type": "object",
                "properties": {"recipient": {"type": "string"}, "subject": {"type": "string", "default": ""}},
                "required": ["recipient"],
                "additionalProperties": False,
            }
        },
    },
    "hash": "0b1f4c2a9d3e5f60",
    "versions": ["0b1f4c2a9d3e5f60"],
    "workers": 2,
}
ROUTES: Final = (
    Route("GET", "/api/v1/types", list_types, answer=TypeList, doc=Doc(answer={"One type": {"types": [_TYPE]}})),
    Route(
        "GET",
        "/api/v1/types/{type}",
        show_type,
        answer=TypeView,
        doc=Doc(answer={"A type that two workers know": _TYPE}, problems=("unknown_type",)),
    ),
)
