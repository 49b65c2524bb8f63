"""How many replicas a pool should have, and why, in words. Pure: time and everything seen are parameters.

Depth first, then never more slots than tasks, then what is idle or has just been needed, then the speed limits, then
the bounds. An absolute rule: pods that still start count as they are asked for, so there is no loop gain to overshoot
with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from .expectation import mix
from .history import History
from .observed import Moment, Observed, QueueLoad, Unreadable
from .schedules import Bounds, bounds
from .spec import Mode, Policy, PoolSpec, Rules
from .words import number

HALF: Final = 2.0
"""A backlog is to be drained within half of the wait that the target allows: the other half is for starting pods."""


class Reason(StrEnum):
    """Why a decision is what it is; one word for status and metrics."""

    QUEUE_WAIT = "QueueWait"
    TASKS_PER_REPLICA = "TasksPerReplica"
    SLOTS_PER_TASK = "SlotsPerTask"
    """There would be more slots than tasks."""
    IDLE = "Idle"
    WAITING_TO_IDLE = "WaitingToIdle"
    BELOW_ACTIVATION = "BelowActivation"
    STABILIZED = "Stabilized"
    RATE_LIMITED = "RateLimited"
    BUSY = "Busy"
    MIN_REPLICAS = "MinReplicas"
    MAX_REPLICAS = "MaxReplicas"
    CAPPED = "Capped"
    ROLLOUT = "Rollout"
    RESTARTED = "Restarted"
    QUEUE_UNREACHABLE = "QueueUnreachable"
    FALLBACK = "Fallback"
    EXTERNAL = "External"
    PAUSED = "Paused"
    DRY_RUN = "DryRun"


LIMITS: Final = frozenset({Reason.MIN_REPLICAS, Reason.MAX_REPLICAS, Reason.CAPPED, Reason.RATE_LIMITED})
"""Reasons for which a pool gets another number than its queues ask for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write, and why."""

    replicas: int
    needed: int
    """Before windows, speed limits and bounds; the only output of mode DryRun."""
    reason: Reason
    message: str
    unread: bool = False
    """The queues could not be read, whatever then decided the number; the message says why."""

    @property
    def limited(self) -> bool:
        return self.reason in LIMITS

    def because(self, replicas: int, reason: Reason, why: str) -> Decision:
        """Another number than so far, for this reason."""
        if replicas == self.replicas:
            return self
        return replace(self, replicas=replicas, reason=reason, message=f"{self.message}, {why}")


def decide(spec: PoolSpec, observed: Observed, history: History, at: Moment) -> Decision:
    """The replicas that the pool should have now."""
    decision, queues = _decide(spec, observed, history, at), observed.queues
    if not isinstance(queues, Unreadable):
        return decision
    if spec.mode in {Mode.EXTERNAL, Mode.PAUSED}:  # which do not look at them
        decision = replace(decision, message=f"{decision.message}; the queues cannot be read ({queues.why})")
    return replace(decision, unread=True)


def _decide(spec: PoolSpec, observed: Observed, history: History, at: Moment) -> Decision:
    current = observed.replicas
    if spec.mode is Mode.PAUSED:
        return Decision(current, current, Reason.PAUSED, f"mode Paused: stays at {current}")
    if spec.mode is Mode.EXTERNAL:
        asked = spec.replicas
        external = Decision(asked, asked, Reason.EXTERNAL, f"mode External: spec.replicas is {asked}")
        return _capped(external, observed.granted)
    decision = _bounded(_unbounded(spec, observed, history, at), bounds(spec.scaling, at.wall), observed)
    if spec.mode is Mode.DRY_RUN:
        return replace(
            decision,
            replicas=current,
            reason=Reason.DRY_RUN,
            message=f"mode DryRun: would be {decision.replicas}: {decision.message}",
        )
    return decision


def _unbounded(spec: PoolSpec, observed: Observed, history: History, at: Moment) -> Decision:
    """By the queues, or without them, and by how fast that may change."""
    if isinstance(observed.queues, Unreadable):
        return _blind(spec, observed, observed.queues, history)
    decision = _needed(spec, observed.queues, observed.replicas)
    decision = _awake(spec, observed, history, at, decision)
    decision = _stabilized(spec, observed.replicas, history, at, decision)
    return _gentle(spec, observed, history, at, decision)


def _needed(spec: PoolSpec, queues: tuple[QueueLoad, ...], current: int) -> Decision:
    """From the depth alone: slots for what runs, and enough for the backlog to be drained in time."""
    concurrency = spec.slots
    waiting, processing = sum(q.waiting for q in queues), sum(q.processing for q in queues)
    tasks = waiting + processing
    if tasks == 0:
        return Decision(0, 0, Reason.IDLE, "nothing waits and nothing runs")
    slots, words = _slots(spec, queues)
    by_wait = _pods(slots, concurrency)
    per_replica = spec.scaling.target_tasks_per_replica
    by_depth = math.ceil(tasks / per_replica) if per_replica else 0
    per_task = _pods(tasks, concurrency)
    message = f"{words} = {number(slots)} slots, {concurrency} a replica"
    if by_depth > by_wait:
        decision = Decision(by_depth, by_depth, Reason.TASKS_PER_REPLICA, f"{tasks} tasks / {per_replica} a replica")
    else:
        decision = Decision(by_wait, by_wait, Reason.QUEUE_WAIT, message)
    decision = decision.because(
        max(1, min(decision.replicas, per_task)), Reason.SLOTS_PER_TASK, f"no more than {tasks} tasks need"
    )
    return replace(decision, needed=decision.replicas)


def _slots(spec: PoolSpec, queues: tuple[QueueLoad, ...]) -> tuple[float, str]:
    """Slots that the wait targets ask for, and the arithmetic in words."""
    by_name = {queue.name: queue for queue in spec.queues}
    processing = sum(queue.processing for queue in queues)
    slots, terms = float(processing), []
    for queue in queues:
        target = spec.target_wait_s(by_name[queue.name])
        if not queue.waiting or target is None:
            continue
        task_s = spec.worker.expected_task_seconds if queue.task_s is None else queue.task_s
        slots += queue.waiting * task_s / (target / HALF)
        of = f" ({words})" if (words := mix(queue.types)) else ""
        terms.append(f"{_waiting(queue)} × {number(task_s)} s{of} / {number(target / HALF)} s")
    return slots, " + ".join([*terms, f"{processing} processing"] if processing or not terms else terms)


def _waiting(queue: QueueLoad) -> str:
    parts = [(queue.pending, "pending"), (queue.due_soon, "due soon"), (queue.parked, "parked")]
    return " and ".join(f"{n} {what}" for n, what in parts if n)


def _pods(slots: float, concurrency: int) -> int:
    return math.ceil(round(slots / concurrency, 9))


def _awake(spec: PoolSpec, observed: Observed, history: History, at: Moment, decision: Decision) -> Decision:
    """From and to zero: a pool wakes when enough waits, and sleeps when it was idle for long enough."""
    assert not isinstance(observed.queues, Unreadable)
    waiting = sum(queue.waiting for queue in observed.queues)
    running = sum(queue.processing for queue in observed.queues)
    enough = spec.scaling.activation_tasks
    if observed.replicas == 0 and not running and 0 < waiting < enough:
        return decision.because(0, Reason.BELOW_ACTIVATION, f"{waiting} of activationTasks {enough}")
    if decision.replicas > 0 or observed.replicas == 0:
        return decision
    began = at.s if history.idle_since_s is None else history.idle_since_s
    left = spec.scaling.idle_seconds - (at.s - began)
    if left <= 0:
        return decision
    return decision.because(1, Reason.WAITING_TO_IDLE, f"zero after {number(spec.scaling.idle_seconds)} s of that")


def _stabilized(spec: PoolSpec, current: int, history: History, at: Moment, decision: Decision) -> Decision:
    """As HPA v2 does: up to the least, down to the most that was needed within the window."""
    behavior, want = spec.scaling.behavior, decision.replicas
    up_s, down_s = behavior.scale_up.stabilization_window_seconds, behavior.scale_down.stabilization_window_seconds
    if want > current:
        least = min(history.needed_since(at.s - up_s, want))
        return decision.because(max(current, least), Reason.STABILIZED, f"not needed for all of {up_s} s yet")
    if want < current and at.s - history.since_s < down_s:
        return decision.because(
            current, Reason.RESTARTED, f"this operator looks on for {down_s} s before it shrinks a pool"
        )
    most = max(history.needed_since(at.s - down_s, want))
    return decision.because(min(current, most), Reason.STABILIZED, f"{most} were needed within {down_s} s")


def _gentle(spec: PoolSpec, observed: Observed, history: History, at: Moment, decision: Decision) -> Decision:
    """No faster than the policies, no shrinking in a rollout, no pod that is busy."""
    current, want = observed.replicas, decision.replicas
    if want == current:
        return decision
    direction = 1 if want > current else -1
    rules = spec.scaling.behavior.scale_up if direction > 0 else spec.scaling.behavior.scale_down
    if direction < 0 and observed.rollout:
        return decision.because(current, Reason.ROLLOUT, "held while a rollout runs")
    furthest = _furthest(rules, current, history, at, direction)
    allowed = min(want, furthest) if direction > 0 else max(want, furthest)
    decision = decision.because(allowed, Reason.RATE_LIMITED, f"limited to {allowed} by behavior")
    if direction < 0 and spec.drain.policy == "IdleOnly":
        kept = min(current, max(allowed, observed.busy))
        decision = decision.because(kept, Reason.BUSY, f"{observed.busy} are busy")
    return decision


def _furthest(rules: Rules, current: int, history: History, at: Moment, direction: int) -> int:
    """How far the policies of a direction let the number go."""
    if rules.select_policy == "Disabled":
        return current
    if not rules.policies:
        return 1_000_000 if direction > 0 else 0
    reach = [_reach(policy, current, history, at, direction) for policy in rules.policies]
    widest = (max if direction > 0 else min) if rules.select_policy == "Max" else (min if direction > 0 else max)
    found = widest(reach)
    return max(current, found) if direction > 0 else min(current, found)


def _reach(policy: Policy, current: int, history: History, at: Moment, direction: int) -> int:
    began = current - direction * history.stepped_since(at.s - policy.period_seconds, direction)
    if policy.type == "Pods":
        return began + direction * policy.value
    if direction > 0:
        return max(1, math.ceil(began * (1 + policy.value / 100)))
    return max(0, math.floor(began * (1 - policy.value / 100)))


def _bounded(decision: Decision, limits: Bounds, observed: Observed) -> Decision:
    """Floors, caps, and what the caps of a namespace or the cluster leave."""
    by = f" of schedule {', '.join(limits.because)}" if limits.because else ""
    want = decision.replicas
    if want < limits.least:
        decision = decision.because(limits.least, Reason.MIN_REPLICAS, f"raised to minReplicas {limits.least}{by}")
    elif want > limits.most:
        decision = decision.because(limits.most, Reason.MAX_REPLICAS, f"capped by maxReplicas {limits.most}{by}")
    return _capped(decision, observed.granted)


def _capped(decision: Decision, granted: int | None) -> Decision:
    if granted is None or decision.replicas <= granted:
        return decision
    return decision.because(granted, Reason.CAPPED, f"the caps of namespace and cluster leave {granted}")


def _blind(spec: PoolSpec, observed: Observed, unreadable: Unreadable, history: History) -> Decision:
    """Without a depth: hold, and after so many ticks the fallback, if the spec asks for one."""
    current, fallback = observed.replicas, spec.scaling.fallback
    held = Decision(
        current, current, Reason.QUEUE_UNREACHABLE, f"the queues cannot be read ({unreadable.why}): stays at {current}"
    )
    if fallback.policy == "Hold" or history.errors + 1 < fallback.failure_threshold:
        return held
    wanted = fallback.replicas if fallback.policy == "Static" else max(current, fallback.replicas)
    # No count that grows: the status would be written anew each second.
    ticks, asked = fallback.failure_threshold, f"fallback {fallback.policy} {fallback.replicas}"
    words = f"the queues cannot be read for {ticks} ticks or more ({unreadable.why}): {asked}"
    return Decision(wanted, wanted, Reason.FALLBACK, words)
