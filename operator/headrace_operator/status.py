"""The status of a WorkerPool: counts, the last decision in words, and conditions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from .decide import Decision, Reason
from .expectation import SEEN
from .fleet import Fleet
from .manifests import selector
from .observed import QueueLoad
from .spec import Mode

Json = dict[str, Any]
MAX_TEXT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as Kubernetes' API conventions want it."""

    type: str
    status: bool | None
    """None is Unknown."""
    reason: str
    message: str = ""

    def json(self, since: str, generation: int) -> Json:
        status = {True: "True", False: "False", None: "Unknown"}[self.status]
        return {
            "type": self.type, "status": status, "reason": self.reason, "message": self.message[:MAX_TEXT],
            "lastTransitionTime": since, "observedGeneration": generation,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """All that a status is made of."""

    name: str
    generation: int
    mode: Mode
    fleet: Fleet = field(default_factory=Fleet)
    queues: Sequence[QueueLoad] = ()
    busy: int = 0
    draining: int = 0
    decision: Decision | None = None
    desired: int = 0
    """What the Deployment was asked for after this decision."""
    last_scale: datetime | None = None
    troubles: tuple[Condition, ...] = ()
    """What is wrong with the pool beyond its queues: the first one is the reason of Ready."""


def conditions(report: Report) -> list[Condition]:
    """Ready, QueueReachable, ScalingActive, AbleToScale, ScalingLimited, and what else is wrong."""
    decision = report.decision
    reachable = _reachable(decision)
    active = report.mode is Mode.AUTO
    limited = decision is not None and decision.limited
    able = not any(trouble.type == "AbleToScale" for trouble in report.troubles)
    found = [
        _ready(report, reachable),
        reachable,
        Condition("ScalingActive", active, "Deciding" if active else f"Mode{report.mode}"),
        Condition(
            "ScalingLimited",
            limited,
            decision.reason if limited and decision else "WithinLimits",
            decision.message if limited and decision else "",
        ),
    ]
    if able:
        found.append(Condition("AbleToScale", True, "AsExpected"))
    return [*found, *report.troubles]


def _reachable(decision: Decision | None) -> Condition:
    if decision is None:
        return Condition("QueueReachable", None, "NotLookedYet")
    if decision.unread:
        reason = Reason.FALLBACK if decision.reason is Reason.FALLBACK else Reason.QUEUE_UNREACHABLE
        return Condition("QueueReachable", False, reason, decision.message)
    return Condition("QueueReachable", True, "AsExpected")


def _ready(report: Report, reachable: Condition) -> Condition:
    for trouble in (*report.troubles, reachable):
        if trouble.status is False:
            return Condition("Ready", False, trouble.reason, trouble.message)
    if report.mode is not Mode.AUTO:
        return Condition("Ready", True, str(report.mode))
    if report.decision is None:
        return Condition("Ready", None, "Starting")
    counted = in_words(report.fleet.ready, report.desired, report.draining)
    if report.fleet.ready < report.desired:
        return Condition("Ready", True, "Progressing", counted)
    if report.draining:
        return Condition("Ready", True, "Draining", f"{counted}: claims no more, and leaves when its tasks are done")
    return Condition("Ready", True, "Idle" if report.desired == 0 else "AsExpected")


def in_words(ready: int, desired: int, draining: int) -> str:
    """`2 of 3 ready, 1 draining`: those that drain are ready as well, and are none of those that are wanted."""
    staying = max(0, ready - draining)
    parts = [f"{staying} ready, {desired} wanted" if staying > desired else f"{staying} of {desired} ready"]
    if draining:
        parts = [*(parts if staying or desired else ()), f"{draining} draining"]
    return ", ".join(parts)


def build(report: Report, before: Json, now: datetime) -> Json:
    """The status to show. Conditions keep the time of their last change from the one before."""
    made: Json = {
        "observedGeneration": report.generation,
        "selector": selector(report.name),
        "replicas": len(report.fleet.staying),
        "readyReplicas": report.fleet.ready,
        "busyReplicas": report.busy,
        "drainingReplicas": report.draining,
        "desiredReplicas": report.desired,
        "conditions": with_times(conditions(report), report.generation, before, now),
    }
    if report.last_scale is not None:
        made["lastScaleTime"] = rfc3339(report.last_scale)
    elif "lastScaleTime" in before:
        made["lastScaleTime"] = before["lastScaleTime"]
    return made | _counts(report.queues) | _decision(report, before, now)


def with_times(found: Iterable[Condition], generation: int, before: Json, now: datetime) -> list[Json]:
    """As they are shown, each with the time of its last change of status."""
    past = {each["type"]: each for each in before.get("conditions", ())}
    made = []
    for condition in found:
        fresh = condition.json(rfc3339(now), generation)
        old = past.get(condition.type)
        if old is not None and old["status"] == fresh["status"]:
            fresh["lastTransitionTime"] = old["lastTransitionTime"]
        made.append(fresh)
    return made


def _counts(queues: Sequence[QueueLoad]) -> Json:
    if not queues:
        return {}
    times = [queue.task_s for queue in queues if queue.task_s is not None]
    rows: list[Json] = [
        {
            "name": queue.name, "pending": queue.pending, "processing": queue.processing,
            "scheduled": queue.scheduled, "oldestPendingSeconds": int(queue.oldest_s), **_times(queue),
        }
        for queue in queues
    ]  # fmt: skip
    totals = {name: sum(row[name] for row in rows) for name in ("pending", "processing", "scheduled")}
    mean = mean_json(sum(times) / len(times) if times else None)
    return {**totals, "oldestPendingSeconds": max(row["oldestPendingSeconds"] for row in rows), "queues": rows, **mean}


def _times(queue: QueueLoad) -> Json:
    """How long its tasks take, and which types that comes from; nothing before it was measured."""
    if queue.task_s is None:
        return {}
    types: list[Json] = [
        {"name": each.name, "percent": round(each.share * 100), **mean_json(each.seconds)}
        for each in queue.types
        if each.share >= SEEN
    ]
    return {**mean_json(queue.task_s), **({"types": types} if types else {})}


def mean_json(seconds: float | None) -> Json:
    """Kubernetes' conventions forbid fractions in a status: a text."""
    return {} if seconds is None else {"meanTaskSeconds": f"{float(f'{seconds:.3g}'):g}"}


def _decision(report: Report, before: Json, now: datetime) -> Json:
    if report.decision is None:
        return {}
    shown = {"reason": str(report.decision.reason), "message": report.decision.message[:MAX_TEXT]}
    old = before.get("decision", {})
    same = {name: old.get(name) for name in shown} == shown
    shown["time"] = old["time"] if same and "time" in old else rfc3339(now)
    return {"decision": shown, "recommendedReplicas": report.decision.needed}


VOLATILE: Final = (
    "pending",
    "processing",
    "scheduled",
    "oldestPendingSeconds",
    "queues",
    "meanTaskSeconds",
    "decision",
)
"""Fields that change with every task: they alone are written at most once in EASY_S."""
EASY_S: Final = 5.0
HARD_S: Final = 1.0
"""No more than one write of a pool's status in so many seconds."""


def due(fresh: Json, shown: Json, written_s: float, now_s: float) -> bool:
    """Whether a status is to be written now: what matters soon, what merely counts a little later."""
    if fresh == shown:
        return False
    passed = now_s - written_s
    if _steady(fresh) != _steady(shown):
        return passed >= HARD_S
    return passed >= EASY_S


def _steady(status: Json) -> Json:
    return {name: value for name, value in status.items() if name not in VOLATILE}


def rfc3339(at: datetime) -> str:
    """Whole seconds, UTC, as Kubernetes writes times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
