"""The bulk jobs that this process carries out: those ordered here, and those whose process is gone."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from headrace.broker.client import AsyncClient
from headrace.bulk import Jobs, new_owner
from headrace.bulk_job import Action, BulkJob, Order, Progress, Work
from headrace.bulk_run import Pace, Runner
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from .overview import Lookout
    from .services import Services

logger = logging.getLogger(__name__)

LOOK_S: Final = 2.0
"""Seconds between two looks for jobs that nobody carries out."""
AGAIN_S: Final = 1.0
"""Seconds after which a job goes on that Redis interrupted."""


class Counts:
    """What one process did of a job, for its metrics: all that Redis kept of its steps, each once."""

    def __init__(self, of: Counter[tuple[str, str]]) -> None:
        self.of = of
        self._term = -1
        self._action: Action = "retry"
        self._done = self._found = 0

    def took(self, work: Work) -> None:
        """The job is in this process' hands, perhaps again: then it may show a step of which the answer was lost."""
        if work.term != self._term:  # what it shows was done by others
            self._done, self._found = work.progress.done, work.progress.found
        self._term, self._action = work.term, work.kept.action
        self.saw(work.progress)

    def saw(self, progress: Progress) -> None:
        """The job is so far, and that is kept."""
        done, found = progress.done - self._done, progress.found - self._found
        self.of[self._action, "done"] += done
        self.of[self._action, "failed"] += found - done
        self._done, self._found = progress.done, progress.found


class Bulks:
    """For one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._client = AsyncClient(services.redis, "headrace-api-bulk")
        self._owner = new_owner()
        self._pace = Pace(services.settings.bulk_rate)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._watcher = asyncio.create_task(self._watch(), name="headrace-bulk-watch")

    def jobs(self, namespace: str) -> Jobs:
        """To look at jobs and to abort them."""
        return Jobs(self._services.store, namespace)

    async def start(self, namespace: str, order: Order, expected_count: int | None) -> BulkJob:
        """Begin a job, which this process carries out. Raises as `Jobs.start` does."""
        job = await self.jobs(namespace).start(order, expected_count, self._owner)
        self._carry_out(namespace, job.id)
        return job

    def _carry_out(self, namespace: str, bulk_id: str) -> None:
        if bulk_id not in self._running:
            task = asyncio.create_task(self._insist(namespace, bulk_id), name=f"headrace-bulk-{bulk_id}")
            self._running[bulk_id] = task
            self._services.metrics.bulk_running = len(self._running)
            task.add_done_callback(lambda _: self._left(bulk_id))

    def _left(self, bulk_id: str) -> None:
        self._running.pop(bulk_id, None)
        self._services.metrics.bulk_running = len(self._running)

    async def _insist(self, namespace: str, bulk_id: str) -> None:
        """Carry a job out, however often Redis goes away meanwhile."""
        runner = Runner(self._client, namespace, self._services.settings, self._pace, self._owner)
        lookout = self._services.namespace(namespace).lookout
        counts = Counts(self._services.metrics.bulk_tasks)
        while True:
            try:
                work = await runner.jobs.take(self._owner, bulk_id)
                if work is not None:
                    counts.took(work)
                    await self._go_on(runner, work, counts, lookout)
            except HeadraceError as error:
                logger.warning("Bulk job %s goes on in %g s. %s", bulk_id, AGAIN_S, error)
                await asyncio.sleep(AGAIN_S)
            except Exception:
                logger.exception("Bulk job %s cannot be carried out here", bulk_id)
                return
            else:
                lookout.forget()
                return

    async def _go_on(self, runner: Runner, work: Work, counts: Counts, lookout: Lookout) -> None:
        def tell(progress: Progress) -> None:
            counts.saw(progress)
            lookout.forget()

        state = await runner.go_on(work, tell)
        if state != "lost":
            counts.saw(work.progress)
            self._services.metrics.bulk_jobs[work.kept.action, state] += 1

    async def _watch(self) -> None:
        while True:
            for namespace in self._services.guard.namespaces:
                try:
                    found = await self.jobs(namespace).take(self._owner)
                except HeadraceError:
                    continue  # the store counts and logs it
                except Exception:  # something foreign wrote it; the other jobs must go on
                    logger.exception("A bulk job in Redis cannot be read")
                    continue
                if found is not None:
                    logger.info("Bulk job %s is carried on here", found.id)
                    self._carry_out(namespace, found.id)
            await asyncio.sleep(LOOK_S)

    async def aclose(self) -> None:
        """Leave the jobs to other processes."""
        tasks = [self._watcher, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
