"""What all routes share in the OpenAPI document: codes of problems, headers, the parts of paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace.task import LABEL, TYPE_NAME

from .endpoint import Route
from .problems import KINDS

_OF_HTTP: Final[Mapping[str, tuple[int, str]]] = {
    "bad_http": (400, "The address or a header has more than 8190 bytes, or the request is not HTTP/1.1"),
    "bad_query": (400, "A parameter after `?` does not exist or has no such value"),
    "invalid_filter": (400, "A word of the filter is unknown, or has a value that it cannot have"),
    "bad_cursor": (400, "The cursor is none of this list"),
    "bad_idempotency_key": (400, "The Idempotency-Key is not one header of 1 to 255 visible ASCII characters"),
    "unknown_route": (404, "A part of the path cannot be one, so there is nothing there"),
    "bad_body": (400, "The body ended early or is badly framed"),
    "missing_token": (401, "There is no `Authorization: Bearer …`, or more than one"),
    "unknown_token": (401, "The token is none that this API has"),
    "missing_scope": (403, "The token lacks the scope"),
    "forbidden_queue": (403, "The token does not cover the queue"),
    "body_timeout": (408, "The body did not arrive in time"),
    "unsupported_media_type": (415, "The body is not JSON in UTF-8"),
    "unsupported_encoding": (415, "The body is compressed"),
    "rate_limited": (429, "The token or the queue has used up its rate"),
    "too_many_at_once": (429, "The token has too many requests on their way"),
    "internal": (500, "A bug in headrace"),
    "bad_setting": (503, "The service is not set up for this"),
}
CODES: Final[Mapping[str, tuple[int, str]]] = {
    **{cls.code: (kind.status, kind.title) for cls, kind in KINDS.items()},
    **_OF_HTTP,
}
"""Code → its status and what happened."""

OF_NO_ROUTE: Final = frozenset(
    {
        "unknown_route",
        "wrong_method",
        "expectation_failed",
        "bad_http",
        "http",
        "headers_timeout",
        "too_many_connections",
        "too_many_of_address",
    }
)
"""Codes of what reaches no route."""

RETRY: Final = frozenset({429, 503})
"""Statuses that come with Retry-After."""

HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "X-Request-Id": {
        "description": "The caller's own X-Request-Id if it was harmless, else a new one; the log has it too.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where to ask for what was made.", "required": True, "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true`: the same submission was stored before, and nothing was stored now.",
        "schema": {"const": "true"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the request is sent again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WWW-Authenticate": {"description": "The scheme: Bearer.", "required": True, "schema": {"type": "string"}},
    "RateLimit": {
        "description": "Where a rate is set: what is left (`r`) and in how many seconds all is there again (`t`).",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "Where a rate is set: how many (`q`) in how many seconds (`w`).",
        "schema": {"type": "string"},
    },
    "ETag": {"description": "Changes when the content does.", "required": True, "schema": {"type": "string"}},
    "Preference-Applied": {
        "description": "Where `Prefer: wait=…` was followed: how many seconds were waited for at most.",
        "schema": {"type": "string"},
    },
    "traceparent": {
        "description": "The `traceparent` of the request, if it was one. What this request stored carries it; a task "
        "that was there already keeps its own.",
        "schema": {"type": "string"},
    },
    "Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}},
}

PATH: Final[Mapping[str, Mapping[str, Any]]] = {
    "id": {
        "description": "The id of a task, as its submission answered it.",
        "schema": {"type": "string", "pattern": "^[^/:?#]+$"},
        "example": "01890a5d-ac96-774b-bcce-b302099a8057",
    },
    "queue": {
        "description": "The name of a queue.",
        "schema": {"type": "string", "pattern": f"^{LABEL}$"},
        "example": "default",
    },
    "type": {
        "description": "The name of a task type.",
        "schema": {"type": "string", "pattern": f"^{TYPE_NAME}$"},
        "example": "send_email",
    },
    "job": {
        "description": "The id of a bulk job.",
        "schema": {"type": "string", "pattern": "^[^/:?#]+$"},
        "example": "01890a5d-ac96-774b-bcce-b302099a8057",
    },
}
"""Parts of paths: `{name}` → its parameter."""

REQUEST_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Idempotency-Key": {
        "description": "The same key of the same token is the same task; a UUID will do. Bare or in quotes.",
        "schema": {"type": "string", "pattern": "^[!#-~]+$", "minLength": 1, "maxLength": 255},
        "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    },
    "traceparent": {
        "description": "W3C trace context: handed on to the handler and its log, and sent back if it is one.",
        "schema": {"type": "string"},
        "example": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    },
    "Prefer": {
        "description": "`wait=10`: answer when the task has ended, or after 10 s; whole seconds, at most "
        "`HEADRACE_MAX_WAIT_S`. Other preferences are ignored, and a submission waits only for a token that may read.",
        "schema": {"type": "string"},
        "example": "wait=10",
    },
    "If-None-Match": {
        "description": "The ETag of the answer before: 304 as long as nothing has changed.",
        "schema": {"type": "string"},
        "example": 'W/"2f6b9d7a1c0e4f8d5a3b2c1d"',
    },
    "Last-Event-ID": {
        "description": "The `id` that was seen last: the stream goes on from there. Browsers send it by themselves.",
        "schema": {"type": "string"},
        "example": "1768473006250-0/default",
    },
}

_STORE: Final = ("store_unavailable", "store_timeout", "store_refused")
_WRITES: Final = ("store_full", "durability_unconfirmed", "config", "bad_setting")
_GUARDED: Final = ("missing_token", "unknown_token", "missing_scope", "rate_limited", "too_many_at_once")
_BODY: Final = (
    "malformed_json",
    "bad_body",
    "body_timeout",
    "too_large",
    "unsupported_media_type",
    "unsupported_encoding",
)
_SUBMITS: Final = (
    "bad_idempotency_key",
    "invalid_task",
    "invalid_payload",
    "task_conflict",
    "unique_held",
    "queue_full",
)


def usual(route: Route) -> list[str]:
    """The codes of a route's problems: those that all of its kind have, and its own."""
    codes = ["internal", "bad_http", *route.doc.problems]
    if not route.open:
        codes += ["bad_query", *_GUARDED, *_STORE]
    if not route.open and (route.query or route.body or "{" in route.path):
        codes += ["forbidden_queue"]
    if "{" in route.path:
        codes += ["unknown_route"]
    if "{id}" in route.path:
        codes += ["unknown_task"]
    if "{queue}" in route.path:
        codes += ["unknown_queue"]
    if route.method != "GET":
        codes += _WRITES
    if route.body is not None:
        codes += [*_BODY, "invalid_task" if route.submits else "invalid_request"]
    return codes + [*_SUBMITS] * route.submits
