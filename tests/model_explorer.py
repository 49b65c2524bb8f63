"""Runs worlds by seed, thousands of steps a second; a failure is cut down to the steps that it needs.

`python tests/model_explorer.py SOCKET STEPS [PROFILE]` explores a server by hand.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace.broker.broker import Queue
from model_end import heal
from model_redis import Wire
from model_rules import RULES
from model_world import World

STEPS: Final = 400
"""Of one run."""
PROFILES: Final[dict[str, dict[str, float]]] = {
    "balanced": {},
    "deaths": {"crash": 10, "start": 3, "hand_on": 6, "reclaim": 3, "look_at_workers": 3, "promote": 3, "finish": 0.15},
    "stalls": {
        "freeze": 8,
        "thaw": 2,
        "reclaim": 8,
        "hand_on": 0.2,
        "look_at_workers": 6,
        "cut": 25,
        "beat": 0.3,
        "finish": 0.1,
    },
    "late": {"cut": 12, "execute": 0.4, "deliver": 0.6, "execute_late": 0.15, "lose": 0.1, "beat": 2, "finish": 0.3},
    "late passes": {
        "cut": 20,
        "execute": 0.3,
        "execute_late": 2,
        "lose": 0.1,
        "promote": 8,
        "pass_time": 4,
        "cycle": 0.5,
    },
    "pills": {"crash": 14, "start": 4, "hand_on": 8, "promote": 6, "pass_time": 4, "submit": 0.2, "finish": 0.02},
    "piles": {"submit": 3, "cycle": 0.15, "pause": 4, "resume": 0.2, "cancel": 0.3, "purge": 3, "ask": 20},
    "requests": {"report_again": 4, "cancel": 6, "replay": 8, "expire": 2, "again": 4, "purge": 2, "pass_time": 3},
    "stops": {"stop": 8, "drain": 3, "finish": 0.15, "start": 3, "pause": 3, "arm": 3, "stop_waiting": 4},
    "server": {"destroy_group": 6, "fill_memory": 6, "write_foreign": 5, "init": 3, "make_again": 2},
    "swarm": {},
}
"""Weights are multiplied by these; `swarm` draws its own for each run."""
_BY_NAME: Final = {rule.name: rule for rule in RULES}

Step = tuple[str, tuple[int, ...]]


class FailedError(Exception):
    """A run that broke a promise, and the shortest sequence found that does."""


class Rolls:
    """Dice of a generator; it notes what it gave."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self.given: list[int] = []

    def below(self, n: int) -> int:
        self.given.append(self._source.randrange(n))
        return self.given[-1]


class Again:
    """Dice that give what was noted; whatever does not fit is folded."""

    def __init__(self, given: Sequence[int]) -> None:
        self._left = iter(given)

    def below(self, n: int) -> int:
        return next(self._left, 0) % n


@dataclass
class Statistics:
    """Of many runs."""

    steps: int = 0
    runs: int = 0
    seconds: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """For people."""
        rate = self.steps / self.seconds if self.seconds else 0
        yield f"{self.steps:,} steps in {self.runs:,} runs, {self.counts['calls']:,} calls, {rate:,.0f} steps/s"
        yield "rules: " + ", ".join(f"{name} {self.rules[name]:,}" for name in sorted(_BY_NAME))
        yield "reached: " + ", ".join(f"{name} {n:,}" for name, n in sorted(self.counts.items()) if name != "calls")


def explore(
    wire: Wire,
    seed: int,
    steps: int,
    profile: str,
    into: Statistics | None = None,
    queue: Queue | None = None,
) -> Statistics:
    """Runs by consecutive seeds until so many steps were made. Raises FailedError."""
    total = into or Statistics()
    begun, until = time.monotonic(), total.steps + steps
    while total.steps < until:
        _one(wire, seed, profile, total, queue)
        seed += 1
    total.seconds += time.monotonic() - begun
    return total


def _one(wire: Wire, seed: int, profile: str, total: Statistics, queue: Queue | None) -> None:
    dice = random.Random(f"{profile} {seed}")
    weights = weights_of(dice, profile)
    world, trace = _world(wire, queue), list[Step]()
    try:
        wander(world, dice, STEPS, weights, trace)
        heal(world)
    except AssertionError as error:
        total.steps += len(trace)
        world.set_memory(False)  # the report tries the steps again
        raise FailedError(_report(wire, seed, profile, trace, error, queue)) from error
    finally:
        world.set_memory(False)
    total.steps += STEPS
    total.runs += 1
    total.rules.update(name for name, _ in trace)
    total.counts += world.counts


def _world(wire: Wire, queue: Queue | None) -> World:
    return World(wire) if queue is None else World(wire, queue)


def wander(world: World, dice: random.Random, steps: int, weights: Sequence[float], trace: list[Step]) -> None:
    """So many things happen; what happened, the last one included, is added to `trace`."""
    until = len(trace) + steps
    while len(trace) < until:
        (chosen,) = dice.choices(RULES, weights)
        rolls = Rolls(dice)
        trace.append((chosen.name, ()))
        try:
            done = chosen.do(world, rolls)
        finally:
            trace[-1] = (chosen.name, tuple(rolls.given))
        if not done:
            trace.pop()


def weights_of(dice: random.Random, profile: str) -> list[float]:
    """The weights of RULES."""
    factors = PROFILES[profile]
    if profile == "swarm":
        factors = {rule.name: dice.choice((0.0, 0.3, 1.0, 1.0, 4.0)) for rule in RULES}
        factors |= {"execute": 1.0, "deliver": dice.choice((0.3, 1.0)), "submit": 1.0, "start": 1.0}
    return [rule.weight * factors.get(rule.name, 1.0) for rule in RULES]


# -- a failure, cut down


def _report(wire: Wire, seed: int, profile: str, trace: list[Step], error: AssertionError, queue: Queue | None) -> str:
    short = shrink(wire, trace, error, queue)
    steps = "\n".join(f"    {name!r}, {given}" for name, given in short)
    again = broken_by(wire, short, queue)
    return f"profile {profile!r}, seed {seed}: {again}\n  {len(short)} steps:\n{steps}"


def broken_by(wire: Wire, trace: Sequence[Step], queue: Queue | None) -> AssertionError | None:
    """The failure that these steps lead to."""
    world = _world(wire, queue)
    try:
        for name, given in trace:
            _BY_NAME[name].do(world, Again(given))
        heal(world)
    except AssertionError as error:
        return error
    finally:
        world.set_memory(False)
    return None


def shrink(wire: Wire, trace: list[Step], error: AssertionError, queue: Queue | None) -> list[Step]:
    """Without the steps that the failure does not need: ever smaller chunks are left out."""
    size = len(trace) // 2
    while size >= 1:
        at, removed = 0, False
        while at < len(trace):
            fewer = trace[:at] + trace[at + size :]
            if type(broken_by(wire, fewer, queue)) is type(error):
                trace, removed = fewer, True
            else:
                at += size
        size = size if removed and size == 1 else size // 2
    return trace


if __name__ == "__main__":
    import sys
    from pathlib import Path

    with Wire(Path(sys.argv[1])) as by_hand:
        statistics = Statistics()
        for name in [sys.argv[3]] if len(sys.argv) > 3 else list(PROFILES):
            explore(by_hand, 0, int(sys.argv[2]), name, statistics)
        sys.stdout.write("\n".join(statistics.lines()) + "\n")
