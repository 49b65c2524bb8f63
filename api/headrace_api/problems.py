"""Every error as an RFC 9457 problem document: what happened, why, what to do. One table gives each its status.

    HTTP/1.1 429 Too Many Requests
    Content-Type: application/problem+json
    Retry-After: 1

    {"type": "https://…/queue_full.md", "title": "The queue is full", "status": 429, "code": "queue_full", …}

`code` is stable and the same as in the library; `type` is where its page is. Nothing of the inside is shown: no
stack trace, and of Redis neither address nor words; those are logged, beside the request id that the answer carries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from headrace.broker.connection import RedisError
from headrace.error_base import page_of
from headrace.errors import (
    ConfigError,
    DurabilityUnconfirmed,
    FieldError,
    HeadraceError,
    InvalidFilter,
    InvalidPayload,
    InvalidRequest,
    InvalidTask,
    QueueFull,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    TaskConflict,
    TooLarge,
    TooManyBulks,
    UnknownBulk,
    UnknownQueue,
    UnknownTask,
    UnknownType,
    WrongCount,
    WrongState,
)

from .strict_json import MalformedJson

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_AGAIN: Final = "Send it again after Retry-After; with the same Idempotency-Key it makes one task."


@dataclass(frozen=True, slots=True)
class Kind:
    """How errors of one class are told over HTTP."""

    status: int
    title: str
    hint: str | None = None
    retry_after_s: int | None = None
    public: str | None = None
    """Said instead of the error's own sentence, which then is for the log only."""


class UniqueHeld(HeadraceError):  # noqa: N818 - named for the outcome, as in headrace.errors
    """The unique key of a submission is held by another task of the queue, so nothing was stored."""

    code = "unique_held"

    def __init__(self, queue: str, holder: str) -> None:
        super().__init__(queue, holder)
        self.queue = queue
        self.task_ids = (holder,)

    def __str__(self) -> str:
        return f"Task {self.task_ids[0]} holds this unique key in queue {self.queue!r}; nothing was stored."


_STORE: Final = "The task store cannot be reached; whether this request was carried out is unknown."
KINDS: Final[Mapping[type[HeadraceError], Kind]] = {
    MalformedJson: Kind(400, "The body is not acceptable JSON"),
    InvalidFilter: Kind(400, "The filter is refused"),
    UnknownTask: Kind(404, "No such task"),
    UnknownQueue: Kind(404, "No such queue"),
    UnknownType: Kind(404, "No such type"),
    UnknownBulk: Kind(404, "No such bulk job"),
    WrongState: Kind(409, "The task is in another state"),
    WrongCount: Kind(409, "Another number of tasks than expected"),
    UniqueHeld: Kind(409, "The unique key is held", "That task stands for yours: ask for it by its id."),
    TooLarge: Kind(413, "Too large"),
    InvalidPayload: Kind(422, "The payload does not fit the task type"),
    TaskConflict: Kind(422, "The idempotency key was used for another submission"),
    InvalidTask: Kind(422, "The submission is refused"),
    InvalidRequest: Kind(422, "The request is refused"),
    TooManyBulks: Kind(429, "Too many bulk jobs", None, 5),
    QueueFull: Kind(429, "The queue is full", _AGAIN, 1),
    StoreFull: Kind(503, "The task store is full", _AGAIN, 5, "The task store has no room now; nothing was stored."),
    StoreTimeout: Kind(503, "The task store is slow", _AGAIN, 1, _STORE),
    StoreUnavailable: Kind(503, "The task store is away", _AGAIN, 1, _STORE),
    DurabilityUnconfirmed: Kind(503, "Stored, but not yet as durable as the queue asks", _AGAIN, 1),
    RedisError: Kind(503, "The task store refuses", "Ask whoever runs this service; its log says why.", 30, _STORE),
    ConfigError: Kind(
        503,
        "The service is not set up for this",
        "Ask whoever runs this service; its log says why.",
        30,
        "This service's settings do not fit its task store.",
    ),
}


class HttpProblem(HeadraceError):  # noqa: N818 - named for the outcome, as in headrace.errors
    """What is wrong with a request as HTTP, before it means anything to headrace."""

    def __init__(
        self, status: int, code: str, detail: str, hint: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, code, detail, hint)
        self.status, self.detail, self.hint = status, detail, hint
        self.problem_code = code
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.detail


class FieldProblem(msgspec.Struct, omit_defaults=True, frozen=True):
    """One thing that is wrong with a request."""

    pointer: Annotated[str, Meta(description="Where in the body (RFC 6901).")]
    detail: str
    hint: Annotated[str | UnsetType, Meta(description="What to do.")] = UNSET


class ProblemBody(msgspec.Struct, omit_defaults=True, frozen=True):
    """What went wrong, why, and what to do (RFC 9457)."""

    type: Annotated[
        str, Meta(description="The page about this code.", pattern=r"^(https://.*/[a-z_]+\.md|about:blank)$")
    ]
    title: Annotated[str, Meta(description="What it is, the same for each problem of this code.")]
    status: Annotated[int, Meta(description="The HTTP status.", ge=400, le=599)]
    detail: Annotated[str, Meta(description="What is wrong with this request.")]
    code: Annotated[str, Meta(description="Stable, for programs to decide on.", pattern="^[a-z_]+$")]
    instance: Annotated[str, Meta(description="The path of the request.")] = ""
    request_id: Annotated[str, Meta(description="The log has more under it.")] = ""
    hint: Annotated[str | UnsetType, Meta(description="What to do, where that can be said.")] = UNSET
    errors: Annotated[list[FieldProblem] | UnsetType, Meta(description="What is wrong where.")] = UNSET
    task_ids: Annotated[list[str] | UnsetType, Meta(description="The tasks that it is about.")] = UNSET


def type_of(code: str) -> str:
    """The `type` of problems of this code; `http` says no more than the status does."""
    return "about:blank" if code == "http" else page_of(code)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error, ready to be told."""

    status: int
    code: str
    title: str
    detail: str
    hint: str | None = None
    errors: tuple[FieldError, ...] = ()
    task_ids: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self, instance: str = "", request_id: str = "") -> ProblemBody:
        """What is told. `instance` is the path of the request."""
        fields = [FieldProblem(each.pointer, each.detail, each.hint or UNSET) for each in self.errors]
        return ProblemBody(
            type=type_of(self.code),
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            instance=instance[:512],
            request_id=request_id,
            hint=self.hint or UNSET,
            errors=fields or UNSET,
            task_ids=list(self.task_ids[:1_000]) or UNSET,
        )

    def body(self, instance: str = "", request_id: str = "") -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self.document(instance, request_id))

    def response(self, instance: str = "", request_id: str = "") -> web.Response:
        """The answer."""
        headers = self.all_headers(request_id)
        return web.Response(status=self.status, body=self.body(instance, request_id), headers=headers)

    def all_headers(self, request_id: str = "") -> dict[str, str]:
        """Of the answer: its own, and those that every problem has."""
        fixed = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", "Server": "headrace", **self.headers}
        return fixed | ({"X-Request-Id": request_id} if request_id else {})


def problem_of(error: HeadraceError) -> Problem:
    """The problem that this error is."""
    if isinstance(error, HttpProblem):
        title = HTTPStatus(error.status).phrase
        return Problem(error.status, error.problem_code, title, str(error), error.hint, headers=error.headers)
    kind = next((KINDS[each] for each in type(error).__mro__ if each in KINDS), None)
    if kind is None:
        return unexpected()
    return Problem(
        kind.status,
        error.code,
        kind.title,
        kind.public or str(error),
        kind.hint,
        errors=tuple(getattr(error, "errors", ())),
        task_ids=getattr(error, "task_ids", ()),
        headers={} if kind.retry_after_s is None else {"Retry-After": str(kind.retry_after_s)},
    )


def unexpected() -> Problem:
    """For an exception that nobody foresaw; the log has it under the request id."""
    detail = "Something went wrong inside; it is not your request's fault."
    hint = "Report it with the request id. With the same Idempotency-Key it can be sent again without harm."
    return Problem(500, "internal", "Internal error", detail, hint)


_ROUTER: Final[Mapping[int, tuple[str, str]]] = {
    404: ("unknown_route", "There is nothing at this path."),
    405: ("wrong_method", "This path does not take this method."),
    413: ("too_large", "The body is too large."),
    417: ("expectation_failed", "Of Expect only 100-continue is understood."),
}
_HINTS: Final[Mapping[int, str]] = {
    404: "See the paths that there are at /docs, or in /openapi.json.",
    417: "Leave the header out.",
}


def problem_of_http(error: web.HTTPException) -> Problem:
    """aiohttp's own errors: no such route, wrong method, …"""
    code, detail = _ROUTER.get(error.status, ("http", error.reason))
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    hint = f"It takes {headers['Allow']}." if "Allow" in headers else _HINTS.get(error.status)
    return Problem(error.status, code, HTTPStatus(error.status).phrase, detail, hint, headers=headers)


def not_http(message: str) -> Problem:
    """Bytes that aiohttp's parser refused; `message` is its own and may repeat them."""
    lines = message.strip().splitlines() or [""]
    if "more than 8190 bytes" in lines[0]:
        return Problem(
            400, "bad_http", "Bad Request", "The address or a header has more than 8190 bytes.", "Send less."
        )
    reason = "".join(char for char in lines[0] if char.isprintable()).strip(" :")[:120]
    detail = f"The request is not well-formed HTTP/1.1{reason and f' ({reason})'}."
    return Problem(400, "bad_http", "Bad Request", detail, "Use an HTTP library rather than writing requests by hand.")


def log_problem(error: HeadraceError, problem: Problem, request_id: str) -> None:
    """What the client is not told in full, for whoever looks closely; the store tells of its troubles by itself."""
    if problem.status >= 500:
        logger.debug("%s", error, extra={"fields": {"request_id": request_id, "code": problem.code}})
