"""The routes that find tasks: lists, errors by their cause, workers and what they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

import msgspec
from aiohttp import web
from msgspec import Meta
from multidict import MultiDict, MultiMapping

from headrace import listing, roster
from headrace.broker.broker import Queue
from headrace.failures import failures
from headrace.filters import MAX_CHARS, NAMES, Filter
from headrace.moments import FORM
from headrace.queues import names
from headrace.summaries import ErrorGroup, TaskSummary, WorkerSummary, error_group, summary, worker_summary
from headrace.task import LABEL, TAG, TYPE_NAME

from .created import JSON
from .cursors import FORM as CURSOR
from .cursors import seal, unseal
from .endpoint import Doc, Route
from .examples import GROUPED, LISTED, WORKERS
from .reading import read_query
from .services import Request, Services

MAX_PAGE: Final = 200
_encode: Final = msgspec.json.Encoder().encode
_HEADERS: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}
_TYPE: Final = rf"(\*|{TYPE_NAME}\*?)"
# The forms are told to readers of the OpenAPI document here, and checked by the filter, where an error gets a sentence.
Words = Annotated[str | None, Meta(extra_json_schema={"minLength": 1})]
Types = Annotated[str | None, Meta(extra_json_schema={"pattern": f"^{_TYPE}(,{_TYPE})*$"})]
Queues = Annotated[str | None, Meta(extra_json_schema={"pattern": f"^{LABEL}(,{LABEL})*$"})]
_Tag = Annotated[str | None, Meta(extra_json_schema={"pattern": f"^{TAG}$"})]
_Moment = Annotated[str | None, Meta(extra_json_schema={"pattern": f"^{FORM}$"})]
_Whole = Annotated[str | None, Meta(extra_json_schema={"maxLength": MAX_CHARS})]


class FilterQuery(msgspec.Struct, frozen=True):
    """Which tasks. An argument of theirs is `args.NAME=VALUE`, as in `args.user.id=42`."""

    q: Annotated[_Whole, Meta(description="a whole filter", examples=["state:failed error:Timeout since:2h"])] = None
    state: Annotated[Words, Meta(description="one or more, with commas between", examples=["failed,retrying"])] = None
    type: Annotated[Types, Meta(description="one or more; `image.*` is all that begin so", examples=["resize"])] = None
    queue: Annotated[Queues, Meta(description="one or more", examples=["default"])] = None
    tag: Annotated[_Tag, Meta(description="given twice, both must be there", examples=["acme"])] = None
    error: Annotated[Words, Meta(description="part of the last error's class or message", examples=["timed out"])] = (
        None
    )
    exception: Annotated[Words, Meta(description="the last error's class", examples=["TimeoutError"])] = None
    place: Annotated[Words, Meta(description="where that was raised", examples=["shop/tasks.py:fetch"])] = None
    since: Annotated[
        _Moment, Meta(description="ended, or else submitted, since: 90s, 2h, 3d ago, or a time", examples=["2h"])
    ] = None
    until: Annotated[_Moment, Meta(description="the same, until", examples=["2026-01-15T10:30:00Z"])] = None


class ListQuery(FilterQuery, frozen=True):
    """Which tasks, and how many of them."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="tasks of a page")] = listing.LIMIT
    cursor: Annotated[
        str | None,
        Meta(
            description="`next` of the page before, of the same filter",
            extra_json_schema={"pattern": f"^{CURSOR}$"},
        ),
    ] = None
    fields: Annotated[Literal["payload"] | None, Meta(description="what else to show of each task")] = None


class TaskList(msgspec.Struct, frozen=True):
    """A page of tasks."""

    tasks: list[TaskSummary]
    next: Annotated[str | None, Meta(description="cursor of the next page; null: the list ends here")]
    scanned: Annotated[int, Meta(description="tasks that were looked at for this page")]
    truncated: Annotated[
        bool, Meta(description="the look was long enough that the page ends early: more may be behind `next`")
    ]


class ErrorList(msgspec.Struct, frozen=True):
    """What failed for good or will be retried, the most frequent first."""

    errors: list[ErrorGroup]
    scanned: Annotated[int, Meta(description="tasks that were looked at")]
    truncated: Annotated[bool, Meta(description="there are more than that: counts are at least so high")]


class WorkerList(msgspec.Struct, frozen=True):
    """Workers of the queues that the token covers, by name."""

    workers: list[WorkerSummary]


async def list_tasks(services: Services, request: Request) -> web.Response:
    """List tasks, queue by queue: scheduled and retrying, parked, pending, processing, failed, then ended ones.

    A page looks at a bounded number of tasks, for a bounded time, and says at how many.
    """
    given = request.http.query
    filter = _filter(request, given)
    query = read_query(_without_arguments(given), ListQuery, NAMES)
    queues = await _queues(services, request, filter)
    namespace = services.namespace(request.caller.namespace)
    secret = await namespace.keys.secret()
    cursor = unseal(secret, namespace.name, filter, query.cursor) if query.cursor is not None else None
    payload, settings = query.fields == "payload", services.settings
    ask = listing.Ask(filter, cursor, query.limit, settings.scan_budget, payload, settings.scan_s)
    async with services.looks:
        page = await listing.page(services.store, queues, ask)
    after = seal(secret, namespace.name, filter, page.next) if page.next else None
    tasks = [summary(seen, payload=payload) for seen in page.items]
    headers = {"Link": _link(given, after)} if after else {}
    return _json(TaskList(tasks, after, page.scanned, page.truncated), headers)


async def list_errors(services: Services, request: Request) -> web.Response:
    """Group failed and retrying tasks by type, exception and place."""
    filter = _filter(request, request.http.query)
    read_query(_without_arguments(request.http.query), FilterQuery, NAMES)
    queues = await _queues(services, request, filter)
    async with services.looks:
        found = await failures(services.store, queues, filter, services.settings.scan_budget)
    return _json(ErrorList([error_group(group) for group in found.groups], found.scanned, found.truncated))


async def list_workers(services: Services, request: Request) -> web.Response:
    """List the workers, with what they run. One whose beat stopped is shown until others have taken its tasks."""
    queues = await _queues(services, request, Filter())
    seen = await services.namespace(request.caller.namespace).lookout.look()
    async with services.looks:
        found = await roster.workers(services.store, queues, services.settings.scan_budget)
    return _json(WorkerList([worker_summary(each, each.name in seen.active) for each in found]))


def _filter(request: Request, given: MultiMapping[str]) -> Filter:
    """The filter of a request. Raises InvalidFilter, HttpProblem (403: a queue that the token does not cover)."""
    words = MultiDict((name, value) for name, value in given.items() if name == "q" or name.split(".")[0] in NAMES)
    filter = Filter.from_query(words)
    for name in filter.queues:
        request.require_queue(name)
    return filter


def _without_arguments(given: MultiMapping[str]) -> Mapping[str, str]:
    return MultiDict((name, value) for name, value in given.items() if not name.startswith("args."))


async def _queues(services: Services, request: Request, filter: Filter) -> list[Queue]:
    """The queues that the filter and the token allow."""
    namespace = services.namespace(request.caller.namespace)
    there = await names(services.store, namespace.name)
    return [namespace.queue(name) for name in there if request.may(name) and name in (filter.queues or there)]


def _link(given: MultiMapping[str], cursor: str) -> str:
    """RFC 8288, relative to this address, so that it holds behind a proxy's prefix too."""
    rest = [(name, value) for name, value in given.items() if name != "cursor"]
    return f'<?{urlencode([*rest, ("cursor", cursor)])}>; rel="next"'


def _json(body: Any, headers: Mapping[str, str] = {}) -> web.Response:
    return web.Response(body=_encode(body), headers={**_HEADERS, **headers})


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/tasks",
        list_tasks,
        query=ListQuery,
        answer=TaskList,
        doc=Doc(answer=LISTED, problems=("invalid_filter", "bad_cursor"), headers=("Link",)),
    ),
    Route(
        "GET",
        "/api/v1/errors",
        list_errors,
        query=FilterQuery,
        answer=ErrorList,
        doc=Doc(answer=GROUPED, problems=("invalid_filter",)),
    ),
    Route("GET", "/api/v1/workers", list_workers, answer=WorkerList, doc=Doc(answer=WORKERS)),
)
