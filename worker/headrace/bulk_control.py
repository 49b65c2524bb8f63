"""`app.bulk`: what programs do to many tasks at once; each word for async and for sync callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from headrace import audit
from headrace.broker.client import AsyncClient
from headrace.bulk import Action, BulkJob, Count, Jobs, Order
from headrace.bulk_job import Progress
from headrace.bulk_run import Runner, Tell
from headrace.connections import Connections
from headrace.errors import HeadraceError
from headrace.filters import Filter
from headrace.handle import forbid_running_loop

logger = logging.getLogger(__name__)

R = TypeVar("R")


class BulkControl:
    """Retry, cancel or delete all tasks of an App's namespace that fit a filter, as a job that runs in this program.

    A filter is a text (`error:Timeout since:2h`) or a `Filter`; one without a state means failed tasks, for `cancel`
    those that wait. With `expected_count`, nothing is done if another number of tasks fits. `tell` is called after each
    step, of 100 tasks at most, with how far it is (`found`, `done`, `failed`); what it raises ends the job, as
    cancelling does, and what is done by then stays so. The job that comes back says what became of the tasks, and is
    in the lists of bulk jobs over HTTP while it runs and for a day.

    Everything here raises InvalidFilter, InvalidRequest for a state that cannot be, TooManyBulks, WrongCount,
    StoreUnavailable, RedisError and DurabilityUnconfirmed, and the sync methods WrongCaller in a running event loop.
    """

    def __init__(self, connections: Connections, app: str) -> None:
        self._connections = connections
        self._app = app

    async def dry_run(self, action: Action, filter: str | Filter) -> Count:
        """How many tasks `retry`, `cancel` or `delete` would be about now; nothing is done."""
        order = Order(action, _filter(filter))
        client, settings = self._connections.reach()
        return await Jobs(client, settings.namespace).count(order)

    def dry_run_sync(self, action: Action, filter: str | Filter) -> Count:
        """As `dry_run`."""
        return self._apart("dry_run", lambda: self.dry_run(action, filter))

    async def retry(
        self, filter: str | Filter, *, expected_count: int | None = None, tell: Tell | None = None
    ) -> BulkJob:
        """Failed tasks start over; scheduled and retrying ones, if the filter names these states, are due now."""
        return await self._order("retry", filter, expected_count, tell)

    def retry_sync(
        self, filter: str | Filter, *, expected_count: int | None = None, tell: Tell | None = None
    ) -> BulkJob:
        """As `retry`."""
        return self._apart("retry", lambda: self.retry(filter, expected_count=expected_count, tell=tell))

    async def cancel(
        self, filter: str | Filter, *, expected_count: int | None = None, tell: Tell | None = None
    ) -> BulkJob:
        """Tasks that wait end as cancelled; running ones, if the filter says `state:processing`, are asked to."""
        return await self._order("cancel", filter, expected_count, tell)

    def cancel_sync(
        self, filter: str | Filter, *, expected_count: int | None = None, tell: Tell | None = None
    ) -> BulkJob:
        """As `cancel`."""
        return self._apart("cancel", lambda: self.cancel(filter, expected_count=expected_count, tell=tell))

    async def delete(
        self, filter: str | Filter, *, expected_count: int | None = None, tell: Tell | None = None
    ) -> BulkJob:
        """Ended tasks are forgotten: dead letters, or those in the states that the filter names."""
        return await self._order("delete", filter, expected_count, tell)

    def delete_sync(
        self, filter: str | Filter, *, expected_count: int | None = None, tell: Tell | None = None
    ) -> BulkJob:
        """As `delete`."""
        return self._apart("delete", lambda: self.delete(filter, expected_count=expected_count, tell=tell))

    async def _order(
        self, action: Action, filter: str | Filter, expected_count: int | None, tell: Tell | None
    ) -> BulkJob:
        wanted = _filter(filter)
        order = Order(action, wanted, who=audit.person(f"app {self._app}"))
        shown = audit.filter_text(wanted)
        shared, settings = self._connections.reach()
        client = AsyncClient(shared.settings, "headrace-bulk")  # submissions do not wait behind its steps

        async def begun(job: BulkJob) -> None:
            detail = {"do": action, "filter": shown, "expected_count": expected_count, "bulk": job.id}
            await _record(client, settings.namespace, audit.Entry(order.who, "bulk.start", detail=detail))

        try:
            runner = Runner(client, settings.namespace, settings)
            return await _carried_out(partial(runner.order, order, expected_count, begun=begun), tell)
        finally:
            await client.aclose()

    def _apart(self, word: str, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        forbid_running_loop(f"bulk.{word}_sync()", f"await bulk.{word}()")
        return self._connections.apart(work)


async def _record(client: AsyncClient, namespace: str, entry: audit.Entry) -> None:
    try:
        await audit.record(client, namespace, entry)
    except HeadraceError as error:  # the job has begun, and goes on
        logger.error("The audit log could not be written: %s of %s. %s", entry.action, entry.detail["bulk"], error)


async def _carried_out(start: Callable[..., Coroutine[Any, Any, BulkJob]], tell: Tell | None) -> BulkJob:
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


def _filter(given: str | Filter) -> Filter:
    return Filter.parse(given) if isinstance(given, str) else given
