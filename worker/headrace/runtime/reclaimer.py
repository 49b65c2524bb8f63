"""The tasks of dead workers go on.

A worker is dead when its beat did not change for the TTL, by the monotonic clock of whoever looks: no two clocks are
ever compared. The look decides nothing by itself; the script compares the beat again, so a worker that beats meanwhile
keeps its tasks, and any number of workers may reclaim at once.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from headrace.broker.broker import RETENTION_S, Queue, Reclaim, Reclaimed, WorkerSeen
from headrace.broker.client import AsyncClient
from headrace.settings import WorkerSettings

logger = logging.getLogger("headrace.worker")

NAMED: Final = 10
"""So many of the tasks that go on are named in a log line."""
NOTHING: Final = Reclaimed("done")
BLIND: Final = 0.75
"""Share of the TTL: who looked at nothing for so long starts anew, for the others may have seen no Redis either."""


@dataclass(frozen=True, slots=True)
class _Last:
    beat: str
    since: float
    """When this beat was first seen."""


class Watch:
    """Which workers of one queue are dead. Pure bookkeeping: times are passed in, in seconds of one monotonic clock."""

    def __init__(self, ttl_s: float, *, own: str, max_crashes: int = 3, backoff_ms: int = 5_000) -> None:
        self._ttl_s = ttl_s
        self._own = own
        self._template = Reclaim("", "", "", max_crashes=max_crashes, backoff_ms=backoff_ms)
        self._last: dict[str, _Last] = {}
        self._looked: float | None = None

    def reset(self, now: float) -> None:
        """Count anew for everyone: the reclaimer was away from Redis, so it does not know who beat meanwhile."""
        self._last = {name: _Last(last.beat, now) for name, last in self._last.items()}
        self._looked = now

    def observe(self, now: float, seen: Iterable[WorkerSeen], answered: float | None = None) -> list[Reclaim]:
        """What to do about whom, after a look that began at `now` and was answered at `answered`."""
        answered = now if answered is None else answered
        if self._looked is not None and answered - self._looked > self._ttl_s * BLIND:
            self.reset(answered)
        self._looked = answered
        before, self._last = self._last, {}
        return [order for worker in seen if (order := self._judge(now, answered, worker, before.get(worker.name)))]

    def _judge(self, now: float, answered: float, worker: WorkerSeen, last: _Last | None) -> Reclaim | None:
        if worker.name == self._own:
            return None
        if last is None or last.beat != worker.beat:
            last = _Last(worker.beat, answered)
        self._last[worker.name] = last
        # "No beat" is no proof, it may be about to come: the script leaves a mark, which from then on counts as one.
        if worker.beat == "" or now - last.since >= self._ttl_s:
            return replace(self._template, worker=worker.name, seen=worker.beat, nonce=new_nonce())
        return None


def crash_backoff_ms(settings: WorkerSettings) -> int:
    """How long a task that crashed twice waits, before jitter."""
    return round(settings.backoff_base_s * 5_000)


def new_nonce() -> str:
    """What makes each reclaim call's mark and jitter its own."""
    return secrets.token_hex(8)


async def reclaim_pass(
    client: AsyncClient, queue: Queue, watch: Watch, now: float, *, retention_s: float = RETENTION_S
) -> Reclaimed:
    """Look once, and hand on what dead workers held. Returns what became of it; raises HeadraceError, after
    which `watch.reset` is due. `now` is the monotonic time; `retention_s` is that of cancelled tasks.
    """
    began = time.monotonic()
    seen = await client.call(queue.workers())
    orders = watch.observe(now, seen, answered=now + time.monotonic() - began)
    return sum([await reclaim(client, queue, order, retention_s=retention_s) for order in orders], NOTHING)


async def reclaim(client: AsyncClient, queue: Queue, order: Reclaim, *, retention_s: float = RETENTION_S) -> Reclaimed:
    """Carry out one order, in slices, to its end, and log it. Raises HeadraceError."""
    total = Reclaimed("moved")
    while total.what == "moved":
        slice_ = await client.call(queue.reclaim(order, retention_s=retention_s))
        _log(order, slice_)
        total += slice_
        order = replace(order, nonce=new_nonce())
    return total


def _log(order: Reclaim, done: Reclaimed) -> None:
    """What is lost to a crash between two slices would be told by nobody, so each slice is told."""
    if done.handed_on:
        named = ", ".join(done.handed_on[:NAMED]) + (", …" if len(done.handed_on) > NAMED else "")
        logger.warning(
            "worker %s is gone (%s): %d of its tasks go on (%s)",
            order.worker,
            order.cause,
            len(done.handed_on),
            named,
        )
    for dead in done.buried:
        facts = {"task_id": dead.id, "type": dead.type or "unknown", "crashes": dead.crashes, "cause": order.cause}
        if dead.type:
            why = f"failed: crash {dead.crashes} of its workers, the last one {order.worker} ({order.cause})"
        else:
            why = "failed: its envelope cannot be read"
        logger.error("task %s (%s) %s", dead.id, dead.type or "unknown", why, extra={"fields": facts})
