"""The slots of a worker: claim → resolve → run → classify → report.

Async handlers run in long-lived slot coroutines, so that one that does not suspend costs no trip through the loop;
synchronous ones in threads; `process=True` ones in child processes. Everything here is owned by the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.broker.broker import Report
from headrace.context import Ctx, current_ctx
from headrace.errors import HeadraceError
from headrace.middleware import through
from headrace.runtime import attempt as attempts
from headrace.runtime.attempt import Ending, Key, Running
from headrace.runtime.hooks import FailureHooks
from headrace.runtime.processes import ProcessJob
from headrace.runtime.progress import ProgressNotes
from headrace.runtime.records import CompletedRecords
from headrace.runtime.resolve import resolve
from headrace.runtime.shares import Shares
from headrace.runtime.slots import CoroutineSlots
from headrace.runtime.stats import UNKNOWN
from headrace.runtime.stops import Stops
from headrace.task import EXPIRED, Failure, State

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.runtime.claims import QueueClaims
    from headrace.runtime.processes import ProcessSlots
    from headrace.runtime.stats import WorkerStats
    from headrace.runtime.threads import ThreadSlots
    from headrace.settings import WorkerSettings
    from headrace.taskdef import TaskDef

logger = logging.getLogger("headrace.attempt")

MS_END: Final = 14
"""A place is a stream's digit and an entry id, which begins with Unix milliseconds: 13 digits until the year 2286."""


class Executor:
    """Runs what was claimed, and hands each ending to the queue it came from."""

    def __init__(
        self,
        app: App[Any],
        settings: WorkerSettings,
        worker: str,
        stats: WorkerStats,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.clock = clock
        """Unix time in seconds, which a test may hold still."""
        self.settings = settings
        self.worker = worker
        self.stats = stats
        self.deps: Any = None
        self.threads: ThreadSlots | None = None
        self.processes: ProcessSlots | None = None
        self.running: dict[Key, Running] = {}
        """All that was claimed and not ended, also what waits for its slot."""
        self.leaked = 0
        """Slots that are lost to handlers that outlived their hard timeout."""
        self.progress = ProgressNotes()
        self.hooks = FailureHooks()
        self.shares = Shares()
        self.stops = Stops(self)
        self.idle: Callable[[], None] = lambda: None
        """Called when the last attempt ended."""
        self.registry = {name: definition.with_settings(settings) for name, definition in app.registry.items()}
        self._middleware = app.middleware
        self._slots: CoroutineSlots | None = None
        self._loop = asyncio.get_running_loop()
        self.rng = Random()
        self._records = CompletedRecords(worker, self._ms)
        self._max_result = settings.max_result
        self._claimable_text, self._claimable_s = b"-", 0.0
        """Of the last task that began: those of a burst came in the same millisecond."""
        self._sample = settings.log_sample
        self._log_success = self._sample > 0 and logger.isEnabledFor(logging.INFO)
        self.look_at_clock()

    def start(self) -> None:
        """Make the slots; nothing is begun before."""
        self._slots = CoroutineSlots(self.settings.concurrency, self)

    # slots

    def free_for(self, claims: QueueClaims) -> int:
        """Slots this queue may ask for now."""
        return self.shares.part(claims, self.settings.concurrency - len(self.running) - self.leaked)

    def offer(self, claims: QueueClaims) -> None:
        self.shares.offer(claims)

    def join(self, claims: QueueClaims) -> None:
        self.shares.join(claims)

    # claim → resolve

    def begin(self, claims: QueueClaims, place: bytes, envelope: bytes, carried: bytes) -> None:
        """A task was claimed: find its handler and start it, or report why it cannot run here."""
        run = Running(claims, place, envelope, carried)
        ending = resolve(run, self.registry, self.clock)
        if ending is not None:
            self.end(run, ending)
            return
        if self.running.setdefault(run.key, run) is not run:
            self._begun_twice(run)
            return
        definition = run.definition
        assert definition is not None and self._slots is not None
        if definition.kind == "sync" and not self._middleware:
            self._run_in_thread(run)
        else:
            self._slots.submit(run)

    def _begun_twice(self, run: Running) -> None:
        """Redis came back with an older state, and gave out an entry again that still runs here."""
        if self.running[run.key].is_stopped():
            run.claims.hand_back([run.place])

    # run

    def _start(self, run: Running) -> Ctx[Any]:
        run.started = now = self._loop.time()
        envelope, definition = run.envelope, run.definition
        assert definition is not None
        if not run.place.startswith(self._claimable_text, 1):
            self._claimable_s = claimable_ms(run.place) / 1000
            self._claimable_text = run.place[1:MS_END]
        waited = now + self._offset - self._claimable_s
        self.stats.types[envelope.type].started(envelope.priority, waited)
        run.claims.times.spent[envelope.type].begun += 1
        run.ctx = ctx = Ctx(
            id=envelope.id,
            type=envelope.type,
            queue=run.claims.queue.name,
            attempt=run.counters.attempts + 1 if run.carried else 1,
            epoch=run.claims.epoch,
            deadline=now + definition.soft_timeout_s,
            deps=self.deps,
            trace=envelope.trace,
        )
        return ctx

    def begin_in_slot(self, run: Running, slot: asyncio.Task[Any]) -> Awaitable[Any]:
        if run.stop_reason:
            raise asyncio.CancelledError
        run.slot = slot
        ctx, definition = self._start(run), run.definition
        assert definition is not None
        current_ctx.set(ctx)
        if self._middleware:
            return self._through_middleware(run, ctx)
        if definition.kind == "async":
            coroutine: Awaitable[Any] = definition.invoke(run.arguments, ctx)
            return coroutine
        return self._elsewhere(run, ctx)

    async def _through_middleware(self, run: Running, ctx: Ctx[Any]) -> Any:
        definition = run.definition
        assert definition is not None
        if definition.kind == "async":
            return await through(self._middleware, ctx, lambda: definition.invoke(run.arguments, ctx))
        return await through(self._middleware, ctx, lambda: self._elsewhere(run, ctx))

    async def _elsewhere(self, run: Running, ctx: Ctx[Any]) -> Any:
        """In a child process, or (under middleware, which is async) in a thread."""
        definition = run.definition
        assert definition is not None
        if definition.kind == "process":
            assert self.processes is not None
            run.job = job = ProcessJob.of(run, ctx)
            try:
                encoded = await self.processes.run(job, partial(self.progress.note, ctx))
            finally:
                run.job = None
            return None if encoded == b"null" else msgspec.Raw(encoded)
        return await self._in_thread_of_slot(run, ctx, definition)

    async def _in_thread_of_slot(self, run: Running, ctx: Ctx[Any], definition: TaskDef) -> Any:
        """Under middleware, whose context variables the handler sees too."""
        assert self.threads is not None
        # A thread cannot be cancelled: the slot waits for it, and reports what it brings.
        slot, run.slot = run.slot, None
        work = partial(copy_context().run, _in_thread, definition.invoke, run.arguments, ctx)
        outcome = self.threads.outcome(work)
        try:
            await self._ended(outcome, ctx)
        finally:
            run.slot = slot
        result, error = outcome.result()
        if error is not None:
            raise error
        return result

    async def _ended(self, outcome: asyncio.Future[Any], ctx: Ctx[Any]) -> None:
        """Layers that cancel this, each by a deadline of its own, wait all the same; only slots that close do not."""
        assert self._slots is not None
        cancelled: asyncio.CancelledError | None = None
        while not outcome.done():
            try:
                await asyncio.wait({outcome})  # which leaves it as it is when it is cancelled
            except asyncio.CancelledError as error:
                if self._slots.closing:
                    outcome.cancel()  # it is handed back: a thread that comes free need not begin it
                    raise
                ctx.cancelled, cancelled = True, error
        if cancelled is not None:
            raise cancelled

    def _run_in_thread(self, run: Running) -> None:
        assert self.threads is not None and run.definition is not None
        ctx = self._start(run)

        def done(result: Any, error: BaseException | None) -> None:
            if error is None:
                self.completed(run, result)
            else:
                self.failed(run, error)

        self.threads.submit(partial(_in_thread, run.definition.invoke, run.arguments, ctx), done)

    # classify → report

    def completed(self, run: Running, result: Any) -> None:
        if run.abandoned or run.stop_reason == "lost":
            self._returned(run)
            return
        encoded, definition = None, run.definition
        assert definition is not None
        if result is not None:
            try:
                encoded = definition.encode_result(result, self._max_result)
            except HeadraceError as error:
                self.failed(run, error)
                return
        now = self._loop.time()
        del self.running[run.key]
        name = run.envelope.type
        self.stats.types[name].ended("completed", now - run.started)
        spent = run.claims.times.spent[name]
        spent.ended += 1
        spent.seconds += now - run.started
        if run.carried:
            ending = Ending(State.COMPLETED, result=encoded, argument=definition.retention)
            told = attempts.report(run, ending, self.worker, self._ms(run.started), self._ms(now))
        else:
            record = self._records.record(run, now, encoded)
            told = Report(run.place, run.envelope.id, "completed", definition.retention, name, record)
        if self._log_success:
            self._log(run, "completed", now)
        run.claims.ended(told)
        if not self.running:
            self.idle()

    def failed(self, run: Running, error: BaseException) -> None:
        if run.abandoned or run.stop_reason in {"lost", "drained"}:
            self._returned(run)
            return
        if run.stop_reason == "cancelled":
            ending = Ending(State.CANCELLED, Failure("Cancelled", reason="cancelled"))
        else:
            error = attempts.meant(error, run)
            ending = attempts.classify(error, run, self.rng)
        self.end(run, ending, error)

    def end(self, run: Running, ending: Ending, error: BaseException | None = None) -> None:
        """Report an ending that is not plain success; `error` is what the handler raised."""
        now = self._loop.time()
        started = run.started or now
        self.running.pop(run.key, None)
        told = attempts.report(run, ending, self.worker, self._ms(started), self._ms(now))
        self._count(run, ending, now - started)
        self._log(run, ending.outcome.value, now, ending.failure)
        if ending.outcome is State.FAILED:
            self.hooks.expect(run, ending, error)
        run.claims.ended(told)
        if not self.running:
            self.idle()

    def _count(self, run: Running, ending: Ending, duration_s: float) -> None:
        stats = self.stats.types.get(run.envelope.type)
        reason = ending.failure.reason if ending.failure else ""
        if ending.outcome is State.PARKED:
            self.stats.parked += 1
        elif reason == EXPIRED:
            (stats or self.stats.types[UNKNOWN]).never_run(ending.outcome.value)
            self.stats.expired += 1
        elif stats is not None:
            stats.ended(ending.outcome.value, duration_s, reason or "error")
            if run.started:
                spent = run.claims.times.spent[run.envelope.type]
                spent.ended += 1
                spent.seconds += duration_s

    def _returned(self, run: Running) -> None:
        """A handler ended after its attempt was given up: nobody is told, its slot is free again."""
        if run.abandoned:
            self.leaked -= 1
        else:
            self.running.pop(run.key, None)
        run.claims.wake()
        self.shares.offer(run.claims)
        if not self.running:
            self.idle()

    def look_at_clock(self) -> None:
        """Learn what time the loop's clock stands for, since that may be set."""
        self._offset = self.clock() - self._loop.time()
        self._records.forget()

    def _ms(self, loop_time: float) -> int:
        return int((loop_time + self._offset) * 1000)

    def _log(self, run: Running, outcome: str, now: float, failure: Failure | None = None) -> None:
        if failure is None:
            if self._sample < 1 and self.rng.random() >= self._sample:
                return
            level = logging.INFO
        else:
            level = logging.ERROR if outcome == "failed" else logging.WARNING
        if logger.isEnabledFor(level):
            line = attempts.sentence(run, outcome, now, failure)
            logger.log(level, "%s", line, extra={"ctx": run.ctx or attempts.unstarted(run)})

    # what Redis says of attempts

    def runs(self, claims: QueueClaims, place: bytes) -> bool:
        return (claims, place) in self.running

    def places(self, claims: QueueClaims) -> Iterable[bytes]:
        return [place for owner, place in self.running if owner is claims]

    def lose(self, claims: QueueClaims, held: set[bytes]) -> None:
        self.stops.lose(claims, held)

    def answered(self, reports: list[Report], verdicts: dict[bytes, bytes]) -> None:
        """Redis' verdicts on reports that were not accepted anew, by place."""
        self.hooks.answered(reports, verdicts)
        if not verdicts:
            return
        for report in reports:
            verdict = verdicts.get(report.place, b"").decode()
            if verdict:
                self.stats.verdicts[verdict] = self.stats.verdicts.get(verdict, 0) + 1
            if verdict not in {"", "dup"}:
                logger.warning("the report of task %s came too late (%s)", report.id, verdict)

    async def close(self) -> None:
        """End the slots."""
        if self._slots is not None:
            await self._slots.close()


def _in_thread(invoke: Callable[[Any, Ctx[Any]], Any], arguments: Any, ctx: Ctx[Any]) -> Any:
    current_ctx.set(ctx)
    return invoke(arguments, ctx)


def claimable_ms(place: bytes) -> int:
    """Unix ms at which the entry at this place came. (Its id may be of any length if something foreign wrote it.)"""
    try:
        return int(place[1:MS_END])
    except ValueError:
        return int(place[1:].partition(b"-")[0])
