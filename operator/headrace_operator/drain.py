"""Which replicas to take away, and when: ask first, take only what answered that it runs nothing. Pure.

A replica that is asked claims no more and says so with its next beat. Only one that said so, and runs nothing, or one
that never began to work, is taken away; what was asked and is needed after all is released again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

NEVER_TOLD: Final = -1
"""Tasks of a replica that did not tell yet how many it runs."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod, or one process of `headrace dev`."""

    name: str
    born_s: float
    """When it was made; only their order counts."""
    running: int = NEVER_TOLD
    """Tasks that it runs, by its last beat."""
    asked_s: float | None = None
    """When it was asked to drain, in monotonic seconds."""
    answered: bool = False
    """Its last beat says that it claims no more."""

    @property
    def began(self) -> bool:
        return self.running != NEVER_TOLD

    @property
    def busy(self) -> bool:
        return self.running > 0

    @property
    def removable(self) -> bool:
        return not self.began or (self.asked_s is not None and self.answered and self.running == 0)


@dataclass(frozen=True, slots=True)
class Shrink:
    """What to do now."""

    ask: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    """To be marked, before the number is lowered by so many."""
    missing: int = 0
    """Replicas asked for that are not there yet: the number may be lowered by so many more."""
    overdue: tuple[str, ...] = ()
    """Asked longer ago than the time-out: to be told to people, not to be ended."""

    @property
    def fewer(self) -> int:
        """By how much the number may be lowered now."""
        return len(self.remove) + self.missing


Policy = Literal["IdleOnly", "Graceful"]


def shrink(
    replicas: Sequence[Replica], *, wanted: int, asked_for: int, policy: Policy, now_s: float, timeout_s: float
) -> Shrink:
    """The next step from `asked_for` replicas to `wanted`; `replicas` are those that are not on their way out."""
    surplus = asked_for - wanted
    if surplus <= 0:
        return Shrink(release=_names(each for each in replicas if each.asked_s is not None))
    missing = min(surplus, max(0, asked_for - len(replicas)))
    chosen = sorted(replicas, key=_rank)[: surplus - missing]
    chosen = [each for each in chosen if policy == "Graceful" or not each.busy or each.asked_s is not None]
    left = {each.name for each in chosen}
    return Shrink(
        ask=_names(each for each in chosen if each.asked_s is None),
        release=_names(each for each in replicas if each.asked_s is not None and each.name not in left),
        remove=_names(each for each in chosen if each.removable),
        missing=missing,
        overdue=_names(each for each in chosen if each.asked_s is not None and now_s - each.asked_s > timeout_s),
    )


def _rank(replica: Replica) -> tuple[bool, bool, bool, float]:
    """What never began comes first, then what is drained already, then what runs nothing; newest first in each."""
    return (replica.began, replica.asked_s is None, replica.busy, -replica.born_s)


def _names(replicas: Iterable[Replica]) -> tuple[str, ...]:
    return tuple(each.name for each in replicas)
