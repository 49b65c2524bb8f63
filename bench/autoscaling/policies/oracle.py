"""Who knows every task before it comes: a bound for all who do not.

It serves first come, first served with at most so many slots, starts each pod ahead of its first task, and keeps a pod
over a pause exactly when that is cheaper than to start another. No policy with as many pods lets any task of a queue
that is first come, first served wait less than it does with all of them; and none that begins each task when it does
pays less. Mishaps are no surprise to it: while nobody decides it has decided, but nobody reaches a Redis that is away.
(Levels of need, one above another, each decided by itself, are the best there is, for pods are alike; where a pod has
several slots, tasks are also counted as if they could move between pods, so that its cost is a lower bound.)
"""

from __future__ import annotations

import heapq
import math

from bench.autoscaling.pool import Record, Setting
from bench.autoscaling.workloads import Workload


def foresee(workload: Workload, setting: Setting, pods: int, start_s: float) -> Record:
    """A run of it, with at most so many pods at once; a pod takes `start_s` from its making until it works."""
    record = Record.of(len(workload.tasks))
    free = [0.0] * (pods * setting.slots)
    changes: list[tuple[float, int]] = []
    mishaps, cancelled_s = workload.mishaps, workload.mishaps.cancelled_s()
    for task, (arrived_s, seconds) in enumerate(workload.tasks):
        began_s = mishaps.reachable_s(max(arrived_s, free[0]))
        if began_s >= cancelled_s.get(task, math.inf):
            continue
        heapq.heapreplace(free, began_s + seconds)
        record.began_s[task], record.ended_s[task], record.starts[task] = began_s, began_s + seconds, 1
        changes += ((began_s, 1), (began_s + seconds, -1))
    for needed_s, over_s in _levels(sorted(changes), setting.slots, start_s):
        record.lives.append((needed_s - start_s, over_s))
        record.ready += ((needed_s, 1), (over_s, -1))
    made_and_gone = sorted([(made, 1) for made, _ in record.lives] + [(gone, -1) for _, gone in record.lives])
    replicas = 0
    for s, change in made_and_gone:
        record.writes.append((s, replicas, replicas + change))
        replicas += change
    return record


def _levels(changes: list[tuple[float, int]], slots: int, start_s: float) -> list[tuple[float, float]]:
    """(needed from, to) of each pod: the nth pod is there while more than n - 1 are needed, and over short pauses."""
    lives: list[tuple[float, float]] = []
    since: list[float] = []
    until: list[float] = []
    tasks = needed = 0
    for s, change in changes:
        tasks += change
        now = math.ceil(tasks / slots)
        if now > needed:
            if now > len(since):
                since.append(s)
                until.append(s)
            elif s - until[now - 1] > start_s:
                lives.append((since[now - 1], until[now - 1]))
                since[now - 1] = s
        elif now < needed:
            until[now] = s
        needed = now
    return lives + list(zip(since, until, strict=True))
