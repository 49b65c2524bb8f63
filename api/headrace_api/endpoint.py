"""What surrounds every handler: who asks, the request's id, the clock, and errors as problem documents."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from headrace.errors import HeadraceError
from headrace.settings import ApiToken

from .buckets import Buckets
from .created import Created
from .metrics import HTTP_BUCKETS, REASONS
from .problems import Problem, log_problem, problem_of, problem_of_http, unexpected
from .services import SERVICES, Request, Services

logger = logging.getLogger(__name__)

Scope = Literal["read", "submit", "operate", "admin"]
"""read: look; submit: add tasks, cancel and retry single ones; operate: queues, dead letters and bulk; admin: all of it
and the audit log."""

Action = Callable[[Services, Request], Awaitable[web.StreamResponse]]

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
GONE: Final = 499
"""Counted for a request whose client went away before the answer."""
_NOBODY: Final = ApiToken("", "", b"")
_boot: Final = secrets.token_hex(6)
_numbers: Final = itertools.count(1)


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


def request_id(given: str | None) -> str:
    """The caller's own id, if it is harmless, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_boot}-{next(_numbers):x}"


def endpoint(route: Route) -> Handler:
    """The handler that aiohttp calls for this route."""
    method, path, action = route.method, route.path, route.action
    durations = Buckets(HTTP_BUCKETS)
    guarded = not route.open

    async def handle(http: web.Request) -> web.StreamResponse:
        services = http.app[SERVICES]
        metrics = services.metrics
        metrics.durations[method, path] = durations
        metrics.in_flight += 1
        began = time.perf_counter()
        name = request_id(http.headers.get("X-Request-Id"))
        status = GONE
        try:
            caller = services.guard.identify(http.headers) if guarded else _NOBODY
            answer = await action(services, Request(http, caller, name))
            status = answer.status
        except Exception as error:
            problem = _problem(error, name)
            status = problem.status
            answer = problem.response(http.rel_url.raw_path, name)
        finally:
            metrics.in_flight -= 1
            metrics.requests[method, path, status] += 1
            durations.observe(time.perf_counter() - began)
        if route.submits and status >= 400:
            metrics.rejected[REASONS.get(status, "invalid")] += 1
        return _signed(answer, name)

    return handle


def _signed(answer: web.StreamResponse, name: str) -> web.StreamResponse:
    if type(answer) is Created:
        answer.request_id = name.encode()
    else:
        answer.headers["X-Request-Id"] = name
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
