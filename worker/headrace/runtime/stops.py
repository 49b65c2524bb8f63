"""What ends an attempt from outside: deadlines, a cancellation, a lost claim, the end of the worker."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from headrace.runtime import attempt as attempts
from headrace.runtime.attempt import Ending, Running
from headrace.task import Failure, State

if TYPE_CHECKING:
    from headrace.runtime.claims import QueueClaims
    from headrace.runtime.executor import Executor

logger = logging.getLogger("headrace.attempt")

WATCH_S: Final = 0.1
"""Deadlines are looked at so often: one look over what runs is cheaper than a timer a task."""


class Stops:
    """Asks handlers to end, and gives up those that do not."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loop = asyncio.get_running_loop()

    def lose(self, claims: QueueClaims, held: set[bytes]) -> None:
        """Redis no longer counts some of these as ours: their handlers are cancelled and nothing is reported."""
        for run in [run for run in self._executor.running.values() if run.claims is claims and run.place not in held]:
            if not run.stop_reason:
                logger.warning("task %s is no longer ours: cancelling its handler", run.envelope.id)
                self.stop(run, "lost")

    def cancel(self, asked: set[str]) -> None:
        """These tasks shall be cancelled."""
        for run in list(self._executor.running.values()):
            if run.envelope.id in asked and not run.stop_reason:
                self.stop(run, "cancelled")

    def stop(self, run: Running, reason: str) -> None:
        """Ask a handler to end: CancelledError in a coroutine, `ctx.cancelled` in a thread, both and then a kill in a
        process (at a timeout only `ctx.cancelled`: the kill comes with the hard one).
        """
        run.stop_reason = reason
        if run.ctx is not None:
            run.ctx.cancelled = True
        if run.job is not None and self._executor.processes is not None:
            if reason == "timeout":
                self._executor.processes.warn(run.job)
            elif reason == "cancelled":
                self._executor.processes.cancel(run.job)
            else:
                self._executor.processes.kill(run.job, f"killed because it was {reason}", "")
        elif run.slot is not None:
            run.slot.cancel()

    def watch(self) -> None:
        """Look at the deadlines of all that runs."""
        now = self._loop.time()
        for run in list(self._executor.running.values()):
            definition = run.definition
            if not run.started or definition is None:
                continue
            elapsed = now - run.started
            if elapsed > definition.hard_timeout_s and not run.abandoned:
                self._give_up(run)
            elif elapsed > definition.soft_timeout_s and not run.stop_reason:
                self.stop(run, "timeout")

    def _give_up(self, run: Running) -> None:
        """The hard timeout: a process is killed; a thread or coroutine that goes on keeps its slot, and is counted."""
        if run.job is not None and self._executor.processes is not None:
            self._executor.processes.kill(run.job)
            return
        # First, so that the call that reports it does not claim for its slot.
        self._executor.leaked += 1
        self._executor.stats.leaked += 1
        if run.stop_reason in {"lost", "drained"}:
            del self._executor.running[run.key]
        elif run.stop_reason == "cancelled":
            self._executor.end(run, Ending(State.CANCELLED, Failure("Cancelled", reason="cancelled")))
        else:
            error = attempts.timed_out(run)
            self._executor.end(run, attempts.classify(error, run, self._executor.rng), error)
        run.abandoned = True
        if not self._executor.running:
            self._executor.idle()
