"""Other rules, by their published formulas: Knative's KPA, dask's adaptive scaling, and a number that never changes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Final

from bench.autoscaling.pods import Pod
from bench.autoscaling.pool import Pool


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always as many."""

    pods: int

    def attach(self, pool: Pool, random: Random) -> None:
        pool.agenda.at(0.0, lambda: pool.scale(self.pods))


KPA_TICK_S: Final = 2.0
KPA_SCRAPE_S: Final = 1.0
STABLE_S: Final = 60.0
PANIC_S: Final = 6.0
GRACE_S: Final = 30.0
"""After the stable window says zero, the last pod stays for so long."""


@dataclass(frozen=True, slots=True)
class Kpa:
    """Concurrency (what waits and what runs) averaged over a minute, in a panic over 6 s. The ReplicaSet chooses."""

    utilization: float = 0.7

    def attach(self, pool: Pool, random: Random) -> None:
        scaler = KpaScaler(pool, self.utilization * pool.setting.slots)
        pool.woken, pool.restarted = scaler.wake, scaler.restart
        pool.every(random.uniform(0, KPA_SCRAPE_S), KPA_SCRAPE_S, scaler.scrape)
        pool.every(random.uniform(0, KPA_TICK_S), KPA_TICK_S, scaler.tick)


class KpaScaler:
    """Of one pool."""

    def __init__(self, pool: Pool, target: float) -> None:
        self._pool, self._target = pool, target
        self._seen: deque[tuple[float, int]] = deque()
        self._panic_until_s = -math.inf
        self._panic_pods = 0
        self._zero_since_s: float | None = None

    def wake(self) -> None:
        """The activator holds the first request, and pokes."""
        self._pool.scale(1)

    def restart(self) -> None:
        """It begins in a panic, so that it shrinks nothing before it has looked on."""
        self._seen.clear()
        self._zero_since_s = None
        self._panic_pods = sum(pod.claims for pod in self._pool.pods)
        self._panic_until_s = self._pool.now_s + STABLE_S if self._panic_pods > 1 else -math.inf

    def scrape(self) -> None:
        pool = self._pool
        if pool.blind:
            return
        self._seen.append((pool.now_s, len(pool.waiting) + pool.processing))
        while self._seen[0][0] <= pool.now_s - STABLE_S:
            self._seen.popleft()

    def tick(self) -> None:
        if self._seen and not self._pool.blind:
            self._pool.scale(min(self._not_zero(self._wanted()), self._pool.setting.max_pods))

    def _wanted(self) -> int:
        now_s, ready = self._pool.now_s, sum(pod.claims for pod in self._pool.pods)
        stable, panic = self._mean_pods(STABLE_S), self._mean_pods(PANIC_S)
        stable, panic = max(stable, ready // 2), max(panic, ready // 2)
        if panic >= 2 * max(1, ready):
            if now_s > self._panic_until_s:
                self._panic_pods = 0
            self._panic_until_s = now_s + STABLE_S
        if now_s > self._panic_until_s:
            return stable
        self._panic_pods = max(self._panic_pods, stable, panic)
        return self._panic_pods

    def _mean_pods(self, window_s: float) -> int:
        recent = [number for s, number in self._seen if s > self._pool.now_s - window_s]
        return math.ceil(sum(recent) / len(recent) / self._target) if recent else 0

    def _not_zero(self, wanted: int) -> int:
        now_s, pool = self._pool.now_s, self._pool
        if wanted or not pool.asked_for:
            self._zero_since_s = None
            return wanted
        self._zero_since_s = now_s if self._zero_since_s is None else self._zero_since_s
        return 0 if now_s - self._zero_since_s >= GRACE_S else 1


DASK_TICK_S: Final = 5.0
DASK_PAUSE_S: Final = 15.0
"""Between two changes, in both directions."""


@dataclass(frozen=True, slots=True)
class Dask:
    """As many slots as end all work in `target_s`, never more than tasks; only idle workers go, a quarter at a time."""

    target_s: float = 5.0

    def attach(self, pool: Pool, random: Random) -> None:
        scaler = DaskScaler(pool, self.target_s)
        pool.restarted = scaler.restart
        pool.every(random.uniform(0, DASK_TICK_S), DASK_TICK_S, scaler.tick)


class DaskScaler:
    """Of one pool. Its scheduler hands tasks out itself, so who is idle is known exactly."""

    def __init__(self, pool: Pool, target_s: float) -> None:
        self._pool, self._target_s = pool, target_s
        self._changed_s = -math.inf
        self._mean_s = 1.0

    def restart(self) -> None:
        """When it last changed the number stands in an annotation."""
        self._mean_s = 1.0

    def tick(self) -> None:
        pool, current = self._pool, self._pool.asked_for
        if pool.blind:
            return
        wanted = min(self._wanted(), pool.setting.max_pods)
        if wanted == current or pool.now_s - self._changed_s < DASK_PAUSE_S:
            return
        if wanted < current:
            idle = [pod for pod in pool.staying if not pod.running]
            most = max(1, current // 4)
            going = sorted(idle, key=lambda pod: (pod.ready_s is not None, -pod.number))[: min(most, current - wanted)]
            wanted = current - len(going)
            self._retire(going)
        if wanted != current:
            self._changed_s = pool.now_s
            pool.scale(wanted)

    def _wanted(self) -> int:
        pool = self._pool
        beats = [pod.told(pool.now_s).mean_s for pod in pool.pods]
        told = [mean_s for mean_s in beats if mean_s is not None]
        self._mean_s = sum(told) / len(told) if told else self._mean_s
        tasks = len(pool.waiting) + pool.processing
        slots = min(tasks, math.ceil(tasks * self._mean_s / self._target_s))
        return math.ceil(slots / pool.setting.slots)

    def _retire(self, going: list[Pod]) -> None:
        """These, whatever the ReplicaSet would choose: they stop by themselves."""
        for pod in going:
            self._pool.retire(pod)
