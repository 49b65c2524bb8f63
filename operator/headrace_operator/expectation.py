"""How long a waiting task of a queue will take: what its workers measured type by type, weighted by what began lately.

Of the tasks that wait only their number is known: their types lie in their envelopes, and to look into each of them, or
to keep a count a type with each submission, would cost more than the guess is worse. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.broker.demand import Demand, TypeTime, WorkerBeat

from .words import number

KEPT: Final = 16
"""Types whose mean is remembered although none of them began lately."""
NAMED: Final = 3
SEEN: Final = 0.005
"""A smaller share is not worth a word."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Of one queue. Immutable; `learn` makes the next one."""

    types: tuple[TypeTime, ...] = ()
    """The largest shares first; all of them together are 1, but for what seldom begins."""
    plain_s: float | None = None
    """The mean that workers tell who are too old to tell types."""
    plain_share: float = 0.0
    """Their part of all workers."""

    def learn(self, demand: Demand) -> Expectation:
        """What the beats say now; while nobody says anything, what was known."""
        told = [beat for beat in demand.workers.values() if beat.mean_s is not None]
        if not told:
            return self
        typed = [beat for beat in told if beat.types]
        plain = [beat.mean_s for beat in told if beat.mean_s is not None and not beat.types]
        plain_s = sum(plain) / len(plain) if plain else None
        return Expectation(self._together(typed) if typed else self.types, plain_s, len(plain) / len(told))

    def _together(self, beats: Iterable[WorkerBeat]) -> tuple[TypeTime, ...]:
        """Every worker counts as much as any other."""
        rows: dict[str, list[TypeTime]] = {each.name: [] for each in self.types}
        beats = tuple(beats)
        for beat in beats:
            whole = sum(each.share for each in beat.types) or 1.0
            for each in beat.types:
                share = each.share / whole / len(beats)
                rows.setdefault(each.name, []).append(TypeTime(each.name, share, each.seconds))
        before = {each.name: each.seconds for each in self.types}
        found = [_one(name, each, before.get(name)) for name, each in rows.items()]
        return tuple(sorted(found, key=lambda each: -each.share)[:KEPT])

    def seconds(self, prior_s: float) -> float | None:
        """None before anything was measured. `prior_s` is for types of which none has ended."""
        typed = sum(each.share * (prior_s if each.seconds is None else each.seconds) for each in self.types)
        if self.plain_s is None:
            return typed if self.types else None
        return self.plain_share * self.plain_s + (1.0 - self.plain_share) * typed


def _one(name: str, rows: Sequence[TypeTime], before_s: float | None) -> TypeTime:
    """What several workers say of a type."""
    ended = [(each.share, each.seconds) for each in rows if each.seconds is not None]
    shares = sum(share for share, _ in ended)
    seconds = sum(share * s for share, s in ended) / shares if shares else before_s
    return TypeTime(name, sum(each.share for each in rows), seconds)


def mix(types: Iterable[TypeTime]) -> str:
    """`80 % quick of 0.25 s, 20 % slow of 5 s`; nothing where there is only one type."""
    seen = [each for each in types if each.share >= SEEN]
    if len(seen) < 2:
        return ""
    words, rest = [_in_words(each) for each in seen[:NAMED]], seen[NAMED:]
    if rest:
        words.append(f"{_percent(sum(each.share for each in rest))} {len(rest)} other types")
    return ", ".join(words)


def _in_words(each: TypeTime) -> str:
    seconds = "not measured yet" if each.seconds is None else f"of {number(each.seconds)} s"
    return f"{_percent(each.share)} {each.name} {seconds}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
