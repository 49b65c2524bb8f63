"""The routes of bulk jobs, and purging a queue, which is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from headrace import audit
from headrace.bulk import MAX_IDS, Count, Order, Purged, purge_order, refuse_both
from headrace.bulk_job import Action, BulkJob
from headrace.errors import FieldError, InvalidRequest, UnknownBulk
from headrace.filters import Filter, InvalidFilter
from headrace.queues import names, require

from .auditing import note
from .created import JSON
from .endpoint import Doc, Route
from .examples import JOB, JOBS
from .reading import read_struct
from .services import Request, Services

_HEADERS: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}
Expected = Annotated[
    Annotated[int, Meta(ge=0)] | None,
    Meta(description="409 wrong_count, and nothing is done, if it is about another number of tasks"),
]
DryRun = Annotated[bool, Meta(description="only count; nothing is done")]


class BulkBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What to do with which tasks: all that fit `filter`, or those with these `ids`."""

    action: Annotated[
        Action,
        Meta(
            description="retry: failed tasks start over, scheduled and retrying ones are due now. replay: failed "
            "ones alone. cancel: waiting tasks end, running ones (only with state:processing) are asked to. delete: "
            "ended tasks are forgotten. A filter without a state means failed tasks, for cancel those that wait"
        ),
    ]
    filter: Annotated[
        str | None, Meta(description="as in lists", examples=["state:failed type:resize error:Timeout since:2h"])
    ] = None
    ids: Annotated[list[str], Meta(max_length=MAX_IDS)] | UnsetType = UNSET
    dry_run: DryRun = False
    expected_count: Expected = None


class PurgeBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What to remove from a queue."""

    tasks: Annotated[
        Purged,
        Meta(
            description="waiting: pending, scheduled, retrying and parked tasks are cancelled; "
            "dead: dead letters are deleted"
        ),
    ]
    dry_run: DryRun = False
    expected_count: Expected = None


class BulkCount(msgspec.Struct, frozen=True):
    """The answer to a dry run."""

    found: int
    truncated: Annotated[bool, Meta(description="there was no time to count them all: there may be more")]


class BulkList(msgspec.Struct, frozen=True):
    """The jobs that are known, newest first."""

    jobs: list[BulkJob]


def _json(body: Any, status: int = 200, **headers: str) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, headers={**_HEADERS, **headers})


async def start_bulk(services: Services, request: Request) -> web.Response:
    """Retry, replay, cancel or delete many tasks, as a job.

    It answers with the job before that has begun to act; ask for it by its id. A dry run answers with a count instead.
    """
    body = await read_struct(request.http, BulkBody, services.settings.max_body)
    ids = None if body.ids is UNSET else tuple(body.ids)
    refuse_both(body.filter, ids)
    filter = None if body.filter is None else _filter(body.filter)
    shown = {} if filter is None else {"filter": audit.filter_text(filter)}
    note(request.http, do=body.action, ids=len(ids or ()) or None, **shown)
    order = Order(body.action, filter, ids or (), await _queues(services, request, filter), request.caller.subject)
    for task_id in order.ids:
        if not request.sees_all:
            request.require_id(task_id)
    return await _answer(services, request, order, body)


async def purge_queue(services: Services, request: Request) -> web.Response:
    """Purge a queue: cancel all that waits in it, or delete its dead letters, as a bulk job."""
    name = request.require_queue(request.http.match_info["queue"])
    body = await read_struct(request.http, PurgeBody, services.settings.max_body)
    note(request.http, tasks=body.tasks)
    queue = services.namespace(request.caller.namespace).queue(name)
    await require(services.store, queue)
    return await _answer(services, request, purge_order(queue.name, body.tasks, request.caller.subject), body)


async def _answer(services: Services, request: Request, order: Order, body: BulkBody | PurgeBody) -> web.Response:
    namespace = request.caller.namespace
    note(request.http, dry_run=body.dry_run, expected_count=body.expected_count)
    if body.dry_run:
        found: Count = await services.bulks.jobs(namespace).count(order)
        return _json(BulkCount(found.found, found.truncated))
    job = await services.bulks.start(namespace, order, body.expected_count)
    note(request.http, bulk=job.id)
    return _json(job, 202, Location=f"/api/v1/bulk/{job.id}")


def _filter(text: str) -> Filter:
    try:
        return Filter.parse(text)
    except InvalidFilter as error:
        raise InvalidRequest([FieldError("/filter", str(each).lstrip("/")) for each in error.errors]) from None


async def _queues(services: Services, request: Request, wanted: Filter | None) -> tuple[str, ...] | None:
    """Where the caller's token lets it look; None = everywhere."""
    for name in wanted.queues if wanted else ():
        request.require_queue(name)
    if request.sees_all:
        return None
    return tuple(filter(request.may, await names(services.store, request.caller.namespace)))


def _sees(request: Request, job: BulkJob) -> bool:
    """Whether the caller may see all of its queues. One that is about none is the affair of who ordered it."""
    if request.sees_all:
        return True
    return all(map(request.may, job.queues)) if job.queues else job.who == request.caller.subject


async def _job(services: Services, request: Request) -> BulkJob:
    """The job of the path. Raises UnknownBulk, also for one that the caller may not see."""
    bulk_id = request.http.match_info["job"]
    job = await services.bulks.jobs(request.caller.namespace).get(bulk_id)
    if not _sees(request, job):
        raise UnknownBulk(bulk_id)
    return job


async def show_bulk(services: Services, request: Request) -> web.Response:
    """Show a bulk job: how far it is, and what could not be done."""
    return _json(await _job(services, request))


async def abort_bulk(services: Services, request: Request) -> web.Response:
    """Abort a bulk job: it ends after the step that it is in; what was done stays done."""
    await _job(services, request)
    job = await services.bulks.jobs(request.caller.namespace).abort(request.http.match_info["job"])
    return _json(job, 202 if job.ended_at is None else 200)


async def list_bulks(services: Services, request: Request) -> web.Response:
    """List the bulk jobs of the last day, newest first."""
    jobs = await services.bulks.jobs(request.caller.namespace).ls()
    return _json(BulkList([job for job in jobs if _sees(request, job)]))


_START: Final = Doc(
    body={
        "Retry all failures of one kind": {"action": "retry", "filter": "type:resize exception:OSError since:2h"},
        "See how many tasks would be cancelled": {"action": "cancel", "filter": "queue:orders", "dry_run": True},
        "Cancel exactly so many": {"action": "cancel", "filter": "queue:orders", "expected_count": 1200},
    },
    answer=JOB,
    problems=("invalid_request", "wrong_count", "too_many_bulks", "forbidden_queue", "unknown_task"),
    headers=("Location",),
    also={200: BulkCount},
)
_PURGE: Final = Doc(
    body={"Delete the dead letters": {"tasks": "dead"}, "Only count what waits": {"tasks": "waiting", "dry_run": True}},
    answer=JOB,
    problems=("invalid_request", "unknown_queue", "wrong_count", "too_many_bulks"),
    headers=("Location",),
    also={200: BulkCount},
)
_ONE: Final = Doc(answer=JOB, problems=("unknown_bulk",))

ROUTES: Final = (
    Route(
        "POST", "/api/v1/bulk", start_bulk, "operate",
        body=BulkBody, answer=BulkJob, status=202, audit="bulk.start", doc=_START,
    ),
    Route("GET", "/api/v1/bulk", list_bulks, "operate", answer=BulkList, doc=Doc(answer=JOBS)),
    Route("GET", "/api/v1/bulk/{job}", show_bulk, "operate", answer=BulkJob, doc=_ONE),
    Route(
        "DELETE", "/api/v1/bulk/{job}", abort_bulk, "operate",
        answer=BulkJob, status=202, audit="bulk.abort", doc=replace(_ONE, also={200: BulkJob}),
    ),
    Route(
        "POST", "/api/v1/queues/{queue}:purge", purge_queue, "operate",
        body=PurgeBody, answer=BulkJob, status=202, audit="queue.purge", doc=_PURGE,
    ),
)  # fmt: skip
