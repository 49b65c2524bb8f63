"""The way out of a worker: claim no more, let what runs end within the grace, hand the rest back, report, sign off."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from headrace.broker.client import AsyncClient
from headrace.errors import HeadraceError
from headrace.runtime.attempt import Running
from headrace.runtime.claims import QueueClaims
from headrace.runtime.executor import Executor
from headrace.runtime.heartbeat import Heartbeat

logger = logging.getLogger("headrace.worker")

CLEANUP_S: Final = 1.0
"""After the grace, cancelled handlers have so long to clean up before their tasks are handed back."""
REPORT_S: Final = 5.0
"""How long a stopping worker waits for Redis to take its last reports."""


class Drain:
    """Of one worker, once."""

    def __init__(
        self, worker: str, executor: Executor, claims: list[QueueClaims], client: AsyncClient, grace_s: float
    ) -> None:
        self._worker = worker
        self._executor = executor
        self._claims = claims
        self._client = client
        self._grace_s = grace_s
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
        if not self._hurried:
            await self._until_idle(self._grace_s)
        left = list(executor.running.values())
        if left:
            await self._interrupt(left)
        told = await self._report_all()
        try:
            async with asyncio.timeout(REPORT_S):
                await self._sign_off(beats, None if told else left)
        except (HeadraceError, TimeoutError) as error:
            logger.warning(
                "Other workers take over what is left, because signing off failed. %s", error or "No answer."
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
        loop = asyncio.get_running_loop()
        end = loop.time() + REPORT_S
        while any(claims.busy for claims in self._claims):
            if loop.time() > end:
                return False
            for claims in self._claims:
                claims.wake()
            await asyncio.sleep(0.01)
        return True

    async def _sign_off(self, beats: Heartbeat, only: list[Running] | None) -> None:
        """Hand back all that Redis says is ours; or, while some reports may not have come there, `only` these."""
        # A beat after the sign-off would make this worker look alive again.
        await beats.stop()
        for claims in self._claims:
            if only is not None:
                places = [run.place for run in only if run.claims is claims]
                if places:
                    await self._client.call(claims.queue.hand_back(self._worker, places))
                continue
            more = True
            while more:
                _, more = await self._client.call(claims.queue.hand_back(self._worker, leave=True))
