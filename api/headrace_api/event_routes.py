"""The routes that watch: one task until it ends, and all tasks of a namespace, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from headrace.ended import Place
from headrace.filters import Filter
from headrace.task import TERMINAL

from .answers import Stats
from .endpoint import Doc, Route
from .event_stream import stream
from .follow import Sight
from .hub import NO_PLACE, EndedEvent, GapEvent, LaggedEvent, Outbox, UnavailableEvent, View
from .listing import Queues, Types
from .reading import read_query
from .services import Namespace, Request, Services
from .sse import HEARTBEAT, event, heard
from .task_body import ProgressBody, TaskBody, progress_body, task_body

LAST_ID: Final = "Last-Event-ID"
_encode: Final = msgspec.json.Encoder().encode

MAX_SECONDS: Final = 86_400
Seconds = Annotated[
    Annotated[float, Meta(ge=0, le=MAX_SECONDS)] | None,
    Meta(description="Seconds after which the stream ends, for scripts. Left out: it does not.", examples=[60]),
]


class FollowQuery(msgspec.Struct, frozen=True):
    """How long to follow a task."""

    seconds: Seconds = None


class EventsQuery(msgspec.Struct, frozen=True):
    """Which events, and how long."""

    queue: Annotated[Queues, Meta(description="one or more, with commas between", examples=["default"])] = None
    type: Annotated[Types, Meta(description="of tasks that end: one or more; `image.*` is all that begin so")] = None
    seconds: Seconds = None


class GoneEvent(msgspec.Struct, frozen=True):
    """The task is no longer known: its record was kept long enough, or deleted. The stream ends."""

    id: str


async def follow_task(services: Services, request: Request) -> web.StreamResponse:
    """Watch a task: server-sent events until it has ended.

    `task` has all of it, now and whenever its state or its attempts have changed; `progress` how far its attempt is.
    Both tell the latest: what changed twice within a quarter of a second is told once. After the `task` that has ended
    the stream ends; who comes again with its id is answered 204, which tells a browser to come no more.
    """
    namespace, task_id = services.namespace(request.caller.namespace), request.http.match_info["id"]
    request.require_id(task_id)
    seconds = read_query(request.http.query, FollowQuery).seconds
    seen = await namespace.sight(task_id)
    known = request.http.headers.get(LAST_ID, "")
    if known == seen.version and seen.task.state in TERMINAL:
        return web.Response(status=204)
    return await stream(services, request, _changes(services, namespace, seen, known), seconds)


async def _changes(services: Services, namespace: Namespace, seen: Sight, known: str) -> AsyncGenerator[bytes, None]:
    with namespace.follow.task(seen) as follower:
        while True:
            now = follower.seen
            if now is None:
                yield event("gone", _encode(GoneEvent(seen.task.id)))
                return
            if now.version != known:
                known = now.version
                yield event("task", _encode(_body(services, namespace, now)), known)
            elif now.task.progress is not None:
                yield event("progress", _encode(progress_body(now.task.progress)))
            if now.task.state in TERMINAL:
                return
            # Who is closing has let go already, so that there will be no news for who comes now.
            while not services.closing and not await heard(follower.news):
                yield HEARTBEAT
            if services.closing:
                return


def _body(services: Services, namespace: Namespace, seen: Sight) -> TaskBody:
    """Of the types only those are looked at that are known: a stream that has begun can answer no error."""
    known = namespace.types.get(seen.task.envelope.type) if seen.task.envelope else None
    default = known.described.max_retries if known else None
    return task_body(seen.task, services.settings.max_retries if default is None else default)


async def watch_events(services: Services, request: Request) -> web.StreamResponse:
    """Watch all tasks: server-sent events of what ends, and of how many tasks are where.

    `ended` is a task that ended, in a queue that the token covers. `overview` is what /api/v1/stats answers, at first
    and then once a second if it has changed. `gap`: since the Last-Event-ID more ended than is told. `lagged`: the
    client reads too slowly, and the stream ends. `unavailable`: Redis is away, so what is told is late. What ended in
    the same millisecond as the Last-Event-ID may come twice.
    """
    namespace = services.namespace(request.caller.namespace)
    query = read_query(request.http.query, EventsQuery)
    view = _view(request, query)
    last = request.http.headers.get(LAST_ID, "")
    since = Place.parse(last) if last else None
    async with namespace.hub.joined(view, since) as (first, outbox):
        begin = NO_PLACE + first if last and since is None else first
        return await stream(services, request, _events(services, begin, outbox), query.seconds)


async def _events(services: Services, first: bytes, outbox: Outbox) -> AsyncGenerator[bytes, None]:
    yield first
    while not outbox.over and not services.closing:
        while not await heard(outbox.news):
            yield HEARTBEAT
        yield outbox.take()
    yield outbox.take()


def _view(request: Request, query: EventsQuery) -> View:
    """Raises InvalidFilter, HttpProblem (403: a queue that the token does not cover)."""
    words = {name: value for name in ("queue", "type") if (value := getattr(query, name)) is not None}
    filter = Filter.from_query(words)
    for name in filter.queues:
        request.require_queue(name)
    return View(request.caller.queues, filter.queues, filter.types, request.caller)


_ENDED: Final = {
    "event": "ended",
    "id": "1768473006811-0/default",
    "data": '{"id":"01890a5d-ac96-474b-bcce-b302099a8057","queue":"default","type":"send_email",'
    '"status":"completed","at":"2026-01-15T10:30:06.811Z"}',
}
_PROGRESS: Final = {
    "event": "progress",
    "data": '{"done":3,"total":10,"message":"three of ten pages","at":"2026-01-15T10:30:05.600Z"}',
}
_EVENTS: Final[Mapping[str, type]] = {
    "ended": EndedEvent,
    "overview": Stats,
    "gap": GapEvent,
    "lagged": LaggedEvent,
    "unavailable": UnavailableEvent,
}
ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/tasks/{id}/events",
        follow_task,
        query=FollowQuery,
        answer=str,
        doc=Doc(
            answer={"An attempt that says how far it is": _PROGRESS},
            media="text/event-stream",
            also={204: None},
            takes=(LAST_ID,),
            events={"task": TaskBody, "progress": ProgressBody, "gone": GoneEvent},
        ),
    ),
    Route(
        "GET",
        "/api/v1/events",
        watch_events,
        query=EventsQuery,
        answer=str,
        doc=Doc(
            answer={"A task that ended": _ENDED},
            media="text/event-stream",
            problems=("invalid_filter",),
            takes=(LAST_ID,),
            events=_EVENTS,
        ),
    ),
)
