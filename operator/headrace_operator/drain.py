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
    """A beat since then says that it claims no more."""
    ready: bool = True
    """As the cluster says. Of those that are not, a cluster stops some first, whatever their marks say."""
    unheard: bool = False
    """It is ready, and nothing was heard of it yet: it may work all the same."""
    cheap: bool = False
    """It is marked to go first, and may be on its way out already."""
    doomed: bool = False
    """So marked while the cluster may still act by a lower number of before: it is not set to work again."""

    @property
    def began(self) -> bool:
        return self.running != NEVER_TOLD

    @property
    def busy(self) -> bool:
        return self.running > 0

    @property
    def removable(self) -> bool:
        if not self.began:
            return not self.unheard
        return self.asked_s is not None and self.answered and self.running == 0


@dataclass(frozen=True, slots=True)
class Shrink:
    """What to do now."""

    ask: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    """All that are to go, now or when they can, or were written off already and are still there."""
    remove: tuple[str, ...] = ()
    """To be marked, before the number is lowered by so many."""
    missing: int = 0
    """Replicas asked for that are not there yet: the number may be lowered by so many more."""
    extra: int = 0
    """Replicas that are there and not asked for any more: so many of those to remove need no lower number."""
    overdue: tuple[str, ...] = ()
    """Asked longer ago than the time-out, and not done yet: to be told to people, not to be ended."""
    kept: tuple[str, ...] = ()
    """Asked as long ago and done, and not removed all the same, for `unready`: to be told to people as well."""
    unready: tuple[str, ...] = ()
    """Not ready, while they may work: the cluster would stop those in place of the ones that are done."""

    @property
    def fewer(self) -> int:
        """By how much the number may be lowered now."""
        return max(0, len(self.remove) - self.extra) + self.missing


Policy = Literal["IdleOnly", "Graceful"]


def shrink(
    replicas: Sequence[Replica],
    *,
    wanted: int,
    asked_for: int,
    policy: Policy,
    now_s: float,
    timeout_s: float,
    unseen: int = 0,
) -> Shrink:
    """The next step from `asked_for` replicas to `wanted`; `replicas` are those that are not on their way out.

    `unseen`: workers of replicas that the cluster has not shown yet.
    """
    surplus, extra = max(0, asked_for - wanted), max(0, len(replicas) - asked_for)
    missing = min(surplus, max(0, asked_for - len(replicas) - unseen))
    chosen = sorted(replicas, key=_rank)[: surplus - missing + extra]
    chosen = [each for each in chosen if policy == "Graceful" or not each.busy or each.asked_s is not None]
    held = [each for each in replicas if each.doomed and each.asked_s is not None]
    left = {each.name for each in (*chosen, *held)}
    done = [each for each in chosen if each.removable]
    # The cluster would stop these in place of those that are done. Who is not ready may be so the next moment, so marks
    # among them settle nothing either.
    unready = [each for each in replicas if not (each.ready or each.removable)]
    late = [each for each in chosen if each.asked_s is not None and now_s - each.asked_s > timeout_s]
    kept = [each for each in late if unready and each.removable]
    return Shrink(
        ask=_names(each for each in chosen if surplus and each.asked_s is None),
        release=_names(each for each in replicas if each.asked_s is not None and each.name not in left),
        leave=_names([*chosen, *(each for each in held if each not in chosen)]),
        remove=() if unready else _names(done),
        missing=0 if unready else missing,
        extra=extra,
        overdue=_names(each for each in late if not each.removable),
        kept=_names(kept),
        unready=_names(unready) if kept else (),
    )


def _rank(replica: Replica) -> tuple[bool, bool, bool, bool, bool, float]:
    """What never began comes first, then what is drained already, then what runs nothing; newest first in each.

    Of those asked, the marked ones before all others: the number may be lowered for them, and nobody takes their place.
    """
    began, asked = replica.began or replica.unheard, replica.asked_s is not None
    return (began, not asked, not (asked and replica.cheap), replica.busy, replica.ready, -replica.born_s)


def _names(replicas: Iterable[Replica]) -> tuple[str, ...]:
    return tuple(each.name for each in replicas)
