"""KEDA's ScaledObject for a Redis stream, and the HorizontalPodAutoscaler (v2) that it makes: two loops, two clocks.

KEDA looks each `poll_s` and only moves between zero and `least`; the HPA looks each 15 s and only moves from 1 on. The
metric is `streamLength` (what waits and what runs), for the other one, `lagCount`, strands work (docs/scaling.md).
Nobody chooses which pod goes: that is the ReplicaSet's rule. While Redis is away both leave the number as it is. What
KEDA must remember over a restart is in the ScaledObject's status, and what the HPA must, in the controller manager.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from bench.autoscaling.pool import Pool

SYNC_S: Final = 15.0
"""--horizontal-pod-autoscaler-sync-period; a flag of the cluster, which managed clusters do not let anyone set."""
TOLERANCE: Final = 0.1
PERIOD_S: Final = 15.0
SOON_S: Final = 0.001
"""What is as old as a period or a window is not within it: measured steps are 15.0 s apart, none is left out."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A policy of an HPA's behavior, per 15 s."""

    type: Literal["Pods", "Percent"]
    value: int


@dataclass(frozen=True, slots=True)
class Behavior:
    """Of both directions. `up` empty: the rule of an HPA without behavior, at most twice as many, or 4."""

    up: tuple[Limit, ...] = ()
    down_window_s: float = 300.0

    def most(self, current: int, added: int) -> int:
        """As many replicas as there may be now, when so many were added within the period."""
        if not self.up:
            return max(2 * current, 4)
        began = current - added
        return max(
            began + limit.value if limit.type == "Pods" else math.ceil(began * (1 + limit.value / 100))
            for limit in self.up
        )


TUNED: Final = (Limit("Percent", 900), Limit("Pods", 20))


@dataclass(frozen=True, slots=True)
class Keda:
    """A ScaledObject. The fields' defaults are KEDA's."""

    target: int = 5
    """Tasks a pod."""
    poll_s: float = 30.0
    cooldown_s: float = 300.0
    behavior: Behavior = Behavior()
    poll_at_s: float | None = None
    """The phase of KEDA's clock, if it is given, and of the HPA's."""
    sync_at_s: float | None = None

    def attach(self, pool: Pool, random: Random) -> None:
        loops = Loops(self, pool)
        poll_at_s = random.uniform(0, self.poll_s) if self.poll_at_s is None else self.poll_at_s
        sync_at_s = random.uniform(0, SYNC_S) if self.sync_at_s is None else self.sync_at_s
        pool.every(poll_at_s, self.poll_s, loops.poll)
        pool.every(sync_at_s, SYNC_S, loops.sync)


class Loops:
    """Both of one pool."""

    def __init__(self, settings: Keda, pool: Pool) -> None:
        self._settings, self._pool = settings, pool
        self._active_s = -math.inf
        self._wants: deque[tuple[float, int]] = deque()
        self._added: deque[tuple[float, int]] = deque()

    def poll(self) -> None:
        """KEDA: from and to zero."""
        pool = self._pool
        if pool.blind:
            return
        if pool.waiting or pool.processing:
            self._active_s = pool.now_s
            if not pool.asked_for:
                pool.scale(1)
        elif pool.asked_for and pool.now_s - self._active_s >= self._settings.cooldown_s - 1e-6:
            pool.scale(0)

    def sync(self) -> None:
        """The HPA: from one pod to any other number."""
        pool, current, now_s = self._pool, self._pool.asked_for, self._pool.now_s
        if not current or pool.blind:
            return
        wanted = self._stabilized(self._by_metric(current))
        self._added = deque(each for each in self._added if each[0] > now_s - PERIOD_S + SOON_S)
        if wanted > current:
            added = sum(number for _, number in self._added)
            wanted = max(current, min(wanted, self._settings.behavior.most(current, added)))
            self._added.append((now_s, wanted - current))
        pool.scale(wanted)

    def _by_metric(self, current: int) -> int:
        metric, target = len(self._pool.waiting) + self._pool.processing, self._settings.target
        if 1 - TOLERANCE <= metric / (target * current) <= 1 + TOLERANCE:
            return current
        return max(1, min(math.ceil(metric / target), self._pool.setting.max_pods))

    def _stabilized(self, wanted: int) -> int:
        """The most that was recommended within the window."""
        now_s = self._pool.now_s
        while self._wants and self._wants[0][0] <= now_s - self._settings.behavior.down_window_s + SOON_S:
            self._wants.popleft()
        self._wants.append((now_s, wanted))
        most = max(number for _, number in self._wants)
        # Without behavior the older rule holds, by which an old recommendation may also raise the number.
        return max(wanted, min(most, self._pool.asked_for)) if self._settings.behavior.up else most
