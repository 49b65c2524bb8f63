"""The queues and workers of the operator's model test, as they really are. operator_model_redis.py has real queues."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from headrace.broker.broker import WorkerSeen
from headrace.broker.demand import Demand, WorkerBeat

EPOCH: Final = 1_764_072_000.0
"""Unix time at world second 0: whole minutes, and an even number of them."""


@dataclass
class Worker:
    """One boot of a process in a pod."""

    name: str
    began_s: float
    counter: int = 0
    draining: bool = False
    answer: bool | None = None
    """What its last beat was answered, and it has not heard yet."""

    @property
    def began_ms(self) -> int:
        return int((EPOCH + self.began_s) * 1_000)


@dataclass
class TrueQueue:
    """One queue. `fault`: "" or why it cannot be read."""

    fault: str = ""
    paused: bool = False
    delayed: list[float] = field(default_factory=list)
    _pending: int = 0
    _parked: int = 0
    _held: Counter[str] = field(default_factory=Counter)
    _beats: dict[str, WorkerBeat] = field(default_factory=dict)
    _began_ms: dict[str, int] = field(default_factory=dict)
    _asked: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Worker → when it was asked to drain, and its beat's counter then."""

    # what is in it

    @property
    def pending(self) -> int:
        return self._pending

    def running(self, worker: str) -> int:
        """Tasks that it holds."""
        return self._held[worker]

    def seen(self) -> list[WorkerSeen]:
        """Whoever beats or holds something."""
        names = sorted({*self._beats, *(name for name, held in self._held.items() if held)})
        return [
            WorkerSeen(
                name,
                self._beats[name].text() if name in self._beats else "",
                b'{"started_ms":%d}' % self._began_ms[name] if name in self._began_ms else b"",
                self._held[name],
            )
            for name in names
        ]

    def beats(self, worker: str) -> bool:
        """Whether Redis knows a beat of it."""
        return worker in self._beats

    def asked(self) -> set[str]:
        """Workers that shall drain."""
        return {*self._asked}

    @property
    def unfinished(self) -> int:
        return self.pending + len(self.delayed) + sum(each.held for each in self.seen())

    # what users do

    def submit(self, count: int) -> None:
        self._pending += count

    def delay(self, at_s: float) -> None:
        self.delayed.append(at_s)

    def cancel(self) -> None:
        """All that waits."""
        self._pending, self.delayed = 0, []

    def park(self, most: int) -> None:
        """Nobody knows the type of these."""
        taken = min(self._pending, most)
        self._pending, self._parked = self._pending - taken, self._parked + taken

    def pause(self, paused: bool) -> None:
        self.paused = paused

    def recover(self) -> None:
        """All faults end, and what is parked is forgotten."""
        self.fault, self._parked = "", 0
        self.pause(False)

    # what workers do

    def beat(self, worker: Worker) -> bool:
        """Whether it shall drain."""
        worker.counter += 1
        self._beats[worker.name] = WorkerBeat(worker.counter, self.running(worker.name), worker.draining, None)
        self._began_ms[worker.name] = worker.began_ms
        return worker.name in self._asked

    def claim(self, worker: str, slots: int, now_s: float) -> None:
        self.promote(now_s)
        taken = min(max(0, slots - self._held[worker]), self._pending)
        self._held[worker] += taken
        self._pending -= taken

    def finish(self, worker: str, most: int) -> None:
        self._held[worker] -= min(most, self._held[worker])

    def promote(self, now_s: float) -> None:
        due = [each for each in self.delayed if each <= now_s]
        self.delayed = [each for each in self.delayed if each > now_s]
        self.submit(len(due))

    def hand_on(self, worker: str) -> int:
        """What this worker holds waits again, and nothing is left of it."""
        taken = self._held.pop(worker, 0)
        self._pending += taken
        self._beats.pop(worker, None)
        self._began_ms.pop(worker, None)
        return taken

    def lose_beats(self) -> None:
        """And who was asked to drain; beats come back one by one."""
        self._beats.clear()
        self._asked.clear()

    # what the operator does

    def demand(self, now_s: float) -> Demand:
        self.promote(now_s)
        soon = sum(each <= now_s + 3 for each in self.delayed)
        asked = {name: now_s - at for name, (at, _) in self._asked.items()}
        counters = {name: counter for name, (_, counter) in self._asked.items()}
        return Demand(
            self._pending, sum(self._held.values()), len(self.delayed), soon, self._parked,
            1.0 if self._pending else 0.0, self.paused, dict(self._beats), asked, counters,
        )  # fmt: skip

    def ask(self, names: tuple[str, ...], now_s: float) -> None:
        for name in names:
            if name in self._beats and name not in self._asked:
                self._asked[name] = (now_s, self._beats[name].counter)

    def release(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._asked.pop(name, None)
