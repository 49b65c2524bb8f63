"""The world of one pool: a queue, the pods that serve it, and what a cluster does when their number changes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from .events import Agenda
from .pods import BEAT_S, Pod
from .starts import Start, StartUp
from .workloads import Workload

LIMIT: Final = 200
"""A run that takes so many times its horizon will never end."""
WAKE_S: Final = 0.015
"""From the task that enters an empty queue to the look of who is woken by it; measured with a real operator."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all policies share."""

    start_up: StartUp
    max_pods: int = 20
    slots: int = 1
    grace_s: float = 30.0
    """From a pod's SIGTERM, at which it claims no more, to its end. 0: it ends at once, whatever it runs."""
    reclaim_s: float = 0.0
    """A task whose pod was ended is taken by another so long after it began, at the soonest."""
    per_task_s: float = 0.0
    """Of a slot, beside the task itself."""
    seed: int = 0


@dataclass(slots=True)
class Record:
    """What happened, for the metrics."""

    began_s: list[float]
    """By task: of the attempt that ended; NaN before that."""
    ended_s: list[float]
    starts: list[int]
    pods: list[int]
    """By task: the number of the pod that it ended in."""
    writes: list[tuple[float, int, int]] = field(default_factory=list)
    """(time, replicas before, replicas after) of each write of the number."""
    lives: list[tuple[float, float]] = field(default_factory=list)
    """(made, gone) of each pod."""
    ready: list[tuple[float, int]] = field(default_factory=list)
    """(time, +1 or -1): pods that can work."""
    interrupted: int = 0
    wasted_s: float = 0.0
    """Seconds of work that were done again."""

    @classmethod
    def of(cls, tasks: int) -> Record:
        return cls([math.nan] * tasks, [math.nan] * tasks, [0] * tasks, [-1] * tasks)


class Pool:
    """Changed by events of the agenda, and by a policy through `scale`, `ask` and `release`."""

    def __init__(self, workload: Workload, setting: Setting) -> None:
        self.agenda = Agenda()
        self.workload, self.setting = workload, setting
        self.record = Record.of(len(workload.tasks))
        self.pods: list[Pod] = []
        """Those that are there, the leaving ones with them."""
        self.asked_for = 0
        self.waiting: deque[int] = deque()
        self.processing = 0
        self.woken: Callable[[], None] = lambda: None
        """Called when a task enters the empty queue of a pool at zero."""
        self.restarted: Callable[[], None] = lambda: None
        """Called when who decides is back: what was only in memory is gone."""
        self._free: deque[tuple[Pod, int]] = deque()
        """Free slots, the longest idle first, as Redis serves blocked readers; with the epoch of their pod."""
        self._random = Random(f"cluster:{setting.seed}")
        self._start = setting.start_up.begin(self.agenda)
        self._made = 0
        self._left = len(workload.tasks)
        self._next = 0
        self._cancelled: set[int] = set()
        self.blind = False
        """Redis is away: nobody can look at the queue, nor change it."""
        self._deciding = True
        self._plan()

    @property
    def now_s(self) -> float:
        return self.agenda.now_s

    @property
    def staying(self) -> list[Pod]:
        return [pod for pod in self.pods if not pod.leaving]

    @property
    def busy(self) -> int:
        """Pods that run a task, by their beats."""
        return sum(pod.told(self.now_s).running > 0 for pod in self.pods if not pod.leaving)

    def run(self) -> Record:
        """Until the horizon is over and every task has ended."""
        horizon_s = self.workload.horizon_s
        self.agenda.at(horizon_s, lambda: None)
        self.agenda.run(lambda: self.now_s >= horizon_s and not self._left, LIMIT * horizon_s)
        for pod in self.pods:
            self.record.lives.append((pod.born_s, self.now_s))
        return self.record

    def every(self, first_s: float, period_s: float, call: Callable[[], object]) -> None:
        """Call it then, and again and again, but while nobody decides."""

        def turn() -> None:
            self.agenda.at(self.now_s + period_s, turn)
            if self._deciding:
                call()

        self.agenda.at(first_s, turn)

    # what a policy does

    def scale(self, replicas: int, marked: Collection[str] = ()) -> None:
        """Ask for so many pods. `marked`: names of those that a ReplicaSet shall stop before others."""
        if replicas == self.asked_for:
            return
        self.record.writes.append((self.now_s, self.asked_for, replicas))
        self.asked_for = replicas
        staying = self.staying
        for nth in range(more := max(0, replicas - len(staying))):
            self._make(nth, more)
        surplus = len(staying) - replicas
        if surplus > 0:
            for pod in sorted(staying, key=partial(self._rank, marked=marked))[:surplus]:
                self._stop(pod)

    def ask(self, pod: Pod) -> None:
        """To drain; it hears that with its next beat."""
        pod.asked_s = self.now_s
        self._tell_soon(pod)

    def release(self, pod: Pod) -> None:
        """From being asked to drain; it, too, is heard with the next beat."""
        pod.asked_s = None
        self._tell_soon(pod)

    def retire(self, pod: Pod) -> None:
        """Stop this one; the number is to be lowered in the same moment."""
        self._stop(pod)

    # what happens

    def _plan(self) -> None:
        """What comes of itself: mishaps, and the first task."""
        mishaps = self.workload.mishaps
        for span in mishaps.redis_away:
            self.agenda.at(span.begin_s, self._lose_redis)
            self.agenda.at(span.end_s, self._find_redis)
        for span in mishaps.decider_away:
            self.agenda.at(span.begin_s, self._lose_decider)
            self.agenda.at(span.end_s, self._find_decider)
        for each in mishaps.cancellations:
            self.agenda.at(each.at_s, partial(self._cancel, each.tasks))
        self._await_task()

    def _lose_decider(self) -> None:
        self._deciding = False

    def _find_decider(self) -> None:
        self._deciding = True
        self.restarted()

    def _lose_redis(self) -> None:
        self.blind = True

    def _find_redis(self) -> None:
        """Who has a free slot asks for a task."""
        self.blind = False
        for pod in self.pods:
            self._offer(pod)

    def _cancel(self, tasks: Set[int]) -> None:
        """Those that wait are gone at once, and those that would wait anew are when they do."""
        self._cancelled |= tasks
        staying = [task for task in self.waiting if task not in tasks]
        self._left -= len(self.waiting) - len(staying)
        self.waiting = deque(staying)

    def _tell_soon(self, pod: Pod) -> None:
        beat_s = pod.next_beat_s(self.now_s)
        self.agenda.at(self.workload.mishaps.reachable_s(beat_s), partial(self._hear, pod))

    def _rank(self, pod: Pod, marked: Collection[str]) -> tuple[bool, bool, int, float]:
        """As a ReplicaSet ranks victims: not ready, marked, young by powers of two; then by chance."""
        young = -1 if pod.ready_s is None else int(math.log2(max(1.0, self.now_s - pod.ready_s)))
        return pod.ready_s is not None, pod.name not in marked, young, self._random.random()

    def _make(self, nth: int, together: int) -> None:
        number, self._made = self._made, self._made + 1
        pod = Pod(number, self.now_s, self.setting.slots, phase_s=self._random.random() * BEAT_S)
        self.pods.append(pod)
        self._start(Start(number, nth, together, partial(self._ready, pod)))

    def _ready(self, pod: Pod) -> None:
        if pod.gone:
            return
        pod.ready_s = self.now_s
        pod.phase_s += self.now_s
        self.record.ready.append((self.now_s, 1))
        self._offer(pod)

    def _offer(self, pod: Pod) -> None:
        """All free slots of a pod; what was offered of it before does not count any more."""
        pod.epoch += 1
        for _ in range(pod.slots - len(pod.running)):
            self._slot_free(pod)

    def _slot_free(self, pod: Pod) -> None:
        if not pod.claims or self.blind:
            return
        if self.waiting:
            self._begin(self.waiting.popleft(), pod)
        else:
            self._free.append((pod, pod.epoch))

    def _await_task(self) -> None:
        if self._next < len(self.workload.tasks):
            due_s = self.workload.tasks[self._next][0]
            self.agenda.at(self.workload.mishaps.reachable_s(due_s), self._arrive)

    def _arrive(self) -> None:
        task, self._next = self._next, self._next + 1
        self._await_task()
        first = not self.waiting
        self._enqueue(task)
        if first and not self.asked_for:
            self.agenda.at(self.now_s + WAKE_S, self._wake)

    def _wake(self) -> None:
        if not self.asked_for and self._deciding:
            self.woken()

    def _enqueue(self, task: int, *, front: bool = False) -> None:
        while self._free:
            pod, epoch = self._free.popleft()
            if epoch == pod.epoch and pod.claims:
                self._begin(task, pod)
                return
        if front:
            self.waiting.appendleft(task)
        else:
            self.waiting.append(task)

    def _begin(self, task: int, pod: Pod) -> None:
        now_s = self.now_s
        pod.begin(task, now_s)
        self.processing += 1
        self.record.starts[task] += 1
        seconds = self.workload.tasks[task][1] + self.setting.per_task_s
        self.agenda.at(now_s + seconds, partial(self._end, task, pod))

    def _end(self, task: int, pod: Pod) -> None:
        began_s = pod.running.get(task)
        if began_s is None or pod.gone:
            return
        now_s = self.now_s
        pod.end(task, now_s)
        self.processing -= 1
        self._left -= 1
        self.record.began_s[task], self.record.ended_s[task], self.record.pods[task] = began_s, now_s, pod.number
        if pod.leaving and not pod.running:
            self._vanish(pod)
        else:
            self._slot_free(pod)

    def _hear(self, pod: Pod) -> None:
        asked = pod.asked_s is not None
        if pod.gone or pod.draining is asked:
            return
        pod.draining = asked
        pod.tell()
        self._offer(pod)

    def _stop(self, pod: Pod) -> None:
        """SIGTERM, and the end when it is idle or its grace is over."""
        pod.leaving = True
        if not pod.running or not self.setting.grace_s:
            self._vanish(pod)
        else:
            self.agenda.at(self.now_s + self.setting.grace_s, partial(self._vanish, pod))

    def _vanish(self, pod: Pod) -> None:
        if pod.gone:
            return
        pod.gone = True
        self.pods.remove(pod)
        self.record.lives.append((pod.born_s, self.now_s))
        if pod.ready_s is not None:
            self.record.ready.append((self.now_s, -1))
        for task, began_s in reversed(pod.running.items()):
            self.record.interrupted += 1
            self.record.wasted_s += self.now_s - began_s
            again_s = max(self.now_s, began_s + self.setting.reclaim_s)
            self.agenda.at(self.workload.mishaps.reachable_s(again_s), partial(self._again, task))

    def _again(self, task: int) -> None:
        """A task whose pod is gone waits anew, before all others."""
        self.processing -= 1
        if task in self._cancelled:
            self._left -= 1
        else:
            self._enqueue(task, front=True)
