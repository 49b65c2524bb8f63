"""POST /api/v1/tasks:batch: up to 1,000 tasks, for one queue and stored together or not at all, or each by itself.

One whose unique key is held is not stored: its holder stands for it.

{"tasks": [{"type": "send_email", "payload": {…}}, …]}, or NDJSON: {"type": "send_email", "payload": {…}} on each line
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta

from headrace.broker.broker import MAX_SUBMIT, Submitted
from headrace.errors import FieldError, InvalidTask, TooLarge

from . import strict_json
from .answers import SubmittedBatch, SubmittedTask
from .batch_partial import PartialBatch, Told, store_each
from .body import NDJSON, is_by_line, read_body
from .created import JSON
from .endpoint import Doc, Route
from .examples import BATCHES, LINES, SUBMITTED_BATCH
from .reading import read_query
from .services import Namespace, Request, Services
from .shapes import explain_shape
from .strict_json import MalformedJson
from .submissions import Accepted, Origin, Submission
from .tasks import announce_trace, origin_of, settle

MAX_ERRORS: Final = 20
BREATH: Final = 20
"""Tasks after which other requests get their turn."""


class _Peek(msgspec.Struct):
    type: str


class _Peeked(msgspec.Struct, forbid_unknown_fields=True):
    """Refuses a million numbers at the first one, where a list of raw parts would fill memory."""

    tasks: list[_Peek]


class _Batch(msgspec.Struct):
    tasks: list[msgspec.Raw]


_peek: Final = msgspec.json.Decoder(_Peeked).decode
_split: Final = msgspec.json.Decoder(_Batch).decode
_bodies: Final = msgspec.json.Decoder(list[Submission]).decode
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
    by_line = is_by_line(request.http)
    limit = min(settings.max_batch, MAX_SUBMIT)
    parts = split_lines(text, limit) if by_line else split(text, limit)
    origin = await origin_of(services, request, namespace)
    if origin.fingerprint:
        whole = hashlib.sha256(text).hexdigest()[:32]
        origin = replace(origin, fingerprint=lambda document: whole)
    if partial_:
        answer = await store_each(services, request, namespace, await _read_each(namespace, parts, origin))
    else:
        batch = await _read_all(namespace, parts, origin, quickly=not by_line)
        answer = await _store_all(services, request, namespace, batch)
    announce_trace(answer, origin)
    return answer


async def _store_all(
    services: Services, request: Request, namespace: Namespace, batch: Sequence[Accepted]
) -> web.Response:
    queue = request.require_queue(_one_queue(batch))
    allowance = await services.limits.of_queue(namespace.name, queue, len(batch))
    await services.limits.charge_token(request.caller, len(batch))
    answer = await _store(services, namespace, batch)
    if allowance is not None:
        allowance.announce(answer)
    return answer


async def _store(services: Services, namespace: Namespace, batch: Sequence[Accepted]) -> web.Response:
    answers = await namespace.store(batch[0].queue, batch)
    rows = list(zip(batch, answers, strict=True))
    for accepted, answer in rows:
        if answer.status not in {"new", "unique"}:
            await settle(namespace, accepted, answer)  # all were stored or none, so one speaks for all
            return _created(rows, True)
    for accepted, answer in rows:
        if answer.status == "new":
            services.metrics.accepted(accepted.type_label, accepted.new.priority, accepted.payload_bytes)
    return _created(rows, False)


def split(text: bytes, limit: int) -> list[msgspec.Raw]:
    """The tasks of a batch, unread. Raises MalformedJson, InvalidTask, TooLarge."""
    try:
        count = len(_peek(text).tasks)
        if count > limit:
            raise TooLarge("batch", count, limit, "tasks")
        parts = _split(text).tasks
    except msgspec.ValidationError as error:
        raise InvalidTask("", [explain_shape(str(error), ["tasks"])]) from None
    except strict_json.FAILURES as error:
        raise MalformedJson(strict_json.explain(text, error)) from None
    if not parts:
        raise InvalidTask("", [FieldError("/tasks", "is empty", f"send 1 to {limit} tasks")])
    # All quotes are the tasks' but those of the one key; another `tasks` before it was dropped unseen.
    if text.count(b'"') != 2 + b"".join(parts).count(b'"'):
        raise MalformedJson(FieldError("/tasks", "the key occurs twice in one object", "send each key once"))
    return parts


def split_lines(text: bytes, limit: int) -> list[msgspec.Raw]:
    """The tasks of a batch that has one on each line, unread; empty lines are none. Raises InvalidTask, TooLarge."""
    parts = [msgspec.Raw(line) for line in map(bytes.strip, text.split(b"\n")) if line]
    if len(parts) > limit:
        raise TooLarge("batch", len(parts), limit, "tasks")
    if not parts:
        raise InvalidTask("", [FieldError("", "is empty", f"send 1 to {limit} tasks, one on each line")])
    return parts


async def _read_each(namespace: Namespace, parts: Sequence[msgspec.Raw], origin: Origin) -> list[Told]:
    """Each task, or what is wrong with it."""
    told: list[Told] = []
    for index, part in enumerate(parts):
        try:
            told.append(await namespace.desk.read(part, _own(origin, index)))
        except (MalformedJson, InvalidTask) as error:
            told.append(error)
        if index % BREATH == 0:
            await asyncio.sleep(0)
    return told


async def _read_all(
    namespace: Namespace, parts: Sequence[msgspec.Raw], origin: Origin, *, quickly: bool
) -> list[Accepted]:
    """Lines are read one by one: only together with its neighbours might one look like JSON."""
    batch: list[Accepted] = []
    errors: list[FieldError] = []
    for start in range(0, len(parts), BREATH):
        some = parts[start : start + BREATH]
        read = await _read_together(namespace, some, origin, start) if quickly else None
        batch += await _read_one_by_one(namespace, some, origin, start, errors) if read is None else read
        if len(errors) >= MAX_ERRORS:
            break
        await asyncio.sleep(0)
    if errors:
        raise InvalidTask("", errors[:MAX_ERRORS])
    return batch


async def _read_together(
    namespace: Namespace, parts: Sequence[msgspec.Raw], origin: Origin, start: int
) -> list[Accepted] | None:
    try:
        return await _read_quickly(namespace, parts, origin, start)
    except (MalformedJson, InvalidTask):
        return None


async def _read_quickly(
    namespace: Namespace, parts: Sequence[msgspec.Raw], origin: Origin, start: int
) -> list[Accepted]:
    """All of these tasks, read at once, if all are in order."""
    desk = namespace.desk
    text = b"[%b]" % b",".join(map(bytes, parts))
    try:
        bodies = _bodies(text)
    except strict_json.FAILURES as error:
        raise MalformedJson(strict_json.explain(text, error)) from None
    for body in bodies:
        desk.weigh(body)
    documents = strict_json.load_all(parts)
    accepted = []
    for index, (body, document) in enumerate(zip(bodies, documents, strict=True), start):
        own = _own(origin, index)
        # Nearly always its type is known, and then there is nothing to wait for.
        accepted.append(desk.judge_known(body, document, own) or await desk.judge(body, document, own))
    return accepted


def _own(origin: Origin, index: int) -> Origin:
    """Under an Idempotency-Key each task has an id of its own."""
    return replace(origin, task_id=partial(origin.task_id, index=index)) if origin.fingerprint else origin


async def _read_one_by_one(
    namespace: Namespace, parts: Sequence[msgspec.Raw], origin: Origin, start: int, errors: list[FieldError]
) -> list[Accepted]:
    """To say which task is wrong: its errors are added to `errors`. Raises MalformedJson."""
    accepted: list[Accepted] = []
    for index, part in enumerate(parts, start):
        try:
            accepted.append(await namespace.desk.read(part, _own(origin, index)))
        except MalformedJson as error:
            raise MalformedJson(_at(index, error.errors)[0]) from None
        except InvalidTask as error:
            errors += _at(index, error.errors)
    return accepted


def _at(index: int, errors: Sequence[FieldError]) -> list[FieldError]:
    return [FieldError(f"/tasks/{index}{each.pointer}", each.detail, each.hint) for each in errors]


def _one_queue(batch: Sequence[Accepted]) -> str:
    queue = batch[0].queue
    for index, each in enumerate(batch):
        if each.queue != queue:
            detail = f"goes to queue {each.queue!r}, the first task to {queue!r}"
            raise InvalidTask(
                "", [FieldError(f"/tasks/{index}/queue", detail, "send one batch a queue: only so is it atomic")]
            )
    return queue


def _created(rows: Sequence[tuple[Accepted, Submitted]], replayed: bool) -> web.Response:
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
