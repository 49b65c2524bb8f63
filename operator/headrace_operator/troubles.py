"""What is wrong with a pool beyond its queues, as conditions, and which of it is an Event. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headrace.broker.demand import Demand

from .drain import Shrink
from .fleet import Fleet
from .looker import Place
from .news import Event
from .spec import Mode, PoolSpec
from .status import Condition

TOLD: Final = {
    "InvalidSpec": Event.INVALID_SPEC,
    "DrainTimeout": Event.DRAIN_TIMEOUT,
    "OthersNotReady": Event.DRAIN_TIMEOUT,
    "SecretMissing": Event.SECRET_MISSING,
    "InvalidTemplate": Event.INVALID_TEMPLATE,
    "ReplicasConflict": Event.REPLICAS_CONFLICT,
    "NoHandler": Event.NO_HANDLER,
}
"""Reason of a condition → the Event that tells it."""
PASSING: Final = (
    Event.QUEUE_UNREACHABLE, Event.FALLBACK_ACTIVE, Event.SCALING_LIMITED, Event.PAUSED, Event.DRAIN_TIMEOUT,
    Event.SECRET_MISSING, Event.REPLICAS_CONFLICT, Event.NO_HANDLER, Event.INVALID_SPEC,
)  # fmt: skip
"""What comes and goes: told anew when it comes back."""

TEMPLATE_VALID: Final = "TemplateValid"
"""Type of the condition of a template, whoever found it wrong: the operator or the API server."""
UNSAID: Final = 1
"""The default of spec.replicas, which is there for the scale subresource only."""
Troubles = dict[str, Condition]
"""By the type of the condition."""


def put(found: Troubles, type: str, condition: Condition | None) -> None:
    """This is wrong, or (None) right again."""
    if condition is None:
        found.pop(type, None)
    else:
        found[type] = condition


def event_of(condition: Condition) -> Event | None:
    """The Event that tells it, if it is worth one."""
    return Event.INVALID_TEMPLATE if condition.type == TEMPLATE_VALID else TOLD.get(condition.reason)


def conflict(expected: int, found: int) -> Condition:
    """Somebody else writes the number: two writers undo each other's work for ever."""
    message = (
        f"somebody set the Deployment's replicas from {expected} to {found}; headrace decides this number "
        "(scale the WorkerPool in mode External instead, and remove an HPA on the Deployment; if it was nobody, then "
        "another release's operator looks at this namespace, too)"
    )
    return Condition("ReplicasOwned", False, "ReplicasConflict", message)


def internal(error: Exception) -> Condition:
    """A fault of the operator's own, which people see as a pool that stands still."""
    message = (
        f"a step of this pool failed unexpectedly ({type(error).__name__}: {error}); it is tried again each second, "
        "and the operator's log says where it failed"
    )
    return Condition("AbleToScale", False, "InternalError", message)


def ignored(spec: PoolSpec) -> Condition | None:
    """Who scales a pool that decides for itself is told `scaled` by kubectl, and by nobody why nothing happens."""
    if spec.mode is Mode.EXTERNAL or spec.replicas == UNSAID:
        return None
    decides = "headrace decides" if spec.mode is Mode.AUTO else "nothing is written"
    message = f"spec.replicas is {spec.replicas}, but counts in mode External only; in mode {spec.mode} {decides}"
    return Condition("ReplicasIgnored", True, f"Mode{spec.mode}", message)


def no_handler(demands: Iterable[tuple[Place, Demand]]) -> Condition | None:
    """Tasks that no worker of this pool has a handler for wait for ever unless somebody is told."""
    parked = {place.queue: demand.parked for place, demand in demands if demand.parked and demand.workers}
    if not parked:
        return None
    found = ", ".join(f"{count} in queue {queue}" for queue, count in parked.items())
    message = f"tasks of types that no worker knows are parked: {found}; an image that knows them releases them"
    return Condition("HandlersKnown", None, "NoHandler", message)


def left_suspects(spec: PoolSpec, demands: Iterable[tuple[str, Demand]]) -> Condition | None:
    """What this pool leaves to another waits for ever if there is none. `demands`: queue → what is there."""
    left = {each.name for each in spec.queues if each.suspects == "Leave"}
    waiting = {queue: demand.suspects.waiting for queue, demand in demands if queue in left and demand.suspects.waiting}
    if not waiting:
        return None
    found = ", ".join(f"{count} in queue {queue}" for queue, count in waiting.items())
    message = f"{found} were running when a worker died, and wait for a pool whose queue says suspects: Only"
    return Condition("SuspectsServed", None, "SuspectsWait", message)


def cannot_start(fleet: Fleet) -> Condition | None:
    """A pod that cannot start says why; one that is not made cannot, so its Deployment does."""
    if fleet.refused:
        return Condition("PodsStart", False, "FailedCreate", fleet.refused)
    why = next((pod.waiting for pod in fleet.staying if pod.waiting), "")
    if not why:
        return None
    missing = "secret" in why and "not found" in why
    return Condition("PodsStart", False, "SecretMissing" if missing else why.partition(":")[0], why)


def overdue(plan: Shrink, timeout_s: float) -> Condition | None:
    """A drain that lasts is told, and not ended."""
    if plan.overdue:
        names = ", ".join(plan.overdue)
        message = f"{names} still runs tasks {timeout_s:g} s after it was asked to drain; it goes on"
        return Condition("Drained", False, "DrainTimeout", message)
    if plan.kept:
        kept, unready = ", ".join(plan.kept), ", ".join(plan.unready)
        message = (
            f"{kept}: drained and kept, for the cluster would first stop what may work and is not ready: {unready} "
            "(kubectl describe pod says why)"
        )
        return Condition("Drained", False, "OthersNotReady", message)
    return None
