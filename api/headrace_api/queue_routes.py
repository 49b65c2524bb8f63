"""The routes of queues: what is in them, pausing, limits of their own, purging."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from headrace import queues, rates
from headrace.broker.broker import Queue
from headrace.queues import QueueState, QueueView

from .auditing import note
from .created import JSON
from .endpoint import Doc, Route
from .examples import PAUSED, QUEUE, QUEUES, RESUMED
from .reading import read_struct
from .services import Request, Services

_encode: Final = msgspec.json.Encoder().encode
_HEADERS: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}


class QueueList(msgspec.Struct, frozen=True):
    """The queues of the caller's namespace that its token covers, by name."""

    queues: list[QueueView]


class LimitsBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Limits to set; null takes one away, and what is left out stays."""

    max_depth: Annotated[
        int | UnsetType | None,
        Meta(
            description="live tasks; null: HEADRACE_MAX_DEPTH",
            examples=[10_000],
            extra_json_schema={"minimum": 1, "maximum": queues.MAX_MAX_DEPTH},
        ),
    ] = UNSET
    rate: Annotated[
        str | UnsetType | None,
        Meta(
            description="submissions over HTTP; null: any",
            examples=["100/s"],
            extra_json_schema={"pattern": f"^{rates.FORM}$"},
        ),
    ] = UNSET


def _json(body: Any) -> web.Response:
    return web.Response(body=_encode(body), headers=_HEADERS)


def _queue(services: Services, request: Request) -> Queue:
    """The queue of the path. Raises UnknownQueue for what cannot be one, HttpProblem (403)."""
    name = request.require_queue(request.http.match_info["queue"])
    return services.namespace(request.caller.namespace).queue(name)


async def _look(services: Services, queue: Queue) -> QueueView:
    seen = await services.namespace(queue.namespace).lookout.look()
    return await queues.look(services.store, queue, seen.serving.get(queue.name, ()))


async def list_queues(services: Services, request: Request) -> web.Response:
    """List the queues, as they were within the last second."""
    seen = await services.namespace(request.caller.namespace).lookout.look()
    names = filter(request.may, sorted(seen.depths))
    return _json(QueueList([queues.describe(name, seen.depths[name], seen.serving.get(name, ())) for name in names]))


async def show_queue(services: Services, request: Request) -> web.Response:
    """Show a queue as it is now."""
    return _json(await _look(services, _queue(services, request)))


async def pause_queue(services: Services, request: Request) -> web.Response:
    """Pause a queue: nothing more is claimed from it."""
    queue = _queue(services, request)
    return _json(QueueState(queue.name, True, await queues.pause(services.store, queue)))


async def resume_queue(services: Services, request: Request) -> web.Response:
    """Resume a queue: tasks are claimed again."""
    queue = _queue(services, request)
    return _json(QueueState(queue.name, False, await queues.resume(services.store, queue)))


async def limit_queue(services: Services, request: Request) -> web.Response:
    """Give a queue limits of its own."""
    queue = _queue(services, request)
    body = await read_struct(request.http, LimitsBody, services.settings.max_body)
    given = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    note(request.http, **given)
    await queues.limit(services.store, queue, **given)
    services.limits.forget(queue.namespace, queue.name)
    return _json(await _look(services, queue))


_LIMITS: Final = {"At most 10,000 tasks, any rate": {"max_depth": 10_000, "rate": None}}
ROUTES: Final = (
    Route("GET", "/api/v1/queues", list_queues, answer=QueueList, doc=Doc(answer=QUEUES)),
    Route("GET", "/api/v1/queues/{queue}", show_queue, answer=QueueView, doc=Doc(answer=QUEUE)),
    Route(
        "PATCH",
        "/api/v1/queues/{queue}",
        limit_queue,
        "operate",
        body=LimitsBody,
        answer=QueueView,
        audit="queue.limit",
        doc=Doc(body=_LIMITS, answer=QUEUE),
    ),
    Route(
        "POST",
        "/api/v1/queues/{queue}:pause",
        pause_queue,
        "operate",
        answer=QueueState,
        audit="queue.pause",
        doc=Doc(answer=PAUSED),
    ),
    Route(
        "POST",
        "/api/v1/queues/{queue}:resume",
        resume_queue,
        "operate",
        answer=QueueState,
        audit="queue.resume",
        doc=Doc(answer=RESUMED),
    ),
)
