"""The way out of a worker: claim no more, let what runs end within the grace, hand the rest back, report, sign off."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from headrace.broker.broker import Call
from headrace.broker.client import AsyncClient
from headrace.errors import HeadraceError, StoreUnavailable
from headrace.runtime.attempt import Running
from headrace.runtime.claims import QueueClaims
from headrace.runtime.executor import Executor
from headrace.runtime.heartbeat import Heartbeat
from headrace.settings import WorkerSettings

logger = logging.getLogger("headrace.worker")

CLEANUP_S: Final = 1.0
"""After the grace, cancelled handlers have so long to clean up before their tasks are handed back."""
REPORT_S: Final = 5.0
"""How long a stopping worker waits for Redis to take its last reports, and then for its signing off."""
BEYOND_S: Final = 4.0
"""So long after its grace it ends, whatever Redis does: its pod is killed 5 s after the grace."""
SIGN_OFF_S: Final = 1.5
"""Of that, what reports leave for signing off."""
LAST_BEAT_S: Final = 1.0
"""How long signing off waits for a beat that is on its way: one that hangs is left to itself."""
LEAVE_S: Final = 1.2
"""What a beat leaves for signing off: one request without an answer, and another by a new connection."""
SILENT_S: Final = 1.0
"""A connection that owes an answer for so long is given up for another: one that a firewall forgot never gives it."""
NAMED: Final = 5
"""So many tasks are named in the log."""


class Drain:
    """Of one worker, once."""

    def __init__(
        self, worker: str, executor: Executor, claims: list[QueueClaims], client: AsyncClient, settings: WorkerSettings
    ) -> None:
        self._worker = worker
        self._executor = executor
        self._claims = claims
        self._client = client
        self._grace_s = settings.grace_s
        self._dead_after_s = settings.dead_after_s
        self._loop = asyncio.get_running_loop()
        self._over = 0.0
        """When all must be over, by the loop's time."""
        self._hurried = False
        self._idle = asyncio.Event()
        executor.idle = self._idle.set

    def hurry(self) -> None:
        """The grace ends now."""
        self._hurried = True
        self._idle.set()

    async def run(self, beats: Heartbeat) -> None:
        """Claim no more, let what runs end within the grace, hand the rest back, report all, sign off."""
        executor = self._executor
        logger.info("draining: %d running", len(executor.running))
        for claims in self._claims:
            claims.draining = True
            claims.waiter.stop()
        self._over = self._loop.time() + self._grace_s + BEYOND_S
        if not self._hurried:
            await self._until_idle(self._grace_s)
        if self._hurried:
            self._over = self._loop.time() + BEYOND_S
        left = list(executor.running.values())
        if left:
            await self._interrupt(left)
        # Now, and not when all is told: one that began meanwhile and hangs would have to be waited for.
        beats.end()
        told = await self._report_all()
        if not told:
            self._say_what_is_untold()
        # A beat after the sign-off would make this worker look alive again, with nothing to do.
        await beats.stop(min(LAST_BEAT_S, self._over - LEAVE_S - self._loop.time()))
        try:
            async with asyncio.timeout(min(REPORT_S, self._over - self._loop.time())):
                await self._sign_off(None if told else left)
        except (HeadraceError, TimeoutError) as error:
            logger.warning(
                "Signing off failed: other workers take over what is left, %g s after the last beat of this one. %s",
                self._dead_after_s,
                error or "No answer.",
            )

    async def _until_idle(self, seconds: float) -> None:
        self._idle.clear()
        with suppress(TimeoutError):
            if self._executor.running:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()

    async def _interrupt(self, left: list[Running]) -> None:
        logger.warning("%d tasks outlast the grace of %g s and are handed back", len(left), self._grace_s)
        for run in left:
            self._executor.stops.stop(run, "drained")
        await self._until_idle(CLEANUP_S)

    async def _report_all(self) -> bool:
        """Whether Redis confirmed every report, and nothing is out any more that could still claim."""
        end = min(self._loop.time() + REPORT_S, self._over - SIGN_OFF_S)
        while any(claims.busy for claims in self._claims):
            if self._loop.time() > end:
                return False
            given_up = self._give_up()
            for claims in self._claims:
                claims.owed |= given_up
                claims.wake()
            await asyncio.sleep(0.01)
        return True

    def _give_up(self) -> bool:
        """All share one connection: its limit is that of the most patient."""
        limit = max(claims.patience(SILENT_S) for claims in self._claims)
        return any(claims.give_up(limit) for claims in self._claims)

    def _say_what_is_untold(self) -> None:
        tasks = [report.id for claims in self._claims for report in claims.unconfirmed()]
        more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
        what = f"the outcome of {', '.join(tasks[:NAMED])}{more}" if tasks else "its last requests"
        logger.warning(
            "Redis has not confirmed what this worker told it last: %s. Other workers run again what it does not know "
            "to have ended, %g s after the last beat of this one",
            what,
            self._dead_after_s,
        )

    async def _sign_off(self, only: list[Running] | None) -> None:
        """Hand back all that Redis says is ours; or, while some reports may not have come there, `only` these."""
        for claims in self._claims:
            if only is not None:
                places = [run.place for run in only if run.claims is claims]
                if places:
                    await self._ask(claims.queue.hand_back(self._worker, places))
                continue
            more = True
            while more:
                _, more = await self._ask(claims.queue.hand_back(self._worker, leave=True))

    async def _ask(self, call: Call[tuple[int, bool]]) -> tuple[int, bool]:
        """By another connection if the one that stands is lost meanwhile; to hand back twice is to hand back once."""
        try:
            return await self._client.call(call, timeout_s=SILENT_S)
        except StoreUnavailable:  # what was asked before on that connection may have ended it
            return await self._client.call(call)
