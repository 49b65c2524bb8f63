"""A worker process as the rules make it (streams, marker and reconcile), without handlers, threads or time.

The runtime follows the same rules; here they meet every order in which requests and replies can pass each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace import task as tasks
from headrace.broker.broker import Report, parse_cycle, parse_held
from headrace.task import Attempt, Counters, Failure
from model_net import Conn, Debt, Request
from model_queue import is_readable
from model_redis import RefusedError
from model_task import Claim, claims_of, foreign_id

if TYPE_CHECKING:
    from model_world import World

SLOTS = 3


@dataclass(eq=False)
class Worker:
    """One process: a consumer name that no other ever has, and what it remembers."""

    world: World
    name: str
    claims: Conn = field(init=False)
    beats: Conn = field(init=False)
    wait: Conn | None = None
    """Stands while a blocking read for the marker is out."""
    running: dict[str, Claim] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    """Ids it was told to cancel."""
    finished: dict[str, Report] = field(default_factory=dict)
    sent: dict[str, Report] = field(default_factory=dict)
    unsure: dict[str, Report] = field(default_factory=dict)
    """Sent on a connection that broke before the answer."""
    handing: set[str] = field(default_factory=set)
    cycles_out: int = 0
    reserved: int = 0
    """Slots that the cycles on their way may fill."""
    lost_claims: bool = False
    reconciling: bool = False
    reconciled: bool = True
    """False after a broken connection: no claim until a reconcile has been answered."""
    missing: bool = False
    short: bool = False
    paused: bool = False
    draining: bool = False
    gone: bool = False
    frozen: bool = False
    counter: int = 0
    debt: Debt | None = None

    def __post_init__(self) -> None:
        self.claims = self.world.connect(f"{self.name} claims", self._claims_broke)
        self.beats = self.world.connect(f"{self.name} beats")

    # -- what it may do now

    @property
    def free(self) -> int:
        return max(0, SLOTS - len(self.running) - self.reserved)

    @property
    def may_claim(self) -> int:
        """Slots it may ask for."""
        ready = self.reconciled and not (self.draining or self.missing or self.unsure)
        return self.free if ready and self.cycles_out < 2 else 0

    @property
    def may_arm(self) -> bool:
        quiet = self.cycles_out == 0 and self.debt is None and self.wait is None
        return quiet and self.short and self.may_claim > 0

    @property
    def has_work(self) -> bool:
        """A cycle would say or ask something."""
        return self.cycles_out < 2 and bool(self.finished or self.unsure or self.may_claim or self.debt)

    def known(self) -> set[str]:
        """Places it need not wonder about."""
        return self.running.keys() | self.finished.keys() | self.sent.keys() | self.unsure.keys() | self.handing

    # -- the connection for claims

    def cycle(self, slots: int, reports: int, order: str, touch: bool) -> None:
        """Report so many of what ended, ask for so many."""
        said = dict(list({**self.unsure, **self.finished}.items())[:reports])
        if self.unsure:
            slots = 0
            self.world.saw("V11", self.lost_claims)
        for place in said:
            self.unsure.pop(place, None)
            self.finished.pop(place, None)
        self.sent |= said
        self.world.reports += [(self.name, report) for report in said.values()]
        self.cycles_out += 1
        self.reserved += slots
        request = self.world.calls.cycle(self.name, slots, list(said.values()), order, touch)
        request.debt, self.debt = self.debt, None
        request.answered = lambda raw: self._cycle_answered(raw, slots, said, request)
        self.claims.send(request)

    def _cycle_answered(self, raw: Any, slots: int, said: dict[str, Report], request: Request) -> None:
        answer = parse_cycle(raw)
        self.cycles_out -= 1
        self.reserved -= slots
        for place in said:
            self.sent.pop(place, None)  # a lost group may have given the same place out twice
        if request.debt is not None and request.debt.owed:
            self.debt = request.debt
        claims = claims_of(answer.claims)
        self.paused, self.missing = answer.paused, self.missing or answer.missing
        self.short = len(claims) < slots
        if self.draining:
            self.hand_back([claim.place for claim in claims])
        else:
            for claim in claims:
                self._start(claim)

    def _start(self, claim: Claim) -> None:
        self.world.started(claim.place)
        self.running[claim.place] = claim
        assert len(self.running) <= SLOTS, f"{self.name} runs {len(self.running)} tasks in {SLOTS} slots"

    def reconcile(self) -> None:
        request = self.world.calls.reconcile(self.name, sorted(self.known()))
        request.answered = self._reconciled
        self.reconciling = True
        self.claims.send(request)

    def _reconciled(self, raw: Any) -> None:
        self.reconciling = False
        if isinstance(raw, RefusedError):
            self.missing = True
            return
        answer = parse_held(raw)
        others = claims_of(answer.others)
        held = {place.decode() for place in answer.known} | {claim.place for claim in others}
        lost = self.running.keys() - held
        unknown = [claim for claim in others if claim.place not in self.known()]
        self.world.saw("V9", bool(held & (self.sent.keys() | self.finished.keys())) or self.cycles_out > 0)
        self.world.saw("lost ownership", bool(lost))
        self.world.saw("adopted", bool(unknown) and not self.draining)
        self.world.saw("V10", bool(lost) and len(lost) == len(unknown))
        for place in lost:
            del self.running[place]
        self.reconciled, self.lost_claims = True, False
        self._take_in(unknown)

    def _take_in(self, unknown: list[Claim]) -> None:
        """Run what fits, hand back the rest at once."""
        excess = []
        for claim in unknown:
            if self.free and not self.draining:
                self._start(claim)
            else:
                excess.append(claim.place)
        self.world.saw("V12", bool(excess) and not self.draining)
        self.hand_back(excess)

    def hand_back(self, places: list[str], leave: bool = False) -> None:
        if not places:
            return
        request = self.world.calls.hand_back(self.name, places, leave)
        request.answered = lambda raw: self._handed_back(places, leave and not raw[1])
        self.handing |= set(places)
        self.claims.send(request)
        self.world.past.append(request)

    def _handed_back(self, places: list[str], left: bool) -> None:
        self.handing -= set(places)
        self.gone = self.gone or left

    def init(self) -> None:
        request = self.world.calls.init("")
        request.answered = self._made
        self.claims.send(request)

    def _made(self, _: Any) -> None:
        self.missing = False

    def _claims_broke(self) -> None:
        debts = [debt for debt in self.claims.debts() if debt.owed]
        self.debt = self.debt or (debts[0] if debts else None)
        self.lost_claims = self.lost_claims or self.reserved > 0
        self.unsure |= self.sent
        self.sent, self.handing = {}, set()
        self.cycles_out, self.reserved = 0, 0
        self.reconciling, self.reconciled = False, False
        self.claims = self.world.connect(f"{self.name} claims", self._claims_broke)

    # -- the beat

    def beat(self, info: bytes) -> None:
        if not self.beats.is_open:
            self.beats = self.world.connect(f"{self.name} beats")
        self.counter += 1
        request = self.world.calls.beat(self.name, self.counter, info)
        request.answered = self._beaten
        self.beats.send(request)

    def _beaten(self, raw: Any) -> None:
        self.asked = {id_.decode() for id_ in raw[2]}
        self.paused = bool(raw[0])
        if not self.reconciling:
            self.reconcile()

    # -- the wait for a marker

    def arm(self) -> None:
        self.wait = self.world.connect(f"{self.name} waits", self._wait_broke)
        request = self.world.pop_request()
        request.answered = lambda _: self._woken(request)
        self.wait.send(request)

    def _woken(self, request: Request) -> None:
        assert self.wait is not None
        self.wait.is_open, self.wait = False, None
        self.debt = request.debt
        if self.draining:
            self.cycle(0, 0, "rs3210", touch=False)

    def _wait_broke(self) -> None:
        self.wait = None

    # -- what its handlers do

    def finish(self, place: str, outcome: str, argument: int | str) -> None:
        claim = self.running.pop(place)
        if not is_readable(claim.envelope):
            self.finished[place] = foreign_report(claim, self.name)
            return
        self.finished[place] = claim.report(outcome, argument, worker=self.name)

    def stop(self) -> None:
        """SIGTERM: nothing is started any more."""
        self.draining = True

    def drain(self, leave_to_redis: bool) -> None:
        """One step: hand back what runs, and sign off when nothing is left to say."""
        if self.running and leave_to_redis:
            self.running.clear()
            self.hand_back(["*"])
        elif self.running:
            # One, and it says each time that it leaves: as long as it holds another, it must not be signed off.
            place, _ = self.running.popitem()
            self.hand_back([place], leave=True)
        elif not (self.finished or self.sent or self.unsure or self.debt or self.wait or self.handing):
            self.hand_back(["*"], leave=True)


def foreign_report(claim: Claim, worker: str) -> Report:
    """What cannot be read is reported as dead, under the id that its place makes."""
    c = claim.counters
    charged = Counters(c.attempts + 1, c.failures + 1, c.crashes, c.interruptions)
    error = Failure("MalformedTask", reason="malformed")
    line = tasks.encode_attempt(Attempt(claim.place, "failed", worker, 1, 2, error))
    text = tasks.record("failed", claim.envelope, tasks.extend(claim.carried, charged, line))
    return Report(claim.place.encode(), foreign_id(claim.place), "failed", "", "", text)
