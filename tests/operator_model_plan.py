"""How a run of the operator's model test is: its pools, and which things are likely in it.

A run in which anything may happen rarely meets a particular fault. So there are profiles: each makes one kind of
trouble frequent and leaves out what hides it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace_operator.caps import Caps
from operator_model_queue import EPOCH

Raw = dict[str, Any]
CONCURRENCY: Final = 3


@dataclass
class Plan:
    """How a run is."""

    specs: dict[str, Raw]
    """Of each pool, as it was last applied and could be read."""
    queue_of: dict[str, str]
    caps: Caps = field(default_factory=Caps)
    interleaved: float = 0.5
    """How often something happens between two steps of the operator."""
    faulty: float = 0.02
    """How often a request to the API server goes wrong; to Redis, too."""


@dataclass(frozen=True)
class Profile:
    """A kind of runs. `weights` by the names of rules; empty: all of them, by weights of their own."""

    name: str
    plan: Callable[[random.Random], Plan]
    weights: Mapping[str, float] = field(default_factory=dict)
    varied: bool = False
    """Each run has its own favourites among the rules."""


# -- specs


def template(number: int) -> Raw:
    return {"spec": {"containers": [{"name": "worker", "image": f"shop:{number}"}]}}


def spec_of(queue: str, scaling: Raw, policy: str) -> Raw:
    return {
        "queues": [{"name": queue}], "template": template(0), "scaling": scaling,
        "worker": {"concurrency": CONCURRENCY}, "drain": {"policy": policy},
    }  # fmt: skip


def scaling_of(dice: random.Random, *, eager: bool) -> Raw:
    """`eager` shrinks as soon as it can."""
    policies: list[Raw] = dice.choice(([], [{"type": "Percent", "value": 50, "periodSeconds": 15}]))
    found: Raw = {
        "minReplicas": dice.choice((0, 0, 1)), "maxReplicas": dice.choice((3, 6)),
        "activationTasks": dice.choice((1, 1, 2)), "idleSeconds": dice.choice((0, 5)),
        "behavior": {
            "scaleDown": {"stabilizationWindowSeconds": dice.choice((0, 0, 10)), "policies": policies},
            "scaleUp": {"stabilizationWindowSeconds": dice.choice((0, 0, 3))},
        },
    }  # fmt: skip
    if eager:
        found["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": []}}
        found |= {"idleSeconds": 0, "targetTasksPerReplica": 2}
    fallback = dice.choice(("Hold", "Static", "AtLeast"))
    if fallback != "Hold":
        found["fallback"] = {"policy": fallback, "replicas": 2, "failureThreshold": 3}
    return found


BAD_SPECS: Final[tuple[Raw, ...]] = (
    {},
    {"queues": [{"name": "a"}], "scaling": {"minReplicas": 3, "maxReplicas": 2}},
    {"queues": [{"name": "a"}], "scaling": {"maxReplicas": "many"}},
    {"queues": [{"name": "a"}], "scaling": {"maxReplicas": 2, "schedules": [
        {"name": "s", "start": "61 * * * *", "end": "* * * * *", "minReplicas": 1}]}},
)  # fmt: skip
"""Which nobody can read."""

# -- schedules: every other minute, by a clock that is 345 minutes ahead in one of the zones

ZONES: Final = {"UTC": 0, "Asia/Kathmandu": 345}


def seasons(dice: random.Random) -> list[Raw]:
    found = []
    for name in dice.choice((("floor",), ("cap",), ("floor", "cap"))):
        limit = {"minReplicas": 2} if name == "floor" else {"maxReplicas": 1}
        zone = dice.choice(sorted(ZONES))
        found.append({"name": name, "start": "*/2 * * * *", "end": "1-59/2 * * * *", "timeZone": zone, **limit})
    return found


def in_season(schedule: Raw, now_s: float) -> bool:
    minute = int(EPOCH + now_s) // 60
    return (minute + ZONES[schedule["timeZone"]]) % 2 == 0


def limits_of(scaling: Raw, now_s: float) -> tuple[int, int]:
    """Floor and cap of a spec at this moment, worked out without the operator's code."""
    holding = [each for each in scaling.get("schedules", ()) if in_season(each, now_s)]
    least = max([scaling.get("minReplicas", 0), *(each.get("minReplicas", 0) for each in holding)])
    most = min([scaling["maxReplicas"], *(each.get("maxReplicas", 10_000) for each in holding)])
    return min(least, most), most


# -- plans


def _anything(dice: random.Random) -> Plan:
    names = ["a", "b"][: dice.choice((1, 1, 2))]
    queue_of = {name: dice.choice(("q", name)) for name in names}
    specs = {}
    for name in names:
        scaling = scaling_of(dice, eager=False)
        if dice.random() < 0.25:
            scaling["schedules"] = seasons(dice)
        specs[name] = spec_of(queue_of[name], scaling, dice.choice(("IdleOnly", "Graceful")))
    caps = dice.choice((Caps(), Caps(), Caps(cluster=4), Caps(namespace=4)))
    return Plan(specs, queue_of, caps, dice.choice((0.0, 0.3, 0.6)), dice.choice((0.0, 0.02, 0.1)))


def _every_day(dice: random.Random) -> Plan:
    caps = dice.choice((Caps(), Caps(), Caps(cluster=4)))
    return _one_pool(dice, {}, caps, dice.choice((0.0, 0.3, 0.6)), dice.choice((0.0, 0.02, 0.1)))


def _one_pool(
    dice: random.Random, scaling: Raw, caps: Caps | None = None, interleaved: float = 0.0, faulty: float = 0.0
) -> Plan:
    made = scaling_of(dice, eager=True) | scaling
    spec = spec_of("q", made, dice.choice(("IdleOnly", "Graceful")))
    return Plan({"a": spec}, {"a": "q"}, caps or Caps(), interleaved, faulty)


def _with(**scaling: Any) -> Callable[[random.Random], Plan]:
    return lambda dice: _one_pool(dice, scaling)


def _seasonal(dice: random.Random) -> Plan:
    return _one_pool(dice, {"schedules": seasons(dice)})


# -- profiles

_BASE: Final[dict[str, float]] = {
    "tick": 30, "all_beat": 20, "pods_start": 10, "some_get_ready": 8, "watches_show_all": 14, "submit": 5,
    "one_claims": 8, "all_claim": 3, "one_has_done_all": 6, "all_is_done": 2, "cancel": 2,
}  # fmt: skip
_EVERY_DAY: Final[dict[str, float]] = {
    "tick": 30, "life_goes_on": 30, "all_beat": 10, "all_claim": 4, "all_is_done": 4, "one_claims": 3,
    "one_has_done_all": 3, "pods_start": 6, "watches_show_all": 8, "submit": 4, "cancel": 3,
    "redis_loses_the_beats": 0.5, "an_older_view": 0.7, "the_operator_dies": 1,
}  # fmt: skip
_SLOW: Final = {"scaleDown": {"stabilizationWindowSeconds": 10, "policies": []}}

ANYTHING: Final = Profile("anything", _anything, varied=True)
EVERY_DAY: Final = Profile("every day", _every_day, _EVERY_DAY, varied=True)
BUSY: Final = Profile("busy and idle pods", _with(), _BASE)
SLOW_CONTROLLERS: Final = Profile(
    "slow controllers", _with(maxReplicas=4), _BASE | {"pods_start": 3, "controllers_act": 2}
)
LATE_READY: Final = Profile("late readiness", _with(maxReplicas=4), _BASE | {"some_get_ready": 3})
LATE_PODS: Final = Profile(
    "pods are shown late", _with(maxReplicas=6), _BASE | {"watches_show_all": 3, "deployments_are_shown": 12}
)
SECOND_THOUGHTS: Final = Profile("second thoughts", _with(minReplicas=0, maxReplicas=2), _BASE | {"submit": 8})
OLD_ANSWERS: Final = Profile(
    "old answers",
    _with(minReplicas=0, maxReplicas=3),
    _BASE | {"all_beat": 12, "who_is_released_claims": 20, "submit": 8, "cancel": 8, "one_has_done_all": 10},
)
LOST_BEATS: Final = Profile("lost beats", _with(maxReplicas=4), _BASE | {"redis_loses_the_beats": 6})
NO_REDIS: Final = Profile("Redis is away", _with(), _BASE | {"redis_fails": 4, "redis_is_well": 4})
RESTARTS: Final = Profile("restarts", _with(behavior=_SLOW), _BASE | {"the_operator_dies": 4})
SEASONS: Final = Profile("seasons", _seasonal, _BASE | {"a_while_passes": 4, "the_schedules_change": 1})
BAD_SPEC: Final = Profile(
    "bad specs",
    _with(),
    _BASE | {"the_spec_is_bad": 4, "the_spec_is_mended": 4, "an_older_view": 2, "the_operator_dies": 1},
)
PROFILES: Final = (
    ANYTHING, EVERY_DAY, BUSY, SLOW_CONTROLLERS, LATE_READY, LATE_PODS, ANYTHING, EVERY_DAY, SECOND_THOUGHTS,
    OLD_ANSWERS, LOST_BEATS, NO_REDIS, RESTARTS, SEASONS, BAD_SPEC,
)  # fmt: skip
"""By seed, again and again."""
