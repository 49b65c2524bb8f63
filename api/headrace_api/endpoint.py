"""What surrounds every handler: who asks, the request's id, the clock, and errors as problem documents."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from headrace.errors import HeadraceError
from headrace.settings import ApiToken
from headrace.tokens import Scope

from .auditing import audited
from .buckets import Buckets
from .created import Created
from .metrics import HTTP_BUCKETS, reason
from .problems import HttpProblem, Problem, log_problem, problem_of, problem_of_http, unexpected
from .request_ids import HEADER as REQUEST_ID
from .request_ids import request_id
from .services import SERVICES, Request, Services

logger = logging.getLogger(__name__)

Action = Callable[[Services, Request], Awaitable[web.StreamResponse]]

GONE: Final = 499
"""Counted for a request whose client went away before the answer."""
BEGUN: Final = web.RequestKey("headrace_begun", int)
"""The status of a stream that was begun: a client that leaves it has got what it wanted."""
_NOBODY: Final = ApiToken("", "", b"", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Doc:
    """What the OpenAPI document says of a route beside its types and its action's docstring."""

    body: Mapping[str, Any] = field(default_factory=dict)
    """Examples of what it reads, each by what it shows."""
    bodies: Mapping[str, tuple[Any, Mapping[str, Any]]] = field(default_factory=dict)
    """Other media types that it reads beside JSON: to type and examples."""
    answer: Mapping[str, Any] = field(default_factory=dict)
    """Examples of what it answers."""
    problems: tuple[str, ...] = ()
    """Codes of its problems, but for those that all routes of its kind have."""
    headers: tuple[str, ...] = ()
    """Headers of its good answer, as in `openapi_parts.HEADERS`."""
    also: Mapping[int, Any] = field(default_factory=dict)
    """Other answers that are no problem document: status to type."""
    media: str = "application/json"
    """Media type of its good answer."""
    takes: tuple[str, ...] = ()
    """Headers that it reads, as in `openapi_parts.REQUEST_HEADERS`, beside those of all submissions."""
    events: Mapping[str, Any] = field(default_factory=dict)
    """Of a stream of events: the type of each event's data."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table."""

    method: str
    path: str
    action: Action
    scope: Scope = "read"
    """What a token must be allowed to do."""
    open: bool = False
    """Answers without a token: for probes and Prometheus."""
    submits: bool = False
    """Refusals are counted as rejected submissions."""
    query: type | None = None
    """Its parameters, as a msgspec Struct; None takes none."""
    body: Any = None
    """What it reads as JSON: a type that msgspec knows."""
    answer: Any = None
    """What it answers as JSON when all went well: a type that msgspec knows."""
    status: int = 200
    """The status of that answer."""
    audit: str = ""
    """What the audit log calls it; only what changes nothing, and submissions, may have none."""
    doc: Doc = Doc()


def endpoint(route: Route, app: web.Application) -> Handler:
    """The handler that aiohttp calls for this route of this application."""
    method, path, action = route.method, route.path, audited(route)
    durations = Buckets(HTTP_BUCKETS)
    guarded, scope = not route.open, route.scope
    plain = guarded and route.query is None

    async def handle(http: web.Request) -> web.StreamResponse:
        services = app[SERVICES]
        metrics, headers = services.metrics, http.headers
        metrics.durations[method, path] = durations
        metrics.in_flight += 1
        began = time.perf_counter()
        name = request_id(headers.get(REQUEST_ID))
        status, caller, bucket, refused = GONE, _NOBODY, None, ""
        try:
            if guarded:
                caller = services.guard.admit(headers, scope)
                if caller.rate is not None:
                    bucket = await services.limits.of_token(caller)
            if plain and "?" in http._message.path and http.query_string:
                raise _no_parameters(route, http.query_string)
            answer = await action(services, Request(http, caller, name))
            status = answer.status
        except asyncio.CancelledError:
            status = http.get(BEGUN, GONE)
            raise
        except Exception as error:
            problem = _problem(error, name)
            status, refused = problem.status, problem.code
            answer = problem.response(http.rel_url.raw_path, name)
        finally:
            if caller is not _NOBODY:
                services.guard.leave(caller)
            metrics.in_flight -= 1
            metrics.requests[method, path, status] += 1
            durations.observe(time.perf_counter() - began)
        if route.submits and status >= 400:
            metrics.rejected[reason(status, refused)] += 1
        if bucket is not None:
            bucket.allowance().announce(answer)
        return _signed(answer, name)

    return handle


def _no_parameters(route: Route, given: str) -> HttpProblem:
    """`?wait=` or `?delay=` must not be ignored in silence."""
    hint = "Say all of it in the body; to wait for the end, GET /api/v1/tasks/{id}?wait=30." if route.submits else None
    detail = f"{route.method} {route.path} takes no parameters in its address, but came with ?{given[:40]}."
    return HttpProblem(400, "bad_query", detail, hint)


def _signed(answer: web.StreamResponse, name: str) -> web.StreamResponse:
    if type(answer) is Created:
        answer.request_id = name.encode()
    else:
        answer.headers[REQUEST_ID] = name
        answer.headers["Server"] = "headrace"
    return answer


def _problem(error: Exception, name: str) -> Problem:
    if isinstance(error, HeadraceError):
        problem = problem_of(error)
        log_problem(error, problem, name)
        return problem
    if isinstance(error, web.HTTPException):
        return problem_of_http(error)
    logger.error("A request failed unexpectedly", exc_info=error, extra={"fields": {"request_id": name}})
    return unexpected()
