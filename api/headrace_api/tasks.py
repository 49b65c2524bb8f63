"""The routes of single tasks: submit, look, wait, cancel, retry."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import ETag, web
from msgspec import UNSET, Meta, UnsetType
from multidict import CIMultiDictProxy, istr

from headrace import actions
from headrace.broker import durability as durable
from headrace.broker.broker import Submitted, TaskView
from headrace.errors import QueueFull, StoreUnavailable, TaskConflict, UnknownTask, WrongState
from headrace.journal import news
from headrace.task import TERMINAL, State

from .answers import SubmittedTask, TaskStatus
from .auditing import note
from .body import read_body
from .created import JSON, add_header
from .created import answer as answer_created
from .endpoint import Doc, Route
from .examples import CANCELLED, RETRIED, SUBMISSIONS, SUBMITTED, TASKS
from .follow import Sight
from .idempotency import IDEMPOTENCY_KEY, namer, read_key
from .prefer import PREFER, applied, preferred_wait
from .problems import HttpProblem, UniqueHeld
from .reading import read_query
from .services import Namespace, Request, Services
from .submissions import Accepted, Origin, Submission, fingerprint
from .task_body import TaskBody, task_body

logger = logging.getLogger(__name__)

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE: Final = istr("traceparent")
_encode: Final = msgspec.json.Encoder().encode
_PLAIN: Final = Origin()


async def submit_task(services: Services, request: Request) -> web.StreamResponse:
    """Submit a task.

    Answered when it is stored as durably as its queue asks. With an Idempotency-Key the same request can be sent again:
    it is the same task, and the answer says `Idempotent-Replayed`.
    """
    namespace = services.namespace(request.caller.namespace)
    body = await read_body(request.http, services.settings.max_body)
    origin = await origin_of(services, request, namespace) if _says_more(request.http.headers) else _PLAIN
    accepted = await namespace.desk.read(body, origin)
    queue = request.require_queue(accepted.queue)
    limits = services.limits
    allowance = None if limits.has_none(namespace.name, queue) else await limits.of_queue(namespace.name, queue)
    [stored] = await namespace.store(queue, (accepted,))
    if replayed := stored.status != "new":
        await settle(namespace, accepted, stored)
    else:
        services.metrics.accepted(accepted.type_label, accepted.new.priority, accepted.payload_bytes)
    wait_s = _preferred_wait(services, request)
    if wait_s is not None and "read" in request.caller.grants:
        told: web.StreamResponse = await _created_and_ended(services, namespace, accepted, replayed, wait_s)
    elif replayed or accepted.warning is not None:
        told = _created(accepted, replayed)
    else:
        told = answer_created(request.http, accepted.new.id)
    if allowance is not None:
        allowance.announce(told)
    if origin is not _PLAIN:
        announce_trace(told, origin)
    return told


def announce_trace(answer: web.StreamResponse, origin: Origin) -> None:
    """Send a traceparent back that was taken: what is none is dropped, and nobody would notice.

    It is no `traceresponse`, which would name a span of ours, and we make none.
    """
    if origin.traceparent is not None:
        add_header(answer, _TRACE, origin.traceparent)


def _preferred_wait(services: Services, request: Request) -> int | None:
    headers = request.http.headers
    return preferred_wait(headers.getall(PREFER), services.settings.max_wait_s) if PREFER in headers else None


async def _created_and_ended(
    services: Services, namespace: Namespace, accepted: Accepted, replayed: bool, wait_s: int
) -> web.Response:
    """The answer when the task has ended, or after so long. It is stored, whatever becomes of the wait."""
    task: TaskBody | UnsetType = UNSET
    try:
        seen = await _wait_for(services, namespace, await namespace.look(accepted.new.id), wait_s)
        if seen.state in TERMINAL:
            task = await _body(services, namespace, seen)
    except (UnknownTask, StoreUnavailable) as error:
        logger.debug("The wait for %s broke off. %s", accepted.new.id, error)
    return _created(accepted, replayed, task, applied(wait_s))


def _says_more(headers: CIMultiDictProxy[str]) -> bool:
    """Whether the headers say anything about a submission."""
    return IDEMPOTENCY_KEY in headers or _TRACE in headers


async def origin_of(services: Services, request: Request, namespace: Namespace) -> Origin:
    """What the headers say about a submission. Raises HttpProblem, StoreUnavailable."""
    headers = request.http.headers
    if not _says_more(headers):
        return _PLAIN
    trace = headers.get(_TRACE)
    if trace is not None and not _TRACEPARENT.fullmatch(trace):
        trace = None
    key = read_key(headers, services.settings.max_key_bytes) if IDEMPOTENCY_KEY in headers else None
    if key is None:
        return Origin(traceparent=trace)
    secret = await namespace.keys.secret()
    return Origin(namer(secret, namespace.name, request.caller.subject, key), fingerprint, secret, trace)


async def settle(namespace: Namespace, accepted: Accepted, answer: Submitted) -> None:
    """See what it means that a task was not stored. Raises QueueFull, UniqueHeld, and TaskConflict for
    another body under the same idempotency key."""
    if answer.status == "full":
        raise QueueFull(accepted.queue, answer.limit)
    if answer.holder is not None:
        raise UniqueHeld(accepted.queue, answer.holder)
    try:
        seen = await namespace.look(accepted.new.id)
    except UnknownTask:
        return  # its record expired between the two calls
    check_same(accepted, seen)


def check_same(accepted: Accepted, seen: TaskView) -> None:
    """Raises TaskConflict if the task that is there was another submission under the same idempotency key."""
    if seen.envelope is None or seen.envelope.fingerprint != accepted.fingerprint:
        raise TaskConflict(accepted.new.id)


def _created(
    accepted: Accepted, replayed: bool, task: TaskBody | UnsetType = UNSET, more: Mapping[str, str] = {}
) -> web.Response:
    task_id = accepted.new.id
    headers = {"Content-Type": JSON, "Location": f"/api/v1/tasks/{task_id}", **more}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    body = _encode(SubmittedTask(task_id, "submitted", accepted.warning or UNSET, task))
    return web.Response(body=body, status=201, headers=headers)


class ShowQuery(msgspec.Struct, frozen=True):
    """How to look at a task."""

    wait: Annotated[
        float,
        Meta(
            description="Seconds to wait for its end, at most 60 (a setting); then it is shown as it is.",
            ge=0,
            examples=[30],
            extra_json_schema={"maximum": 60},
        ),
    ] = 0.0


async def show_task(services: Services, request: Request) -> web.Response:
    """Show a task as it is now, or wait for its end.

    With `If-None-Match` it is 304 as long as nothing has changed; with a wait, too, it is answered at the next change.
    """
    namespace, task_id = services.namespace(request.caller.namespace), request.http.match_info["id"]
    request.require_id(task_id)
    wait_s, headers = _wait(services, request)
    known = request.http.if_none_match
    seen = await namespace.sight(task_id)
    if wait_s > 0 and known is not None and _is_known(known, seen):
        seen = await _wait_for_change(services, namespace, seen, wait_s)
    elif wait_s > 0 and known is None and seen.task.state not in TERMINAL:
        await _wait_for(services, namespace, seen.task, wait_s)
        seen = await namespace.sight(task_id)
    headers |= {**_NO_STORE, "ETag": f'W/"{seen.tag}"'}
    if known is not None and _is_known(known, seen):
        return web.Response(status=304, headers=headers)
    return web.Response(body=_encode(await _body(services, namespace, seen.task)), headers=headers)


async def _body(services: Services, namespace: Namespace, seen: TaskView) -> TaskBody:
    known = await namespace.types.find(seen.envelope.type) if seen.envelope else None
    default = known.described.max_retries if known else None
    return task_body(seen, services.settings.max_retries if default is None else default)


def _is_known(tags: Iterable[ETag], seen: Sight) -> bool:
    """RFC 9110: compared weakly; `*` is any."""
    return any(each.value in {seen.tag, "*"} for each in tags)


_NO_STORE: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}


def _wait(services: Services, request: Request) -> tuple[float, dict[str, str]]:
    """Seconds to wait, and the header that says so if it was a preference. Raises HttpProblem."""
    query, limit = request.http.query, services.settings.max_wait_s
    seconds = read_query(query, ShowQuery).wait if query else 0.0
    if seconds > limit:
        hint = f"give seconds from 0 to {limit:g}, as in ?wait=30"
        raise HttpProblem(400, "bad_query", f"wait is {query['wait'][:40]!r}.", hint)
    preferred = None if "wait" in query else _preferred_wait(services, request)
    return (seconds, {}) if preferred is None else (preferred, applied(preferred))


async def _wait_for_change(services: Services, namespace: Namespace, seen: Sight, wait_s: float) -> Sight:
    """The task when it is no longer as it was seen, or as it is after so long. Raises UnknownTask."""
    with namespace.follow.task(seen) as follower:
        if not services.closing:
            await news(follower.news, wait_s)
        if follower.seen is None:
            raise UnknownTask(seen.task.id)
        return follower.seen


async def _wait_for(services: Services, namespace: Namespace, seen: TaskView, wait_s: float) -> TaskView:
    """The task when it has ended, or as it is after so long."""
    try:
        async with asyncio.timeout(wait_s), namespace.waiting_for(seen) as event:
            while True:
                seen = await namespace.look(seen.id)
                if seen.state in TERMINAL or services.closing:
                    return seen
                await news(event)
    except TimeoutError:
        return await namespace.look(seen.id)


class CancelQuery(msgspec.Struct, frozen=True):
    """How to cancel."""

    force: Annotated[bool, Meta(description="End a running task under its worker, instead of asking it to.")] = False


async def cancel_task(services: Services, request: Request) -> web.Response:
    """Cancel a task.

    200: it is cancelled, and was perhaps before. 202: it runs, and its worker was asked to end it.
    """
    namespace = services.namespace(request.caller.namespace)
    force = read_query(request.http.query, CancelQuery).force
    note(request.http, force=force)
    task_id = request.http.match_info["id"]
    request.require_id(task_id)
    retention_s = max(1, int(services.settings.retention_s))
    call = namespace.queue_with(task_id).cancel(task_id, force=force, retention_s=retention_s)
    if actions.cancelled(task_id, await services.store.read(call)) is State.PROCESSING:
        return _status(task_id, "processing", 202, "Its worker was asked to end it.")
    return _status(task_id, "cancelled")


async def retry_task(services: Services, request: Request) -> web.Response:
    """Start a failed task over, or make a waiting one due now."""
    namespace = services.namespace(request.caller.namespace)
    task_id = request.http.match_info["id"]
    request.require_id(task_id)
    seen = await namespace.look(task_id)
    if seen.state in {State.FAILED, State.PENDING}:  # one that is pending may be so by a retry that was not confirmed
        await _replay(services, namespace, seen)
    elif seen.state in actions.DUE_LATER:
        await services.store.read(namespace.queue(seen.queue).promote([seen.id]))
    else:
        raise WrongState(seen.id, seen.state, "retried")
    return _status(seen.id, "pending")


async def _replay(services: Services, namespace: Namespace, seen: TaskView) -> None:
    durability = services.settings.durability[seen.queue]
    give_up = asyncio.get_running_loop().time() + services.store.patience_s(durability)
    call = namespace.queue(seen.queue).replay(seen.id, seen.last_place, touch=durable.touches(durability))
    actions.check_replayed(seen.id, await services.store.write(call, durability, give_up))


def _status(
    task_id: str, status: Literal["cancelled", "processing", "pending"], code: int = 200, note: str | UnsetType = UNSET
) -> web.Response:
    return web.Response(body=_encode(TaskStatus(task_id, status, note)), status=code, headers=_NO_STORE)


_CANCEL: Final = Doc(answer=CANCELLED, problems=("wrong_state",), also={202: TaskStatus})
ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/tasks",
        submit_task,
        "submit",
        submits=True,
        body=Submission,
        answer=SubmittedTask,
        status=201,
        doc=Doc(
            body=SUBMISSIONS,
            answer=SUBMITTED,
            headers=("Location", "Idempotent-Replayed", "Preference-Applied"),
            takes=("Prefer",),
        ),
    ),
    Route(
        "GET",
        "/api/v1/tasks/{id}",
        show_task,
        query=ShowQuery,
        answer=TaskBody,
        doc=Doc(
            answer=TASKS, headers=("ETag", "Preference-Applied"), also={304: None}, takes=("If-None-Match", "Prefer")
        ),
    ),
    Route(
        "DELETE",
        "/api/v1/tasks/{id}",
        cancel_task,
        "submit",
        query=CancelQuery,
        answer=TaskStatus,
        audit="task.cancel",
        doc=_CANCEL,
    ),
    Route(
        "POST",
        "/api/v1/tasks/{id}:cancel",
        cancel_task,
        "submit",
        query=CancelQuery,
        answer=TaskStatus,
        audit="task.cancel",
        doc=_CANCEL,
    ),
    Route(
        "POST",
        "/api/v1/tasks/{id}:retry",
        retry_task,
        "submit",
        answer=TaskStatus,
        audit="task.retry",
        doc=Doc(answer=RETRIED, problems=("wrong_state",)),
    ),
)
