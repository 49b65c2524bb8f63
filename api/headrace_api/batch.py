"""POST /api/v1/tasks:batch: up to 1,000 tasks, for one queue and stored together or not at all, or each by itself.

One whose unique key is held is not stored: its holder stands for it.

{"tasks": [{"type": "send_email", "payload": {…}}, …]}, or NDJSON: {"type": "send_email", "payload": {…}} on each line
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta

from headrace.broker.broker import MAX_ITEMS, MAX_SUBMIT, Submitted, view
from headrace.errors import FieldError, InvalidTask

from .answers import SubmittedBatch, SubmittedTask
from .batch_partial import PartialBatch, store_each
from .batch_reading import BatchReader
from .body import NDJSON, is_by_line, read_body
from .created import JSON
from .endpoint import Doc, Route
from .examples import BATCHES, LINES, SUBMITTED_BATCH
from .reading import read_query
from .services import Namespace, Request, Services
from .submissions import Accepted, Submission
from .tasks import announce_trace, check_same, origin_of, settle

_encode: Final = msgspec.json.Encoder().encode


async def submit_batch(services: Services, request: Request) -> web.Response:
    """Submit many tasks at once.

    All are stored or none: one wrong task, and the answer says what is wrong with which. All go to one queue.
    With `partial` each task stands for itself, in a queue of its own, and the answer is 207 with a status for each.
    Instead of one object the body may be NDJSON (`application/x-ndjson`): a task on each line.
    """
    settings = services.settings
    namespace = services.namespace(request.caller.namespace)
    partial_ = read_query(request.http.query, BatchQuery).partial
    text = await read_body(request.http, settings.max_batch_bytes, lines=True)
    origin = await origin_of(services, request, namespace)
    if origin.fingerprint:
        whole = hashlib.sha256(text).hexdigest()[:32]
        origin = replace(origin, fingerprint=lambda document: whole)
    reader = BatchReader(namespace.desk, origin, min(settings.max_batch, MAX_SUBMIT))
    by_line = is_by_line(request.http)
    if partial_:
        answer = await store_each(services, request, namespace, await reader.read_each(text, by_line=by_line))
    else:
        batch = await reader.read_all(text, by_line=by_line)
        answer = await _store_all(services, request, namespace, batch)
    announce_trace(answer, origin)
    return answer


async def _store_all(
    services: Services, request: Request, namespace: Namespace, batch: Sequence[Accepted]
) -> web.Response:
    queue = request.require_queue(_one_queue(batch))
    allowance = await services.limits.of_queue(namespace.name, queue, len(batch))
    await services.limits.charge_token(request.caller, len(batch))
    if batch[0].fingerprint is not None:
        await _check_key(services, namespace, batch)
    answer = await _store(services, namespace, batch)
    if allowance is not None:
        allowance.announce(answer)
    return answer


async def _check_key(services: Services, namespace: Namespace, batch: Sequence[Accepted]) -> None:
    """See that the key was not used for another submission, before anything is stored: of a longer batch, or one of
    which a task was held back then, some would be new. Of two that come in the same moment one is refused afterwards,
    and its further tasks stay. Raises TaskConflict, StoreUnavailable.
    """
    queue = namespace.queue(batch[0].queue)
    ids = [accepted.new.id for accepted in batch]
    asked = (queue.find(ids[start : start + MAX_ITEMS]) for start in range(0, len(ids), MAX_ITEMS))
    found = chain.from_iterable(await asyncio.gather(*map(services.store.read, asked)))
    for accepted, each in zip(batch, found, strict=True):
        if each is not None:
            check_same(accepted, view(accepted.new.id, queue.name, each))


async def _store(services: Services, namespace: Namespace, batch: Sequence[Accepted]) -> web.Response:
    answers = await namespace.store(batch[0].queue, batch)
    rows = list(zip(batch, answers, strict=True))
    old = [row for row in rows if row[1].status not in {"new", "unique"}]
    if old:
        # All were stored or none, so one speaks for all; but not one that is known for one that there is no room for.
        await settle(namespace, *min(old, key=lambda row: row[1].status != "full"))
    new = [accepted for accepted, answer in rows if answer.status == "new"]
    for accepted in new:
        services.metrics.accepted(accepted.type_label, accepted.new.priority, accepted.payload_bytes)
    return _created(rows, replayed=bool(old) and not new)


def _one_queue(batch: Sequence[Accepted]) -> str:
    queue = batch[0].queue
    for index, each in enumerate(batch):
        if each.queue != queue:
            detail = f"goes to queue {each.queue!r}, the first task to {queue!r}"
            raise InvalidTask(
                "", [FieldError(f"/tasks/{index}/queue", detail, "send one batch a queue: only so is it atomic")]
            )
    return queue


def _created(rows: Sequence[tuple[Accepted, Submitted]], *, replayed: bool) -> web.Response:
    tasks = [_item(accepted, answer) for accepted, answer in rows]
    headers = {"Content-Type": JSON} | ({"Idempotent-Replayed": "true"} if replayed else {})
    return web.Response(body=_encode(SubmittedBatch(len(tasks), tasks)), status=201, headers=headers)


def _item(accepted: Accepted, answer: Submitted) -> SubmittedTask:
    """A task whose unique key is held is not stored; the holder stands for it, and the rest of the batch is stored."""
    warning = accepted.warning or UNSET
    if answer.holder is not None:
        return SubmittedTask(answer.holder, "held", warning)
    return SubmittedTask(accepted.new.id, "submitted", warning)


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """Tasks for one queue."""

    tasks: Annotated[list[Submission], Meta(description="Up to 1,000 (a setting).", min_length=1, max_length=1_000)]


Lines = Annotated[
    list[Submission], Meta(description="Not an array, but a task on each line.", min_length=1, max_length=1_000)
]


class BatchQuery(msgspec.Struct, frozen=True):
    """How to take it."""

    partial: Annotated[
        bool, Meta(description="Store those tasks that are in order, whatever is wrong with others.")
    ] = False


ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/tasks:batch",
        submit_batch,
        "submit",
        submits=True,
        query=BatchQuery,
        body=BatchBody,
        answer=SubmittedBatch,
        status=201,
        doc=Doc(
            body=BATCHES,
            bodies={NDJSON: (Lines, LINES)},
            answer=SUBMITTED_BATCH,
            headers=("Idempotent-Replayed",),
            also={207: PartialBatch},
        ),
    ),
)
