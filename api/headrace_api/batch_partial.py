"""A batch of which each task stands for itself: stored, or refused with a problem of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from headrace.errors import HeadraceError, StoreUnavailable

from .answers import TaskId
from .created import JSON
from .metrics import Metrics, reason
from .problems import ProblemBody, log_problem, problem_of
from .services import Namespace, Request, Services
from .submissions import Accepted
from .tasks import settle

Told = Accepted | HeadraceError
"""What became of a task so far."""
REPLAYED = "replayed"


class BatchItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one task: its `task_id`, or its `problem`."""

    status: Annotated[int, Meta(description="201, or that of its problem.", ge=201, le=599)]
    task_id: TaskId | UnsetType = UNSET
    replayed: Annotated[bool, Meta(description="It was there already, under the same Idempotency-Key.")] = False
    warning: Annotated[str | UnsetType, Meta(description="Where no worker has published the type yet.")] = UNSET
    problem: Annotated[ProblemBody | UnsetType, Meta(description="Its pointers lead into this task.")] = UNSET


class PartialBatch(msgspec.Struct, frozen=True):
    """What became of each task, in the order of the batch."""

    failed: Annotated[int, Meta(description="How many have a problem.")]
    count: Annotated[int, Meta(description="How many are stored.")]
    tasks: list[BatchItem]


async def store_each(services: Services, request: Request, namespace: Namespace, read: Sequence[Told]) -> web.Response:
    """Store those that are in order, each by itself. Raises StoreUnavailable if that keeps all of them out."""
    allowed = await _allowed(services, request, namespace, read)
    await services.limits.charge_token(request.caller, len(read))
    told = await asyncio.gather(*(_store(services, namespace, each) for each in allowed))
    away = [each for each in told if isinstance(each, StoreUnavailable)]
    if away and len(away) == len(told):
        raise away[0]
    items = [_item(each, how, services.metrics, request.id) for each, how in zip(allowed, told, strict=True)]
    failed = sum(item.problem is not UNSET for item in items)
    body = msgspec.json.encode(PartialBatch(failed, len(items) - failed, items))
    return web.Response(body=body, status=207, headers={"Content-Type": JSON})


async def _allowed(services: Services, request: Request, namespace: Namespace, read: Sequence[Told]) -> Sequence[Told]:
    """The same, with a refusal where the token does not cover the queue, or the queue's rate is used up."""
    refused: dict[str, HeadraceError] = {}
    for queue, tasks in Counter(each.queue for each in read if isinstance(each, Accepted)).items():
        try:
            request.require_queue(queue)
            await services.limits.of_queue(namespace.name, queue, tasks)
        except HeadraceError as error:
            refused[queue] = error
    return [refused.get(each.queue, each) if isinstance(each, Accepted) else each for each in read]


async def _store(services: Services, namespace: Namespace, task: Told) -> HeadraceError | str:
    """Why it is not stored, else `new` or `replayed`."""
    if isinstance(task, HeadraceError):
        return task
    try:
        [answer] = await namespace.store(task.queue, (task,))
        if answer.status != "new":
            await settle(namespace, task, answer)
            return REPLAYED
    except HeadraceError as error:
        return error
    services.metrics.accepted(task.type_label, task.new.priority, task.payload_bytes)
    return "new"


def _item(task: Told, told: HeadraceError | str, metrics: Metrics, request_id: str) -> BatchItem:
    if isinstance(task, Accepted) and isinstance(told, str):
        return BatchItem(201, task.new.id, told == REPLAYED, task.warning or UNSET)
    error = told if isinstance(told, HeadraceError) else task
    assert isinstance(error, HeadraceError)
    problem = problem_of(error)
    log_problem(error, problem, request_id)
    metrics.rejected[reason(problem.status, problem.code)] += 1
    return BatchItem(problem.status, problem=problem.document())
