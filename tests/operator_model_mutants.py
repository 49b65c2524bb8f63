"""Faults put into the operator on purpose: each takes one of its safeguards away, and the model test must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from headrace_operator import decide, hand_on, status, steering, workforce
from headrace_operator.drain import Replica, Shrink, shrink
from headrace_operator.news import Event, News, Teller
from headrace_operator.steering import Steering


@dataclass(frozen=True)
class Mutant:
    """`into` puts the fault in, until the test ends."""

    name: str
    into: Callable[[pytest.MonkeyPatch], None]

    def __str__(self) -> str:
        return self.name


def _shrinks(change: Callable[[list[Replica], dict[str, Any]], Shrink]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutant(replicas: list[Replica], **given: Any) -> Shrink:
        return change(replicas, given)

    return lambda patch: patch.setattr(steering, "shrink", mutant)


def _sees(**fields: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return _shrinks(lambda replicas, given: shrink([replace(each, **fields) for each in replicas], **given))


def _all_answered(replicas: list[Replica], given: dict[str, Any]) -> Shrink:
    return shrink([replace(each, answered=each.asked_s is not None) for each in replicas], **given)


def _busy_is_idle(replicas: list[Replica], given: dict[str, Any]) -> Shrink:
    return shrink([replace(each, running=min(each.running, 0)) for each in replicas], **given)


def _no_release(replicas: list[Replica], given: dict[str, Any]) -> Shrink:
    return replace(shrink(replicas, **given), release=())


def _counted_twice(replicas: list[Replica], given: dict[str, Any]) -> Shrink:
    return replace(shrink(replicas, **given), extra=0)


def _nothing_unseen(replicas: list[Replica], given: dict[str, Any]) -> Shrink:
    return shrink(replicas, **{**given, "unseen": 0})


def _releases_who_goes(replicas: list[Replica], given: dict[str, Any]) -> Shrink:
    found = shrink(replicas, **given)
    surplus = given["asked_for"] > given["wanted"]
    return (
        found if surplus else replace(found, release=tuple(each.name for each in replicas if each.asked_s is not None))
    )


async def _no_marks(*_: Any) -> None:
    return


def _looks_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "_blind", lambda spec, observed, why, history: decide._needed(spec, (), 0))
    patch.setattr(steering, "Unreadable", type("Never", (), {}))


def _shrinks_at_once(patch: pytest.MonkeyPatch) -> None:
    def stabilized(spec: Any, current: int, history: Any, at: Any, decision: Any) -> Any:
        return decision

    patch.setattr(decide, "_stabilized", stabilized)


def _floods(patch: pytest.MonkeyPatch) -> None:
    def tell(self: Teller, news: News, at_s: float) -> News | None:
        return news if news.reason is Event.QUEUE_UNREACHABLE else self_tell(self, news, at_s)

    self_tell = Teller.tell
    patch.setattr(Teller, "tell", tell)


MUTANTS: Final = (
    Mutant("taken before they answer", _shrinks(_all_answered)),
    Mutant("busy ones count as idle", _shrinks(_busy_is_idle)),
    Mutant("never released", _shrinks(_no_release)),
    Mutant("released before they are gone", _shrinks(_releases_who_goes)),
    Mutant("written off twice", _shrinks(_counted_twice)),
    Mutant("not ready does not matter", _sees(ready=True)),
    Mutant("what is not heard does not work", _sees(unheard=False)),
    Mutant("what is not shown is not there", _shrinks(_nothing_unseen)),
    Mutant("no marks", lambda patch: patch.setattr(Steering, "_mark", _no_marks)),
    Mutant("unreadable is empty", _looks_away),
    Mutant("no window", _shrinks_at_once),
    Mutant("no bounds", lambda patch: patch.setattr(decide, "_bounded", lambda decision, limits, observed: decision)),
    Mutant("an Event each tick", _floods),
    Mutant("a pod's boots are all dead", lambda patch: patch.setattr(hand_on, "is_dead", _is_of_pod)),
    Mutant("the status is shown once", lambda patch: patch.setattr(status, "due", _only_first)),
)


def _is_of_pod(worker: Any, pod: str, ended: Any) -> bool:
    return workforce.pod_of(worker.name) == pod


def _only_first(fresh: Any, shown: Any, written_s: float, now_s: float) -> bool:
    return not shown.get("conditions")
