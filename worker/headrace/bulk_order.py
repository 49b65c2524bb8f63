"""A bulk job that a program orders and carries out itself, as `app.bulk` and `app.queues` do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import msgspec

from headrace import audit
from headrace.broker.client import AsyncClient
from headrace.bulk import Action, BulkJob, Order, refuse_both
from headrace.bulk_job import Progress
from headrace.bulk_run import Runner, Tell
from headrace.connections import Connections
from headrace.errors import HeadraceError
from headrace.filters import Filter

logger = logging.getLogger(__name__)

FilterText = str | Filter | None


class Watched(TypedDict, total=False):
    """How a job is ordered."""

    expected_count: int | None
    """Do nothing if it is about another number of tasks."""
    tell: Tell | None
    """Called after each step, with how far it is; what it raises ends the job."""


class Named(Watched, total=False):
    """How a job on named tasks is."""

    ids: Sequence[str]
    """Which, in place of a filter; up to 1,000."""


def order_of(action: Action, filter: FilterText, ids: Sequence[str] | None, who: str = "") -> Order:
    """What shall be done. Raises InvalidFilter, InvalidRequest."""
    refuse_both(filter, ids)
    named = (ids,) if isinstance(ids, str) else tuple(ids or ())
    return Order(action, Filter.parse(filter) if isinstance(filter, str) else filter, named, who=who)


@dataclass(frozen=True)
class Ordered:
    """A job that this program carries out."""

    order: Order
    entry: audit.Entry
    """What the audit log says when it begins, without the job's id."""
    expected_count: int | None = None
    tell: Tell | None = None


async def carry_out(connections: Connections, ordered: Ordered) -> BulkJob:
    """The job when it has ended. Raises as `headrace.bulk_control` says."""
    shared, settings = connections.reach()
    client = AsyncClient(shared.settings, "headrace-bulk")  # submissions do not wait behind its steps

    async def begun(job: BulkJob) -> None:
        entry = ordered.entry
        detail = entry.detail | {"expected_count": ordered.expected_count, "bulk": job.id}
        await record(client, settings.namespace, msgspec.structs.replace(entry, detail=detail))

    try:
        runner = Runner(client, settings.namespace, settings)
        start = partial(runner.order, ordered.order, ordered.expected_count, begun=begun)
        return await _to_its_end(start, ordered.tell)
    finally:
        await client.aclose()


async def record(client: AsyncClient, namespace: str, entry: audit.Entry) -> None:
    """Into the audit log, if it can be written: what it tells of is done, and to call it refused would be a lie."""
    try:
        await audit.record(client, namespace, entry)
    except HeadraceError as error:
        what = entry.detail.get("bulk") or entry.target
        logger.error("The audit log could not be written: %s of %s. %s", entry.action, what, error)


async def _to_its_end(start: Callable[..., Coroutine[Any, Any, BulkJob]], tell: Tell | None) -> BulkJob:
    """As `Runner.order`, which leaves its job to others when `tell` raises: here there may be no others."""
    raised: list[Exception] = []

    def told(progress: Progress) -> None:
        try:
            if tell is not None and not raised:
                tell(progress)
        except Exception as error:
            raised.append(error)
            ordering.cancel()

    ordering = asyncio.create_task(start(tell=told), name="headrace-bulk-order")
    try:
        return await ordering
    except asyncio.CancelledError:
        if raised:
            raise raised[0] from None
        raise


__all__ = ["FilterText", "Named", "Ordered", "Watched", "carry_out", "order_of", "record"]
