"""Everything around one queue: Redis, the network, processes and the clock; each step is checked against the model.

Here are the events that befall it and what must hold after each. Who does what on purpose is in model_rules.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.broker.broker import Queue, Report
from headrace.broker.keys import STREAMS
from headrace.task import ARROWS, State
from model_calls import Calls, matches
from model_desk import NOW
from model_dump import look_command, prepare, read
from model_net import Conn, Debt, Request
from model_queue import ModelQueue
from model_redis import RefusedError, Wire
from model_state import DifferenceError, Entry, Task
from model_task import QUEUE
from model_worker import Worker

HOUR_MS: Final = 3_600_000


class BrokenError(AssertionError):
    """A promise that no script alone makes: the marker's, a worker's, the end's."""


@dataclass(frozen=True)
class Look:
    """What a reclaimer saw of a worker, and how often that had beaten by then."""

    worker: str
    beat: str
    beaten: int


@dataclass(eq=False)
class World:
    """One run; make another for the next."""

    wire: Wire
    queue: Queue = field(default_factory=lambda: Queue(QUEUE))
    model: ModelQueue = field(init=False)
    calls: Calls = field(init=False)
    conns: list[Conn] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    past: list[Request] = field(default_factory=list)
    """Calls that may be made again, however old."""
    reports: list[tuple[str, Report]] = field(default_factory=list)
    """Whose they were, and what was said: also these may come again."""
    boots: Counter[str] = field(default_factory=Counter)
    proven_dead: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    """All at which an attempt was started."""
    handed_twice: set[str] = field(default_factory=set)
    """Places that a lost group gives out again."""
    states: dict[Task, str] = field(default_factory=dict)
    """Of each task after the last call."""
    lost_time: bool = False
    """An older state came back: attempts may begin again at the same place, which is what the epoch is for."""
    debts: list[Debt] = field(default_factory=list)
    excused: bool = False
    """A taken marker was lost with its taker; the next look of a worker makes up for it."""
    excused_suspects: bool = False
    """A taker found only a suspect, and holds one already."""
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.model = ModelQueue(self.queue.keys, saw=self.counts)
        self.calls = Calls(self.queue, self.model, NOW)
        self.wire.command("FLUSHALL")
        prepare(self.wire)
        self.at_once(self.calls.init("first"))
        self.start_worker("w1")
        self.start_worker("w2")

    # -- what is counted

    def saw(self, name: str, happened: bool = True) -> None:
        """A finding or an event was reached."""
        if happened:
            self.counts[name] += 1

    # -- connections

    def connect(self, name: str, lost: Callable[[], None] = lambda: None) -> Conn:
        conn = Conn(name, lost=lost)
        self.conns.append(conn)
        return conn

    def cut(self, conn: Conn) -> None:
        """Its client is rid of it; what was sent may still arrive."""
        debts = [debt for debt in conn.debts() if debt.owed]
        conn.is_open = False
        conn.lost()
        conn.replies.clear()
        kept = [worker.debt for worker in self.workers]
        for debt in debts:
            if debt not in kept:
                self._lose(debt)

    def tidy(self) -> None:
        """Forget closed connections on which nothing is on the way."""
        self.conns = [conn for conn in self.conns if conn.is_open or conn.requests]

    def deliver(self, conn: Conn) -> None:
        request, raw = conn.replies.popleft()
        request.answered(raw)

    # -- Redis

    def execute(self, conn: Conn) -> None:
        """Redis carries out the next request of this connection."""
        request = conn.requests.popleft()
        if not conn.is_open:
            self.saw("late " + request.kind)
        raw = self.at_once(request)
        if conn.is_open:
            conn.replies.append((request, raw))
        elif request.kind == "pop" and request.debt is not None:
            self._lose(request.debt)

    def at_once(self, request: Request) -> Any:
        """Carry out a request and compare reply and key space. Raises DifferenceError, BrokenError."""
        self.counts["calls"] += 1
        self.counts["call " + request.kind] += 1
        words = ("LPOP", self.queue.keys["wake"]) if request.call is None else request.call.words
        raw, dump = self.wire.pipeline(words, look_command(self.queue, self.model.journal_seen))
        expected = request.predict()
        shaped = raw if isinstance(raw, RefusedError) else request.shape(raw)
        if not matches(expected, shaped):
            raise DifferenceError(f"reply to {request.kind}:\n  expected {expected!r}\n  got      {shaped!r}")
        if isinstance(dump, RefusedError):
            raise dump
        self.model.settle(read(dump))
        self._check_arrows()
        request.note(raw)
        if request.kind == "cycle":
            self._after_cycle(request, raw)
        self._check_marker()
        return raw

    def _check_arrows(self) -> None:
        """No call moves a task along a way that the table of states does not have."""
        now = {task: task.public_state for task in self.model.tasks.values()}
        for task, state in now.items():
            before = self.states.get(task, state)
            if before == state:
                continue
            if State(state) not in ARROWS[State(before)]:
                raise BrokenError(f"{task.id} went from {before} to {state}")
            self.counts[f"{before} → {state}"] += 1
        self.states = now

    def reread(self) -> None:
        """Compare the key space although nothing was called."""
        self.model.settle(read(self.wire.command(*look_command(self.queue, self.model.journal_seen))))

    # -- the marker

    def pop_request(self) -> Request:
        """A blocking read for the marker; it is carried out when there is one."""

        def predict() -> bytes:
            self.model.marker = False
            request.debt = Debt()
            self.debts.append(request.debt)
            return b"1"

        request = Request("pop", None, predict, possible=lambda: self.model.marker)
        return request

    def _lose(self, debt: Debt) -> None:
        self.debts.remove(debt)
        self.excused = self.excused_suspects = True
        self.saw("marker lost")

    def _after_cycle(self, request: Request, raw: Any) -> None:
        _, flags, _, claims, _ = raw
        if flags & 2:
            return
        if request.debt is not None and request.debt.owed:
            request.debt.owed = False
            if request.debt in self.debts:
                self.debts.remove(request.debt)
        if not flags:
            self.excused = False
            self.excused_suspects = self.excused_suspects or not claims

    def _check_marker(self) -> None:
        """Claimable work is waiting: then there is a marker, or somebody who took it owes a cycle."""
        if self.model.marker:
            self.excused = self.excused_suspects = False
        if self.model.marker or self.model.paused or self.debts:
            return
        if not self.excused and any(self.model.waiting(digit) for digit in "r3210"):
            raise BrokenError("work is waiting, and nothing will wake anybody")
        if not self.excused_suspects and self.model.waiting("s"):
            raise BrokenError("a suspect is waiting, and nothing will wake anybody")

    # -- processes

    def start_worker(self, host: str) -> Worker:
        """A new process; its name is the host's and never comes again."""
        self.boots[host] += 1
        worker = Worker(self, f"{host}:{self.boots[host]}")
        held = {entry.owner for digit in STREAMS for entry in self.model.streams[digit]}
        self.saw("V13", f"{host}:{self.boots[host] - 1}" in held)
        self.workers.append(worker)
        worker.beat(b"{}")
        return worker

    def crash(self, worker: Worker) -> None:
        """kill -9: what it sent may still arrive."""
        self.workers.remove(worker)
        self.proven_dead.add(worker.name)
        if worker.debt is not None and worker.debt.owed:
            self._lose(worker.debt)
        for conn in self.conns:
            if conn.is_open and conn.name.startswith(worker.name + " "):
                conn.lost = _nobody
                self.cut(conn)

    def leave(self, worker: Worker) -> None:
        """A process that signed off exits."""
        self.crash(worker)

    def started(self, place: str) -> None:
        """An attempt begins: at each place once, for ever."""
        if place in self.places and not (place in self.handed_twice or self.lost_time):
            raise BrokenError(f"the attempt at {place} was started twice")
        self.places.add(place)

    # -- what befalls the server

    def destroy_group(self, digit: str) -> None:
        self.wire.command("XGROUP", "DESTROY", self.queue.keys[digit], "g")
        self.handed_twice |= {entry.place for entry in self.model.streams[digit]}
        self.model.destroy_group(digit)
        self.reread()

    def expire(self, id_: str) -> None:
        self.wire.command("DEL", self.queue.keys["t"] + id_)
        self.model.expire(id_)
        self.reread()

    def set_memory(self, full: bool) -> None:
        self.wire.command("CONFIG", "SET", "maxmemory", "1" if full else "0")
        self.model.full_memory = full

    def write_foreign(self, digit: str, fields: tuple[str, ...]) -> None:
        """Something else writes into a stream, and wakes nobody."""
        self.wire.command("XADD", self.queue.keys[digit], "*", *fields)
        self.model.streams[digit].append(Entry(digit, [part.encode() for part in fields], None))
        self.excused = self.excused_suspects = True
        self.reread()


def _nobody() -> None:
    """Nobody hears of it."""
