"""`app.bulk`: what programs do to many tasks at once; each word for async and for sync callers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, Unpack

from headrace import audit
from headrace.broker.client import AsyncClient
from headrace.bulk import Action, BulkJob, Count, Jobs
from headrace.bulk_order import FilterText, Named, Ordered, carry_out, order_of, record
from headrace.connections import Connections
from headrace.handle import forbid_running_loop

R = TypeVar("R")
BulkJobs = list[BulkJob]


class BulkControl:
    """Retry, replay, cancel or delete many tasks of an App's namespace, as a job that runs in this program.

    They are those that fit a filter, a text (`error:Timeout since:2h`) or a `Filter`, or up to 1,000 named by `ids`. A
    filter without a state means failed tasks, for `cancel` those that wait. With `expected_count`, nothing is done if
    it is about another number of tasks. `tell` is called after each step, of 100 tasks at most, with how far it is
    (`found`, `done`, `failed`); what it raises ends the job, as cancelling does, and what is done by then stays so. The
    job that comes back says what became of the tasks, and is in all lists of bulk jobs while it runs and for a day.

    Everything here raises InvalidFilter, InvalidRequest for a state that cannot be and for neither filter nor ids,
    TooManyBulks, WrongCount, StoreUnavailable, RedisError and DurabilityUnconfirmed, and the sync methods WrongCaller
    in a running event loop.
    """

    def __init__(self, connections: Connections, app: str) -> None:
        self._connections = connections
        self._app = app

    async def dry_run(self, action: Action, filter: FilterText = None, *, ids: Sequence[str] | None = None) -> Count:
        """How many tasks `retry`, `replay`, `cancel` or `delete` would be about now; nothing is done."""
        _, jobs = self._jobs()
        return await jobs.count(order_of(action, filter, ids))

    def dry_run_sync(self, action: Action, filter: FilterText = None, *, ids: Sequence[str] | None = None) -> Count:
        """As `dry_run`."""
        return self._apart("dry_run", lambda: self.dry_run(action, filter, ids=ids))

    async def retry(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """Failed tasks start over; scheduled and retrying ones, if their state or they are named, are due now."""
        return await self._carry_out("retry", filter, how)

    def retry_sync(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """As `retry`."""
        return self._apart("retry", lambda: self.retry(filter, **how))

    async def replay(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """Dead letters start over: failed tasks, and no others."""
        return await self._carry_out("replay", filter, how)

    def replay_sync(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """As `replay`."""
        return self._apart("replay", lambda: self.replay(filter, **how))

    async def cancel(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """Tasks that wait end as cancelled; running ones, if `state:processing` or they are named, are asked to."""
        return await self._carry_out("cancel", filter, how)

    def cancel_sync(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """As `cancel`."""
        return self._apart("cancel", lambda: self.cancel(filter, **how))

    async def delete(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """Ended tasks are forgotten: dead letters, those in the states that the filter names, or those named."""
        return await self._carry_out("delete", filter, how)

    def delete_sync(self, filter: FilterText = None, **how: Unpack[Named]) -> BulkJob:
        """As `delete`."""
        return self._apart("delete", lambda: self.delete(filter, **how))

    async def list(self) -> BulkJobs:
        """The jobs of the last day, newest first, whoever ordered them."""
        _, jobs = self._jobs()
        return await jobs.ls()

    def list_sync(self) -> BulkJobs:
        """As `list`."""
        return self._apart("list", self.list)

    async def get(self, job_id: str) -> BulkJob:
        """A job as it is now. Raises UnknownBulk."""
        _, jobs = self._jobs()
        return await jobs.get(job_id)

    def get_sync(self, job_id: str) -> BulkJob:
        """As `get`."""
        return self._apart("get", lambda: self.get(job_id))

    async def abort(self, job_id: str) -> BulkJob:
        """End a job, whoever carries it out, after the step that it is in; what was done stays. Raises UnknownBulk."""
        client, jobs = self._jobs()
        job = await jobs.abort(job_id)
        await record(client, jobs.namespace, audit.Entry(self._who(), "bulk.abort", job_id))
        return job

    def abort_sync(self, job_id: str) -> BulkJob:
        """As `abort`."""
        return self._apart("abort", lambda: self.abort(job_id))

    async def _carry_out(self, action: Action, filter: FilterText, how: Named) -> BulkJob:
        order = order_of(action, filter, how.get("ids"), self._who())
        shown = {"ids": len(order.ids)} if order.filter is None else {"filter": audit.filter_text(order.filter)}
        entry = audit.Entry(order.who, "bulk.start", detail={"do": action, **shown})
        return await carry_out(self._connections, Ordered(order, entry, how.get("expected_count"), how.get("tell")))

    def _who(self) -> str:
        return audit.person(f"app {self._app}")

    def _jobs(self) -> tuple[AsyncClient, Jobs]:
        client, settings = self._connections.reach()
        return client, Jobs(client, settings.namespace)

    def _apart(self, word: str, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        forbid_running_loop(f"bulk.{word}_sync()", f"await bulk.{word}()")
        return self._connections.apart(work)
