"""One pod: when it is ready, what it runs, and what its beats have told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from headrace.broker.demand import WorkerBeat
from headrace.runtime.service_times import ServiceTimes

BEAT_S: Final = 1.0
"""Between two signs of life of a worker, as its setting HEADRACE_BEAT_S says."""
TYPE: Final = "task"
"""All tasks are of one type, however long they take."""
SILENT: Final = WorkerBeat(0, 0)
"""Of a worker before its first beat."""


@dataclass(slots=True, eq=False)
class Pod:
    """Changed by the pool only. What an operator knows of it, it knows by beats: `told`."""

    number: int
    born_s: float
    slots: int
    phase_s: float
    """When its first beat is; one each BEAT_S from then on. Before it is ready: so long after that."""
    ready_s: float | None = None
    leaving: bool = False
    gone: bool = False
    asked_s: float | None = None
    """When it was asked to drain."""
    draining: bool = False
    """It has heard so, claims no more, and has told."""
    epoch: int = 0
    """Offers of free slots that are older do not count."""
    running: dict[int, float] = field(default_factory=dict)
    """Task → when it began."""
    _times: ServiceTimes = field(default_factory=ServiceTimes)
    """The worker's own."""
    _beat: WorkerBeat = SILENT
    """The last one."""
    _untold: list[tuple[float, float | None]] = field(default_factory=list)
    """Since that: when a task began or ended; for one that ended, how long it took."""

    @property
    def name(self) -> str:
        return f"pool-{self.number:05}"

    @property
    def claims(self) -> bool:
        """Whether it may take a task, if it has a slot."""
        return self.ready_s is not None and not (self.draining or self.leaving or self.gone)

    def next_beat_s(self, now_s: float) -> float:
        return self._beat_s(now_s) + BEAT_S

    def told(self, now_s: float) -> WorkerBeat:
        """What its last beat said."""
        if self._untold and self._untold[0][0] <= (beat_s := self._beat_s(now_s)):
            self._tell(beat_s)
        return self._beat

    def tell(self) -> None:
        """A beat out of turn: what it runs now is known."""
        self._tell(math.inf)

    def begin(self, task: int, now_s: float) -> None:
        self.running[task] = now_s
        self._untold.append((now_s, None))

    def end(self, task: int, now_s: float) -> None:
        self._untold.append((now_s, now_s - self.running.pop(task)))

    def _tell(self, until_s: float) -> None:
        """All that was until then, in one beat."""
        spent, running = self._times.spent[TYPE], self._beat.running
        told = [seconds for s, seconds in self._untold if s <= until_s]
        del self._untold[: len(told)]
        for seconds in told:
            if seconds is None:
                spent.begun, running = spent.begun + 1, running + 1
            else:
                spent.ended, running = spent.ended + 1, running - 1
                spent.seconds += seconds
        self._times.look()
        types = self._times.types()
        self._beat = WorkerBeat(0, running, self.draining, types[0].seconds if types else None, types)

    def _beat_s(self, now_s: float) -> float:
        return self.phase_s + math.floor((now_s - self.phase_s) / BEAT_S) * BEAT_S
