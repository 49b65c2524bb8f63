"""Carrying out bulk jobs: choose the next tasks, keep them, act on them, count; never more than 100 in one step.

The tasks of a step are kept before anything is done to them. Who takes over does that step again, and every action can
be done again: what has happened to one of these tasks already counts as done, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace import audit, listing
from headrace.broker.broker import MAX_ITEMS, Queue, view
from headrace.broker.client import AsyncClient
from headrace.bulk import Jobs, new_owner
from headrace.bulk_job import Action, BulkJob, Chosen, Order, Progress, Work
from headrace.errors import HeadraceError
from headrace.filters import Filter
from headrace.listing import Position
from headrace.settings import ClientSettings, Local
from headrace.task import TERMINAL, State, queue_of

logger = logging.getLogger(__name__)

RATE: Final = 2_000
"""Tasks a second, so that the workers have Redis to themselves most of the time."""
LOOKED_FOR_ONE: Final = 50
"""Tasks that are looked at for the price of one that is acted on."""
_UNKNOWN: Final = "unknown"
_NO_TASK: Final = "00000000-0000-0000-0000-000000000000"

Tell = Callable[[Progress], object]
Begun = Callable[[BulkJob], Awaitable[object]]


@dataclass
class Pace:
    """Not more than so many tasks a second, of all jobs that share it."""

    rate: float = RATE
    clock: Callable[[], float] = time.monotonic
    _free_at: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def spend(self, tasks: float) -> None:
        """Wait for those before, and make those behind wait for these."""
        async with self._turn:
            now = self.clock()
            if self._free_at > now:
                await asyncio.sleep(self._free_at - now)
            self._free_at = max(now, self._free_at) + tasks / self.rate


class Runner:
    """Carries out jobs of one namespace, over a connection of its own. For one event loop."""

    def __init__(
        self, client: AsyncClient, namespace: str, settings: ClientSettings, pace: Pace | None = None, owner: str = ""
    ) -> None:
        self.jobs = Jobs(client, namespace)
        self.owner = owner or new_owner()
        self._client = client
        self._namespace = namespace
        self._settings = settings
        self._pace = pace or Pace()
        self._queues: dict[str, Queue] = {}

    async def order(
        self, order: Order, expected_count: int | None = None, tell: Tell | None = None, begun: Begun | None = None
    ) -> BulkJob:
        """Begin a job and carry it out. Whoever is cancelled here aborts it, and waits for the end of its step.

        `begun` hears of the job before anything is done. Raises as `Jobs.start` does. If it raises anything else, a
        process of the API goes on with the job.
        """
        job = await self.jobs.start(order, expected_count, self.owner)
        running = asyncio.create_task(self._begin(job, begun, tell), name="headrace-bulk")
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await self.jobs.abort(job.id)
            await running
            raise
        return await self.jobs.get(job.id)

    async def _begin(self, job: BulkJob, begun: Begun | None, tell: Tell | None) -> str:
        if begun is not None:
            await begun(job)
        return await self.run(job.id, tell)

    async def run(self, bulk_id: str, tell: Tell | None = None) -> str:
        """Carry out a job to its end, and say how that was: done, aborted, or lost to another process."""
        work = await self.jobs.take(self.owner, bulk_id)
        return "lost" if work is None else await self.go_on(work, tell)

    async def go_on(self, work: Work, tell: Tell | None = None) -> str:
        """As `run`, for a job that was taken. Cancelled, it leaves the job to the next who looks."""
        try:
            state = await self._steps(work, tell or (lambda progress: None))
        except asyncio.CancelledError:
            with contextlib.suppress(HeadraceError):  # then its lease ends by itself
                await self.jobs.let_go(work, self.owner)
            raise
        if state != "lost":
            await self._write_down(work, state)
        return state

    async def _steps(self, work: Work, tell: Tell) -> str:
        progress, chosen, again = work.progress, work.next, True
        while True:
            if chosen:
                progress.count(chosen, await self._act(work.kept.action, chosen, again))
            chosen, looked = await self._choose(work)
            last = progress.listed and not chosen
            state = await self.jobs.save(work, self.owner, chosen, last=last)
            if state != "running":
                return state
            tell(progress)
            again = False
            await self._pace.spend(len(chosen) + looked / LOOKED_FOR_ONE)

    # choosing

    async def _choose(self, work: Work) -> tuple[tuple[Chosen, ...], int]:
        """The tasks of the next step, perhaps none, and how many were looked at for them."""
        if work.progress.listed:
            return (), 0
        return await (self._choose_ids(work) if work.kept.ids else self._choose_page(work))

    async def _choose_ids(self, work: Work) -> tuple[tuple[Chosen, ...], int]:
        progress = work.progress
        start = int(progress.cursor or 0)
        some = work.kept.ids[start : start + MAX_ITEMS]
        progress.cursor = str(start + len(some))
        progress.listed = start + len(some) >= len(work.kept.ids)
        return tuple(await asyncio.gather(*map(self._look, some))), len(some)

    async def _look(self, task_id: str) -> Chosen:
        name = queue_of(task_id)
        found = None if name is None else await self._client.call(self._queue(name).get(task_id))
        if name is None or found is None:
            return Chosen(task_id, _UNKNOWN, "")
        seen = view(task_id, name, found)
        return Chosen(task_id, seen.state, seen.last_place)

    async def _choose_page(self, work: Work) -> tuple[tuple[Chosen, ...], int]:
        progress = work.progress
        filter = Filter.parse(work.kept.filter, work.begun_ms)
        cursor = Position.parse(progress.cursor) if progress.cursor else None
        places = [self._queue(name) for name in work.kept.queues]
        page = await listing.page(self._client, places, listing.Ask(filter, cursor, MAX_ITEMS))
        progress.cursor = page.next.text() if page.next else None
        progress.listed = page.next is None
        return tuple(Chosen(seen.id, seen.state, seen.last_place) for seen in page.items), page.scanned

    def _queue(self, name: str) -> Queue:
        if name not in self._queues:
            self._queues[name] = Queue(name, self._namespace)
        return self._queues[name]

    # acting

    async def _act(self, action: Action, chosen: Sequence[Chosen], again: bool) -> list[str | None]:
        """What became of each: None = it is done, else why not. `again`: perhaps it was done already."""
        acts = {"retry": self._retry, "replay": self._replay, "cancel": self._cancel, "delete": self._delete}
        act = acts[action]
        results = list(await asyncio.gather(*(act(each, again) for each in chosen)))
        if action in {"retry", "replay"}:
            await self._confirm(chosen)
        return results

    async def _retry(self, each: Chosen, again: bool) -> str | None:
        name = queue_of(each.id)
        if name is None or each.state == _UNKNOWN:
            return "unknown_task"
        if each.state in {State.SCHEDULED, State.RETRYING}:
            moved, _ = await self._client.call(self._queue(name).promote([each.id]))
            return None if moved or again else "wrong_state"
        return await self._replay(each, again)

    async def _replay(self, each: Chosen, again: bool) -> str | None:
        name = queue_of(each.id)
        if name is None or each.state == _UNKNOWN:
            return "unknown_task"
        if each.state != State.FAILED:
            return "wrong_state"
        answer = await self._client.call(self._queue(name).replay(each.id, each.place))
        if answer == "replayed" or (again and answer not in _NEVER_REPLAYED):
            return None
        return _NEVER_REPLAYED.get(answer) or ("changed" if answer == "other" else "wrong_state")

    async def _cancel(self, each: Chosen, again: bool) -> str | None:
        name = queue_of(each.id)
        if name is None or each.state == _UNKNOWN:
            return "unknown_task"
        waits = each.state != State.PROCESSING
        retention_s = self._settings.retention_s
        answer = await self._client.call(self._queue(name).cancel(each.id, if_waiting=waits, retention_s=retention_s))
        if answer in {"cancelled", "asked"}:
            return None
        return "unknown_task" if answer == "unknown" else "wrong_state"

    async def _delete(self, each: Chosen, again: bool) -> str | None:
        name = queue_of(each.id)
        if name is None or each.state == _UNKNOWN:
            return "unknown_task"
        if each.state not in TERMINAL:
            return "wrong_state"
        [answer] = await self._client.call(self._queue(name).forget([(each.id, each.place)]))
        if answer == "deleted" or (again and answer == "unknown"):
            return None
        return {"unknown": "unknown_task", "live": "wrong_state"}.get(answer, "changed")

    async def _confirm(self, chosen: Sequence[Chosen]) -> None:
        """One confirmation covers all that this connection wrote before. Raises DurabilityUnconfirmed."""
        for name in {name for each in chosen if (name := queue_of(each.id)) is not None}:
            durability = self._settings.durability[name]
            if not isinstance(durability, Local):
                call = self._queue(name).replay(_NO_TASK, touch=True)
                await self._client.call(call, durability, timeout_s=self._settings.durability_timeout_s)

    async def _write_down(self, work: Work, state: str) -> None:
        progress = work.progress
        detail = {"found": progress.found, "done": progress.done, "failed": progress.found - progress.done}
        entry = audit.Entry(work.kept.who, "bulk.end", work.id, outcome=state, detail={**detail})
        try:
            await audit.record(self._client, self._namespace, entry)
        except HeadraceError as error:
            logger.error("The audit log could not be written: bulk job %s is %s. %s", work.id, state, error)


_NEVER_REPLAYED: Final = {"unknown": "unknown_task", "unique": "unique", "foreign": "malformed"}
"""Answers that no replay leaves behind, as reasons."""
