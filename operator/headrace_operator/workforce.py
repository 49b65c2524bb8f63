"""Who works in a pool: what its pods and what Redis say, brought together. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from headrace.broker.demand import Demand, WorkerBeat

from .drain import Replica
from .fleet import Fleet, Pod
from .observed import QueueLoad

_OF_A_DEPLOYMENT: Final = "-[a-z0-9]+(-[a-z0-9]{5})?"
"""What follows a pool's name in those of its pods; of a pool `emails-large` more follows `emails`."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of one pod: one boot of a process each."""

    boots: tuple[str, ...]
    running: int
    draining: bool
    """All of them answered to have been asked."""


def pod_of(worker: str) -> str:
    """The pod (or process) of a worker, whose name is `<WORKER_ID>:<boot>`."""
    return worker.rpartition(":")[0]


def crews(demands: Iterable[Demand]) -> dict[str, Crew]:
    """Pod → its workers. One that serves several queues says the same in each."""
    beats: dict[str, WorkerBeat] = {}
    answered: set[str] = set()
    for demand in demands:
        beats.update(demand.workers)
        answered.update(worker for worker in demand.workers if demand.answered(worker))
    found: dict[str, Crew] = {}
    for worker, beat in beats.items():
        name, other = pod_of(worker), found.get(pod_of(worker), Crew((), 0, True))
        draining = other.draining and worker in answered
        found[name] = Crew((*other.boots, worker), other.running + beat.running, draining)
    return found


def asked_since(demands: Iterable[Demand]) -> dict[str, float]:
    """Worker → seconds since it was asked to drain, the longest of all queues."""
    found: dict[str, float] = {}
    for demand in demands:
        for worker, seconds in demand.asked.items():
            found[worker] = max(seconds, found.get(worker, 0.0))
    return found


def replicas(fleet: Fleet, demands: Iterable[Demand], now_s: float, mute: Collection[str] = ()) -> list[Replica]:
    """The replicas that stay, with what they run and whether they were asked to leave.

    `mute`: those that are ready for long, and nothing was ever heard of them.
    """
    demands = tuple(demands)
    working, asked = crews(demands), asked_since(demands)
    return [_replica(pod, working.get(pod.name), asked, now_s, pod.name in mute) for pod in fleet.staying]


def _replica(pod: Pod, crew: Crew | None, asked: Mapping[str, float], now_s: float, mute: bool) -> Replica:
    if crew is None:
        unheard = pod.ready and not mute
        return Replica(pod.name, pod.born_s, ready=pod.ready, unheard=unheard, cheap=pod.cheap)
    since = [asked[boot] for boot in crew.boots if boot in asked]
    asked_s = now_s - max(since) if since and len(since) == len(crew.boots) else None
    return Replica(pod.name, pod.born_s, crew.running, asked_s, crew.draining, pod.ready, cheap=pod.cheap)


def unheard(fleet: Fleet, demands: Iterable[Demand], known: Mapping[str, float], now_s: float) -> dict[str, float]:
    """Ready pods that no queue knows a worker of → since when. `known`: what this said before."""
    heard = crews(demands)
    return {pod.name: known.get(pod.name, now_s) for pod in fleet.staying if pod.ready and pod.name not in heard}


def unseen(fleet: Fleet, demands: Iterable[Demand], pool: str) -> int:
    """Pods of the pool that work, and that the cluster has not shown yet."""
    shown = {pod.name for pod in fleet.pods}
    ours = re.compile(re.escape(pool) + _OF_A_DEPLOYMENT)
    return sum(ours.fullmatch(name) is not None and name not in shown for name in crews(demands))


def boots_of(names: Iterable[str], demand: Demand) -> list[str]:
    """The workers of these pods in this queue."""
    wanted = set(names)
    return [worker for worker in demand.workers if pod_of(worker) in wanted]


def strangers(demand: Demand) -> list[str]:
    """Asked to drain, and gone: what is left of them is to be cleared."""
    return [worker for worker in demand.asked if worker not in demand.workers]


def load(name: str, demand: Demand, parked_before: int, suspects: str = "Run") -> QueueLoad:
    """A queue as a decision sees it. `parked_before`: what the present template has had its chance at.

    `suspects` as the pool's spec has it: what it leaves to others, or they to it, is no work for it.
    """
    theirs = demand.suspects
    if suspects == "Only":
        return QueueLoad(name, theirs.waiting, theirs.processing, oldest_s=theirs.oldest_s, paused=demand.paused)
    if suspects == "Leave":
        waiting, processing = demand.waiting - theirs.waiting, demand.processing - theirs.processing
        demand = replace(demand, waiting=waiting, processing=processing, oldest_s=demand.plain_oldest_s)
    return QueueLoad(
        name, demand.waiting, demand.processing, demand.due_soon, demand.delayed,
        max(0, demand.parked - parked_before), demand.oldest_s, paused=demand.paused,
    )  # fmt: skip
