"""What the operator tells people by Events: a closed list of reasons, and never a flood. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .decide import Decision, Reason


class Event(StrEnum):
    """Reasons of Events, and how they are spelt."""

    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    SCALED_TO_ZERO = "ScaledToZero"
    WOKE_FROM_ZERO = "WokeFromZero"
    SCALING_LIMITED = "ScalingLimited"
    FALLBACK_ACTIVE = "FallbackActive"
    QUEUE_UNREACHABLE = "QueueUnreachable"
    DRAIN_TIMEOUT = "DrainTimeout"
    PAUSED = "Paused"
    RESUMED = "Resumed"
    INVALID_SPEC = "InvalidSpec"
    INVALID_TEMPLATE = "InvalidTemplate"
    WORKER_DIED = "WorkerDied"
    TASKS_HANDED_ON = "TasksHandedOn"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a name
    REPLICAS_CONFLICT = "ReplicasConflict"
    NO_HANDLER = "NoHandler"


WARNINGS: Final = frozenset(Event) - {
    Event.SCALED_UP, Event.SCALED_DOWN, Event.SCALED_TO_ZERO, Event.WOKE_FROM_ZERO, Event.PAUSED, Event.RESUMED,
    Event.TASKS_HANDED_ON,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class News:
    """One Event to come."""

    reason: Event
    message: str

    @property
    def type(self) -> str:
        """As Kubernetes calls it."""
        return "Warning" if self.reason in WARNINGS else "Normal"


def scaled(before: int, after: int, decision: Decision) -> News:
    """From → to, and the arithmetic."""
    message = f"{before} → {after}: {decision.message}"
    if after == 0:
        return News(Event.SCALED_TO_ZERO, message)
    if before == 0:
        return News(Event.WOKE_FROM_ZERO, message)
    return News(Event.SCALED_UP if after > before else Event.SCALED_DOWN, message)


def of_decision(decision: Decision) -> News | None:
    """What a decision itself is worth telling, apart from the number it changes."""
    if decision.unread and decision.reason not in {Reason.FALLBACK, Reason.PAUSED}:
        return News(Event.QUEUE_UNREACHABLE, decision.message)
    match decision.reason:
        case Reason.MAX_REPLICAS | Reason.CAPPED:
            return News(Event.SCALING_LIMITED, decision.message)
        case Reason.FALLBACK:
            return News(Event.FALLBACK_ACTIVE, decision.message)
        case Reason.PAUSED:
            return News(Event.PAUSED, decision.message)
    return None


REPEAT_S: Final = 300.0
"""The same is told again after so long."""
AGAIN_S: Final = 30.0
"""What was right for a while and is wrong again is told again after so long: what comes and goes is no flood."""
SCALINGS: Final = frozenset({Event.SCALED_UP, Event.SCALED_DOWN, Event.SCALED_TO_ZERO, Event.WOKE_FROM_ZERO})
SCALINGS_S: Final = 1.0
"""Each change of the number is worth an Event, but no more than one in so long."""
HAPPENINGS: Final = frozenset({Event.WORKER_DIED, Event.TASKS_HANDED_ON})
"""Each is news by itself: those that come within AGAIN_S of an Event are told together in the next one."""
NAMED: Final = 5
"""So many of them by name, the rest by their number."""


class Teller:
    """Of one pool: lets through what is new. Time is a parameter."""

    def __init__(self) -> None:
        self._told: dict[Event, float] = {}
        self._held: dict[Event, int] = {}
        self._late: dict[Event, list[str]] = {}
        """Happenings that wait for the next Event of their kind."""
        self._over: set[Event] = set()

    def tell(self, news: News, at_s: float) -> News | None:
        """The Event to post, with how many like it were held back; None for a repetition."""
        if news.reason in HAPPENINGS:
            self._late.setdefault(news.reason, []).append(news.message)
            return self._together(news.reason, at_s)
        last = self._told.get(news.reason)
        usual = SCALINGS_S if news.reason in SCALINGS else REPEAT_S
        pause = AGAIN_S if news.reason in self._over else usual
        if last is not None and at_s - last < pause:
            self._held[news.reason] = self._held.get(news.reason, 0) + 1
            return None
        self._told[news.reason] = at_s
        self._over.discard(news.reason)
        held = self._held.pop(news.reason, 0)
        return News(news.reason, f"{news.message} (and {held} times before)") if held else news

    def over(self, *reasons: Event) -> None:
        """What was wrong is right again: should it come back, it is told sooner than a mere repetition."""
        self._over.update(reasons)

    def owes(self) -> bool:
        """Whether something happened that is to be told later."""
        return bool(self._late)

    def due(self, at_s: float) -> list[News]:
        """What happened a while ago, and can be told now."""
        found = [self._together(reason, at_s) for reason in (*self._late,)]
        return [news for news in found if news is not None]

    def _together(self, reason: Event, at_s: float) -> News | None:
        if at_s - self._told.get(reason, float("-inf")) < AGAIN_S:
            return None
        self._told[reason] = at_s
        messages = self._late.pop(reason)
        more = len(messages) - NAMED
        return News(reason, "; ".join(messages[:NAMED]) + (f"; and {more} more like it" if more > 0 else ""))
