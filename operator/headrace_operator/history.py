"""What a pool's earlier decisions leave behind for the next: wants, steps taken, idleness, errors in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .observed import Observed, Unreadable

if TYPE_CHECKING:
    from .decide import Decision
    from .spec import Rules, Scaling


@dataclass(frozen=True, slots=True)
class At:
    """A number of replicas, or a change of it, and when that was, in monotonic seconds."""

    s: float
    replicas: int


@dataclass(frozen=True, slots=True)
class History:
    """Immutable; `remember` makes the next one."""

    since_s: float
    """When this process first looked: what was needed before, it does not know."""
    wants: tuple[At, ...] = ()
    """Needs before limits, oldest first, as far back as the longest window."""
    steps: tuple[At, ...] = ()
    """Changes of the replicas, as far back as the longest period."""
    idle_since_s: float | None = None
    errors: int = 0
    """Ticks in a row in which the queues could not be read."""

    def needed_since(self, from_s: float, now: int) -> list[int]:
        """The wants of a window, with the present one."""
        return [now, *(want.replicas for want in self.wants if want.s > from_s)]

    def stepped_since(self, from_s: float, direction: int) -> int:
        """Replicas added (direction 1) or removed (-1) within a period; never negative."""
        return sum(abs(step.replicas) for step in self.steps if step.s > from_s and step.replicas * direction > 0)


def remember(
    history: History, scaling: Scaling, observed: Observed, decision: Decision, at_s: float, written: int | None = None
) -> History:
    """The history after a decision. `written`: the number that was written, if that is not (yet) the decision's."""
    history = stepped(history, (decision.replicas if written is None else written) - observed.replicas, at_s)
    kept = replace(history, steps=_newer(history.steps, at_s - _longest_period(scaling)))
    if isinstance(observed.queues, Unreadable):
        return replace(kept, errors=history.errors + 1)
    idle = not any(queue.waiting or queue.processing for queue in observed.queues)
    return replace(
        kept,
        wants=_thin((*history.wants, At(at_s, decision.needed)), at_s - _longest_window(scaling)),
        idle_since_s=(at_s if history.idle_since_s is None else history.idle_since_s) if idle else None,
        errors=0,
    )


def stepped(history: History, change: int, at_s: float) -> History:
    """The history after the number was changed by so much."""
    return replace(history, steps=(*history.steps, At(at_s, change))) if change else history


def rested(history: History, scaling: Scaling, at_s: float) -> History:
    """The history of a pool that needed nothing and was not looked at closely until then."""
    wants = _thin((*history.wants, At(at_s, 0)), at_s - _longest_window(scaling))
    return replace(history, wants=wants, steps=_newer(history.steps, at_s - _longest_period(scaling)))


def _both(scaling: Scaling) -> tuple[Rules, Rules]:
    return scaling.behavior.scale_up, scaling.behavior.scale_down


def _longest_window(scaling: Scaling) -> float:
    return max(rules.stabilization_window_seconds for rules in _both(scaling))


def _longest_period(scaling: Scaling) -> float:
    return max([0, *(policy.period_seconds for rules in _both(scaling) for policy in rules.policies)])


def _newer(steps: tuple[At, ...], from_s: float) -> tuple[At, ...]:
    return tuple(step for step in steps if step.s >= from_s)


def _thin(wants: tuple[At, ...], from_s: float) -> tuple[At, ...]:
    """Without what lies before the window, nor the middle ones of equal neighbours: an hour's window stays short."""
    kept: list[At] = []
    for want in _newer(wants, from_s):
        if len(kept) >= 2 and kept[-1].replicas == kept[-2].replicas == want.replicas:
            kept.pop()
        kept.append(want)
    return tuple(kept)
