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
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import hiredis

from headrace.broker.broker import Claim, Cycle, Queue, Report, parse_cycle, parse_held
from headrace.broker.connection import Connection
from headrace.broker.durability import confirmation, is_confirmed, touches
from headrace.broker.keys import SUSPECTS
from headrace.runtime.marker import MarkerWait
from headrace.runtime.policy import ONE_IN, order_of
from headrace.runtime.service_times import ServiceTimes
from headrace.settings import Durability, WorkerSettings
from headrace.task import new_id

logger = logging.getLogger(__name__)

MAX_OUT: Final = 2
LOOK_S: Final = 2.0
"""A lost marker is found by a look at the queue at most so many seconds after its last cycle."""
SUSPECTS_S: Final = 0.5
"""A worker that only runs suspects looks for them so often, and waits for nothing."""
MAX_REPORTS: Final = 500
"""Reports a call takes; with so many that are not confirmed, nothing more is claimed."""
RETRY_S: Final = 0.5
"""An unconfirmed report is sent again after so many seconds."""


class Slots(Protocol):
    """The worker's side: how many slots are free for this queue, and who runs what was claimed."""

    def free_for(self, claims: QueueClaims) -> int: ...

    def offer(self, claims: QueueClaims) -> None: ...

    def join(self, claims: QueueClaims) -> None: ...

    def begin(self, claims: QueueClaims, place: bytes, envelope: bytes, carried: bytes) -> None: ...

    def runs(self, claims: QueueClaims, place: bytes) -> bool: ...

    def places(self, claims: QueueClaims) -> Iterable[bytes]: ...

    def lose(self, claims: QueueClaims, held: set[bytes]) -> None: ...

    def answered(self, reports: list[Report], verdicts: dict[bytes, bytes]) -> None: ...


class QueueClaims:
    """The claim loop of one queue. Everything here runs in the event loop."""

    def __init__(self, queue: Queue, weight: int, settings: WorkerSettings, worker: str, slots: Slots) -> None:
        self.queue = queue
        self.weight = weight
        self.epoch = 0
        self.id_length = len(new_id(queue.name))
        """An entry whose id has another length was not written by headrace."""
        self.order = order_of(settings.suspects[queue.name])
        self._marked = self.order != SUSPECTS
        """Whether it waits for the marker, which tells of plain tasks as well: taken for those, it would be lost."""
        self._look_s = LOOK_S if self._marked else SUSPECTS_S
        self.late_order = self.order
        """Order of one claim in ten; the others are strictly by priority."""
        self._turn = 0
        self.hot = True
        """There may be more to claim: the last cycle brought all that was asked for, or a marker came to full slots."""
        self.reserved = 0
        """Slots asked for by calls that are out."""
        self.claimed = 0.0
        """Tasks claimed so far, divided by the weight."""
        self.shared = False
        """Whether other queues of this worker want the same slots."""
        self.draining = False
        self.times = ServiceTimes()
        self.next_due: Callable[[int], None] = lambda due_ms: None
        self.on_missing: Callable[[], None] = lambda: None
        self._settings = settings
        self._worker = worker
        self._slots = slots
        self.durability: Durability = settings.durability[queue.name]
        self._touch = touches(self.durability)
        self._half = max(1, settings.concurrency // 2)
        self._connection: Connection | None = None
        self._ready = False
        """False from a broken connection until reconcile was answered: no claims."""
        self._reports: deque[Report] = deque()
        self._sent: deque[list[Report]] = deque()
        self._doubtful: list[Report] = []
        """Redis has them, but did not confirm that they last."""
        self._retry_at = 0.0
        self._scheduled = False
        self._must_run = False
        self._asking = False
        """A reconcile is out."""
        self.owed = False
        """The connection was given up: what it has claimed is not known before the next reconcile is answered."""
        self._loop = asyncio.get_running_loop()
        self._last_cycle = self._loop.time()
        self.waiter = MarkerWait(queue, self._popped)

    # what the connection does

    def connected(self, connection: Connection) -> None:
        """A new connection: what was sent and not answered goes again, before anything is claimed."""
        self._connection = connection
        self._ready = self._asking = False
        self.reserved = 0
        while self._sent:
            self._reports.extendleft(reversed(self._sent.pop()))
        self._resend()
        self._pump()
        self.reconcile()

    def disconnected(self) -> None:
        self._connection = None
        self._ready = False

    @property
    def unreported(self) -> int:
        """Ended attempts that Redis has not confirmed."""
        return len(self._reports) + len(self._doubtful) + sum(len(batch) for batch in self._sent)

    def unconfirmed(self) -> list[Report]:
        """What `unreported` counts."""
        return [report for batch in (self._reports, self._doubtful, *self._sent) for report in batch]

    @property
    def busy(self) -> bool:
        """Whether anything is out, or to be sent: a call that is out may still claim."""
        out = self._connection is not None and self._connection.outstanding
        return bool(self.unreported or out or self.owed)

    @property
    def hungry(self) -> bool:
        """Whether it would claim if it had a slot."""
        return self.hot and self._ready and not self.draining

    @property
    def spent(self) -> float:
        """Tasks claimed and asked for, divided by the weight."""
        return self.claimed + self.reserved / self.weight

    def drain(self, draining: bool) -> None:
        """Claim no more, or again. A wait that is out stays: a marker that it pops is passed on by an empty cycle."""
        self.draining = draining
        if not draining:
            self._must_run = True
            self._pump()

    # what ends and what begins

    def ended(self, report: Report) -> None:
        """An attempt ended: its slot is free, its report goes with the next call."""
        self._reports.append(report)
        if len(self._reports) >= self._half:
            self._pump()
            if self.shared:
                self._slots.offer(self)
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def wake(self) -> None:
        """Something changed (slots, pause, drain): see what is to do."""
        self._pump()

    def patience(self, seconds: float) -> float:
        """How long the connection may owe an answer, if one that confirms no report may take `seconds`."""
        confirms = self._touch and any(self._sent)
        return seconds + (self._settings.durability_timeout_s if confirms else 0.0)

    def give_up(self, seconds: float) -> bool:
        """Close the connection if it owes an answer for so long; whether it did. The next one is told all again."""
        return self._connection is not None and self._connection.give_up(seconds)

    def look(self, now: float) -> None:
        """The safety net: no cycle for LOOK_S although slots are free."""
        if self._doubtful and now >= self._retry_at:
            self._resend()
            self._pump()
        if now - self._last_cycle < self._look_s or self._sent:
            return
        if self._free() > 0:
            self._must_run = True
            self._pump()
        elif self.shared and not self.hot:
            self._want()

    def _flush(self) -> None:
        self._scheduled = False
        self._pump()
        if self.shared:
            self._slots.offer(self)

    def _resend(self) -> None:
        self._reports.extend(self._doubtful)
        self._doubtful.clear()

    def _want(self) -> None:
        self.hot = True
        self._slots.join(self)

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
            wanted = (self._must_run and self._ready) or (self.hot and free and not self._sent)
            if not (self._reports or wanted):
                break
            self._send(connection, free)
        # Among several queues the marker is waited for also without a free slot: else those that always have more to
        # do would keep this one from noticing that it has something.
        if self._marked and not self.hot and not self._sent and self._may_claim() and (self.shared or self._free() > 0):
            self.waiter.arm()

    def _may_claim(self) -> bool:
        return self._ready and not self.draining and len(self._doubtful) < MAX_REPORTS

    def _free(self) -> int:
        return self._slots.free_for(self) if self._may_claim() else 0

    def _send(self, connection: Connection, free: int) -> None:
        reports = self._reports
        if len(reports) <= MAX_REPORTS:
            batch = list(reports)
            reports.clear()
        else:
            batch = [reports.popleft() for _ in range(MAX_REPORTS)]
        if self._must_run and not free and not self.hot:
            self._want()
        self._must_run = False
        self._turn += free > 0
        self._sent.append(batch)
        self.reserved += free
        self._last_cycle = self._loop.time()
        call = self.queue.cycle(
            self._worker,
            free,
            batch,
            order=self.order if self._turn % ONE_IN else self.late_order,
            retention_s=int(self._settings.retention_s),
            touch=self._touch,
        )
        follow = self._confirmation(connection) if batch else None
        if follow is not None:
            connection.send_confirmed(
                call, follow, lambda reply, said: self._answered(connection, batch, free, reply, said)
            )
        else:
            connection.send_call(call, lambda reply: self._answered(connection, batch, free, reply))

    def _confirmation(self, connection: Connection) -> tuple[bytes | int, ...] | None:
        """Under fsync and replicated, an answer counts when the command behind it confirms it."""
        if not self._touch:
            return None
        return confirmation(self.durability, connection.version, self._settings.durability_timeout_s)

    def _answered(self, connection: Connection, batch: list[Report], free: int, reply: Any, said: Any = None) -> None:
        if connection is not self._connection:
            return
        if isinstance(reply, Exception):
            self._fault(connection, reply)
            return
        self._sent.remove(batch)
        cycle = parse_cycle(reply)
        if batch:
            self._settle(batch, cycle, said)
        full = len(cycle.claims) >= free
        if full and free and not self.hot:
            self._want()
        elif not full:
            self.hot = False
        self._take(cycle.claims)
        # Not before: whatever is ended by `begin` would be replaced while the rest is not counted yet.
        self.reserved -= free
        if cycle.missing:
            self.on_missing()
        if cycle.next_due_ms is not None:
            self.next_due(cycle.next_due_ms)
        self._pump()
        if self.shared:
            self._slots.offer(self)

    def _take(self, claims: list[Claim]) -> None:
        if not claims:
            return
        if self.draining:
            self.hand_back([place for place, _, _ in claims])
            return
        begin = self._slots.begin
        for place, envelope, carried in claims:
            begin(self, place, envelope, carried)
        self.claimed += len(claims) / self.weight

    def _settle(self, batch: list[Report], cycle: Cycle, said: Any) -> None:
        if said is None or (not isinstance(said, Exception) and is_confirmed(self.durability, said)):
            self._slots.answered(batch, cycle.verdicts)
            return
        if not self._doubtful:
            logger.warning(
                "queue %s: reports are stored, but %s is not confirmed (%s); they are sent again until it is",
                self.queue.name,
                self.durability,
                said,
            )
        self._doubtful.extend(batch)
        self._retry_at = self._loop.time() + RETRY_S

    def _fault(self, connection: Connection, error: Exception) -> None:
        if connection.lost is None:
            connection.close(f"queue {self.queue.name}: {error}", answered=isinstance(error, hiredis.ReplyError))

    # lost claim replies

    def reconcile(self) -> None:
        """Ask for all that Redis says this worker holds. On the claim connection, whose answers come in order: what
        is unknown when the answer is here was claimed by a call whose reply was lost."""
        connection = self._connection
        if connection is not None and not self._asking:
            self._asking = True
            call = self.queue.reconcile(self._worker, [*self._slots.places(self), *self._reported()])
            connection.send_call(call, lambda reply: self._reconciled(connection, reply))

    def _reconciled(self, connection: Connection, reply: Any) -> None:
        if connection is not self._connection:
            return
        self._asking = False
        if isinstance(reply, Exception):
            if "NOGROUP" in str(reply) and isinstance(reply, hiredis.ReplyError):
                self.on_missing()
            else:
                self._fault(connection, reply)
            return
        held, reported = parse_held(reply), self._reported()
        self._slots.lose(self, reported.union(held.known, (place for place, _, _ in held.others)))
        # What a call brought that was answered in between is known by now.
        self._adopt([each for each in held.others if not (each[0] in reported or self._slots.runs(self, each[0]))])
        self.owed = False
        if not self._ready:
            self._ready = True
            self._want()
        self._pump()

    def _reported(self) -> set[bytes]:
        """Places of attempts whose reports are on their way."""
        return {report.place for report in self.unconfirmed()}

    def _adopt(self, unknown: list[Claim]) -> None:
        """Run what fits, hand back the rest."""
        excess = []
        for place, envelope, carried in unknown:
            if self.draining or self._slots.free_for(self) <= 0:
                excess.append(place)
            else:
                self._slots.begin(self, place, envelope, carried)
        if excess:
            self.hand_back(excess)

    def hand_back(self, places: list[bytes]) -> None:
        """Return entries that have no slot, free of charge."""
        connection = self._connection
        if connection is not None:
            call = self.queue.hand_back(self._worker, places)
            connection.send_call(call, lambda reply: None)
