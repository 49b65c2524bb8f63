"""Faults put into the operator on purpose: each takes one of its safeguards away, and the model test must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import pytest

from headrace.broker.demand import Demand
from headrace_operator import decide, hand_on, hands, sight, status, workforce
from headrace_operator.drain import Replica, Shrink, shrink
from headrace_operator.fleet import Key
from headrace_operator.hands import Hands
from headrace_operator.loop import ControlLoop
from headrace_operator.news import Event, News, Teller
from headrace_operator.schedules import Bounds, bounds
from headrace_operator.spec import InvalidSpec
from operator_model_plan import (
    BAD_SPEC,
    BUSY,
    EVERY_DAY,
    LATE_PODS,
    LATE_READY,
    LOST_BEATS,
    NO_REDIS,
    OLD_ANSWERS,
    RESTARTS,
    SEASONS,
    SECOND_THOUGHTS,
    SLOW_CONTROLLERS,
    Profile,
)


@dataclass(frozen=True)
class Mutant:
    """`into` puts the fault in, until the test ends; runs of its profile meet it soon."""

    name: str
    profile: Profile
    into: Callable[[pytest.MonkeyPatch], None]

    def __str__(self) -> str:
        return self.name


def _shrinks(change: Callable[[list[Replica], dict[str, Any]], Shrink]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutant(replicas: list[Replica], **given: Any) -> Shrink:
        return change(replicas, given)

    return lambda patch: patch.setattr(hands, "shrink", mutant)


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


class _Empty:
    """A queue that cannot be read looks like one with nothing in it."""

    def __new__(cls, why: str) -> Any:
        return ()


def _shrinks_at_once(patch: pytest.MonkeyPatch) -> None:
    def stabilized(spec: Any, current: int, history: Any, at: Any, decision: Any) -> Any:
        return decision

    patch.setattr(decide, "_stabilized", stabilized)


def _floods(patch: pytest.MonkeyPatch) -> None:
    def tell(self: Teller, news: News, at_s: float) -> News | None:
        return news if news.reason is Event.QUEUE_UNREACHABLE else self_tell(self, news, at_s)

    self_tell = Teller.tell
    patch.setattr(Teller, "tell", tell)


def _is_of_pod(worker: Any, pod: str, ended: Any) -> bool:
    return workforce.pod_of(worker.name) == pod


def _only_first(fresh: Any, shown: Any, written_s: float, now_s: float) -> bool:
    return not shown.get("conditions")


def _first_beat_answers(self: Demand, worker: str) -> bool:
    return self.workers[worker].draining


def _drops_who_is_bad(patch: pytest.MonkeyPatch) -> None:
    def saw_pool(self: ControlLoop, raw: dict[str, Any]) -> InvalidSpec | None:
        error = whole(self, raw)
        if error is not None:
            self.pools.pop(Key(raw["metadata"]["namespace"], raw["metadata"]["name"]), None)
        return error

    whole = ControlLoop.saw_pool
    patch.setattr(ControlLoop, "saw_pool", saw_pool)


def _sets(place: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(place, name, value)


def _plain_bounds(scaling: Any, now: Any) -> Bounds:
    return Bounds(scaling.min_replicas, scaling.max_replicas)


def _utc_bounds(scaling: Any, now: Any) -> Bounds:
    schedules = tuple(msgspec.structs.replace(each, time_zone="UTC") for each in scaling.schedules)
    return bounds(msgspec.structs.replace(scaling, schedules=schedules), now)


MUTANTS: Final = (
    Mutant("taken before they answer", BUSY, _shrinks(_all_answered)),
    Mutant("an answer from before counts", OLD_ANSWERS, _sets(Demand, "answered", _first_beat_answers)),
    Mutant("busy ones count as idle", BUSY, _shrinks(_busy_is_idle)),
    Mutant("never released", SECOND_THOUGHTS, _shrinks(_no_release)),
    Mutant("released before they are gone", SLOW_CONTROLLERS, _shrinks(_releases_who_goes)),
    Mutant("written off twice", SLOW_CONTROLLERS, _shrinks(_counted_twice)),
    Mutant("not ready does not matter", LATE_READY, _sees(ready=True)),
    Mutant("what is not heard does not work", LOST_BEATS, _sees(unheard=False)),
    Mutant("what is not shown is not there", LATE_PODS, _shrinks(_nothing_unseen)),
    Mutant("no marks", BUSY, _sets(Hands, "_mark", _no_marks)),
    Mutant("unreadable is empty", NO_REDIS, _sets(sight, "Unreadable", _Empty)),
    Mutant("no window", RESTARTS, _shrinks_at_once),
    Mutant("no bounds", BUSY, _sets(decide, "_bounded", lambda decision, limits, observed: decision)),
    Mutant("schedules do not count", SEASONS, _sets(decide, "bounds", _plain_bounds)),
    Mutant("schedules have no time zone", SEASONS, _sets(decide, "bounds", _utc_bounds)),
    Mutant("a bad spec ends the pool", BAD_SPEC, _drops_who_is_bad),
    Mutant("an Event each tick", NO_REDIS, _floods),
    Mutant("a pod's boots are all dead", EVERY_DAY, _sets(hand_on, "is_dead", _is_of_pod)),
    Mutant("the status is shown once", BUSY, _sets(status, "due", _only_first)),
)
