"""One queue in one worker: which calls are out, what they carried, and when the next one goes.

Two calls may be out: Redis works on one half of the slots while Python runs the other. There is no timer for batching:
what ended while a call was out goes with the next one. With free slots and nothing to claim, one BLPOP waits for the
queue's marker on a connection of its own; whoever pops it must run a cycle, even with no slot free, so that the
script can pass the marker on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import hiredis

from headrace.broker.broker import Queue, Report, parse_cycle
from headrace.broker.connection import Connection, explain
from headrace.broker.durability import confirmation, is_confirmed, touches
from headrace.broker.keys import STREAMS
from headrace.runtime.policy import ONE_IN
from headrace.settings import Durability, WorkerSettings
from headrace.task import new_id

logger = logging.getLogger(__name__)

MAX_OUT: Final = 2
LOOK_S: Final = 2.0
"""A lost marker is found by a look at the queue at most so many seconds after its last cycle."""
BLOCK_S: Final = 30
"""BLPOP's own time-out; after a clock jump of Redis it may last for ever, so the connection ends 5 s later."""
MAX_REPORTS: Final = 500


class Slots(Protocol):
    """The worker's side: how many slots are free for this queue, and who runs what was claimed."""

    def free_for(self, claims: QueueClaims) -> int: ...

    def begin(self, claims: QueueClaims, place: bytes, envelope: bytes, carried: bytes) -> None: ...

    def runs(self, place: bytes) -> bool: ...

    def lose(self, claims: QueueClaims, held: set[bytes]) -> None: ...

    def answered(self, reports: list[Report], verdicts: list[Any]) -> None: ...


class QueueClaims:
    """The claim loop of one queue. Everything here runs in the event loop."""

    def __init__(self, queue: Queue, weight: int, settings: WorkerSettings, worker: str, slots: Slots) -> None:
        self.queue = queue
        self.weight = weight
        self.epoch = 0
        self.id_length = len(new_id(queue.name))
        """An entry whose id has another length was not written by headrace."""
        self.late_order = STREAMS
        """Order of one claim in ten; the others are strictly by priority."""
        self._turn = 0
        self.hot = True
        """The last cycle brought all that was asked for: there may be more."""
        self.reserved = 0
        """Slots asked for by calls that are out."""
        self.draining = False
        self.next_due: Callable[[int], None] = lambda due_ms: None
        self.on_missing: Callable[[], None] = lambda: None
        self._settings = settings
        self._worker = worker
        self._slots = slots
        self._durability: Durability = settings.durability[queue.name]
        self._touch = touches(self._durability)
        self._half = max(1, settings.concurrency // 2)
        self._connection: Connection | None = None
        self._ready = False
        """False from a broken connection until reconcile was answered: no claims."""
        self._reports: deque[Report] = deque()
        self._sent: deque[list[Report]] = deque()
        self._scheduled = False
        self._must_run = False
        self._loop = asyncio.get_running_loop()
        self._last_cycle = self._loop.time()
        self.waiter = MarkerWait(queue, self._popped)

    # what the connection does

    def connected(self, connection: Connection) -> None:
        """A new connection: what was sent and not answered goes again, before anything is claimed."""
        self._connection = connection
        self._ready = False
        self.reserved = 0
        while self._sent:
            self._reports.extendleft(reversed(self._sent.pop()))
        self._pump()
        self.reconcile()

    def disconnected(self) -> None:
        self._connection = None
        self._ready = False

    @property
    def unreported(self) -> int:
        """Ended attempts that Redis has not confirmed."""
        return len(self._reports) + sum(len(batch) for batch in self._sent)

    # what ends and what begins

    def ended(self, report: Report) -> None:
        """An attempt ended: its slot is free, its report goes with the next call."""
        self._reports.append(report)
        if len(self._reports) >= self._half:
            self._pump()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def wake(self) -> None:
        """Something changed (slots, pause, drain): see what is to do."""
        self._pump()

    def look(self, now: float) -> None:
        """The safety net: no cycle for LOOK_S although slots are free."""
        if now - self._last_cycle >= LOOK_S and not self._sent and self._free() > 0:
            self._must_run = True
            self._pump()

    def _flush(self) -> None:
        self._scheduled = False
        self._pump()

    def _popped(self) -> None:
        self._must_run = True
        self._pump()

    # calls

    def _pump(self) -> None:
        connection = self._connection
        if connection is None:
            return
        while len(self._sent) < MAX_OUT:
            free = self._free()
            if (
                not self._reports
                and not (self._must_run and self._ready)
                and not (self.hot and free and not self._sent)
            ):
                break
            self._send(connection, free)
        if not self.hot and not self._sent and self._free() > 0:
            self.waiter.arm()

    def _free(self) -> int:
        if not self._ready or self.draining:
            return 0
        return self._slots.free_for(self)

    def _send(self, connection: Connection, free: int) -> None:
        reports = self._reports
        if len(reports) <= MAX_REPORTS:
            batch = list(reports)
            reports.clear()
        else:
            batch = [reports.popleft() for _ in range(MAX_REPORTS)]
        self._must_run = False
        self._turn += 1
        self._sent.append(batch)
        self.reserved += free
        self._last_cycle = self._loop.time()
        call = self.queue.cycle(
            self._worker,
            free,
            batch,
            order=STREAMS if self._turn % ONE_IN else self.late_order,
            retention_s=int(self._settings.retention_s),
            touch=self._touch,
        )
        if batch and self._touch:
            self._send_confirmed(connection, call, free)
        else:
            connection.send_call(call, lambda reply: self._answered(connection, free, reply))

    def _send_confirmed(self, connection: Connection, call: Any, free: int) -> None:
        """Under fsync and replicated, the answer counts when the command behind it confirms it."""
        limit = self._settings.durability_timeout_s
        follow = confirmation(self._durability, connection.version, limit)
        if follow is None:
            connection.send_call(call, lambda reply: self._answered(connection, free, reply))
            return
        replies: list[Any] = []

        def confirmed(reply: Any) -> None:
            good = not isinstance(reply, Exception) and is_confirmed(self._durability, reply)
            self._answered(connection, free, replies[0], confirmed=good)

        connection.send_call(call, replies.append)
        connection.send(follow, confirmed)

    def _answered(self, connection: Connection, free: int, reply: Any, *, confirmed: bool = True) -> None:
        if connection is not self._connection:
            return
        if isinstance(reply, Exception):
            self._fault(connection, reply)
            return
        batch = self._sent.popleft()
        self.reserved -= free
        cycle = parse_cycle(reply)
        if confirmed:
            if batch:
                self._slots.answered(batch, cycle.verdicts)
        else:
            self._reports.extendleft(reversed(batch))
        claims = cycle.claims
        if free:
            self.hot = len(claims) >= 4 * free
        for i in range(0, len(claims), 4):
            self._slots.begin(self, claims[i] + claims[i + 1], claims[i + 2], claims[i + 3])
        if cycle.missing:
            self.on_missing()
        if cycle.next_due_ms is not None:
            self.next_due(cycle.next_due_ms)
        self._pump()

    def _fault(self, connection: Connection, error: Exception) -> None:
        if connection.lost is None:
            reason = explain(error, connection.settings)
            logger.error("queue %s: %s", self.queue.name, reason)
            connection.close(str(reason))

    # lost claim replies

    def reconcile(self) -> None:
        """Ask for all that Redis says this worker holds. On the claim connection, whose answers come in order: what
        is unknown when the answer is here was claimed by a call whose reply was lost."""
        connection = self._connection
        if connection is not None:
            call = self.queue.reconcile(self._worker)
            connection.send_call(call, lambda reply: self._reconciled(connection, reply))

    def _reconciled(self, connection: Connection, reply: Any) -> None:
        if connection is not self._connection:
            return
        if isinstance(reply, Exception):
            if "NOGROUP" in str(reply) and isinstance(reply, hiredis.ReplyError):
                self.on_missing()
            else:
                self._fault(connection, reply)
            return
        reported = {report.place for report in self._reports}
        reported.update(report.place for batch in self._sent for report in batch)
        held = {reply[i] + reply[i + 1] for i in range(0, len(reply), 4)}
        self._slots.lose(self, held | reported)
        excess = []
        for i in range(0, len(reply), 4):
            place = reply[i] + reply[i + 1]
            if place in reported or self._slots.runs(place):
                continue
            if self.draining or self._slots.free_for(self) <= 0:
                excess.append(place)
            else:
                self._slots.begin(self, place, reply[i + 2], reply[i + 3])
        if excess:
            self.hand_back(excess)
        if not self._ready:
            self._ready = self.hot = True
        self._pump()

    def hand_back(self, places: list[bytes]) -> None:
        """Return entries that have no slot, free of charge."""
        connection = self._connection
        if connection is not None:
            call = self.queue.hand_back(self._worker, places)
            connection.send_call(call, lambda reply: None)


class MarkerWait:
    """BLPOP on one queue's marker, on a connection of its own, because it blocks that."""

    def __init__(self, queue: Queue, popped: Callable[[], None]) -> None:
        self._command = ("BLPOP", queue.keys["wake"], BLOCK_S)
        self._popped = popped
        self._armed = False
        self._waiting = False
        self._connection: Connection | None = None
        self._overdue: asyncio.TimerHandle | None = None

    def connected(self, connection: Connection) -> None:
        """A new connection to wait on."""
        self._connection = connection
        self._waiting = False
        if self._armed:
            self._wait()

    def arm(self) -> None:
        """Wait for the marker, if that is not done yet."""
        if not self._armed:
            self._armed = True
            self._wait()

    def stop(self) -> None:
        """Wait no more, and end the connection."""
        self._armed = False
        if self._connection is not None:
            self._connection.close()

    async def wait_closed(self) -> None:
        if self._connection is not None:
            await self._connection.wait_closed()

    def _wait(self) -> None:
        connection = self._connection
        if connection is None or self._waiting:
            return
        self._waiting = True
        loop = asyncio.get_running_loop()
        self._overdue = loop.call_later(BLOCK_S + 5, connection.close, "BLPOP outlived its time-out")
        connection.send(self._command, lambda reply: self._answered(connection, reply))

    def _answered(self, connection: Connection, reply: Any) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        if connection is not self._connection:
            return
        self._waiting = False
        if isinstance(reply, Exception):
            self._connection = None
            connection.close(str(reply))
        elif reply is None:
            self._wait()
        else:
            self._armed = False
            self._popped()
