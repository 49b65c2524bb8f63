"""Runs worlds by seed; a failure is cut down to the steps that it needs.

Each step has dice of its own, so that leaving one out does not change what the others do.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import operator_model_rules  # noqa: F401 - its rules
import operator_model_users  # noqa: F401 - its rules
from operator_model_api import Redis
from operator_model_end import heal, one_calm_tick
from operator_model_plan import PROFILES, Plan, Profile, spec_of, template
from operator_model_rule import RULES
from operator_model_work import small
from operator_model_world import World

STEPS: Final = 150
"""Of one run."""
_RULES: Final = sorted(RULES, key=lambda rule: rule.name)
_BY_NAME: Final = {rule.name: rule for rule in RULES}
Step = tuple[str, int]


class FailedError(Exception):
    """A run that broke a promise, and the shortest sequence found that does."""


@dataclass
class Statistics:
    """Of many runs."""

    runs: int = 0
    steps: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """For people."""
        rate = self.steps / self.seconds if self.seconds else 0
        yield f"{self.steps:,} steps in {self.runs:,} runs, {rate:,.0f} steps/s"
        yield ", ".join(f"{name} {n:,}" for name, n in sorted(self.counts.items()))


@dataclass(frozen=True)
class Run:
    """One seed of one profile: the same every time."""

    profile: Profile
    seed: int

    def plan(self) -> Plan:
        return self.profile.plan(random.Random(f"plan {self}"))

    def steps(self) -> list[Step]:
        dice, profile = random.Random(f"steps {self}"), self.profile
        weights = [profile.weights.get(rule.name, 0.0) if profile.weights else rule.weight for rule in _RULES]
        if profile.varied:
            weights = [weight * dice.choice((0.0, 0.3, 1.0, 1.0, 1.0, 3.0)) for weight in weights]
            weights[_RULES.index(_BY_NAME["tick"])] = _BY_NAME["tick"].weight
        return [(rule.name, dice.randrange(1 << 30)) for rule in dice.choices(_RULES, weights, k=STEPS)]

    async def play(self, steps: Sequence[Step], redis: Redis | None = None) -> World:
        """To its good end. Raises AssertionError."""
        world = World(self.plan(), small, redis)
        for name, dice in steps:
            world.dice = random.Random(dice)
            await _BY_NAME[name].do(world)
        await heal(world)
        return world

    async def broken_by(self, steps: Sequence[Step]) -> AssertionError | None:
        """The failure that these steps lead to."""
        try:
            await self.play(steps)
        except AssertionError as error:
            return error
        return None

    def __str__(self) -> str:
        return f"{self.profile.name}, seed {self.seed}"


async def explore(
    seed: int,
    *,
    runs: int,
    seconds: float = 1e9,
    profiles: Sequence[Profile] = PROFILES,
    redis: Redis | None = None,
    whole: bool = False,
) -> Statistics:
    """Runs by consecutive seeds. Raises FailedError; `whole` leaves its steps as they were."""
    total, began = Statistics(), time.monotonic()
    with _silent():
        while total.runs < runs and time.monotonic() - began < seconds:
            run = Run(profiles[seed % len(profiles)], seed)
            steps = run.steps()
            try:
                world = await run.play(steps, redis)
            except AssertionError as error:
                raise FailedError(await _report(run, steps if whole else await shrink(run, steps), error)) from error
            total.runs, total.steps = total.runs + 1, total.steps + len(steps)
            total.counts.update(world.counts)
            total.counts.update(f"rule {name}" for name, _ in steps)
            total.counts.update([f"profile {run.profile.name}"])
            seed += 1
    total.seconds = time.monotonic() - began
    return total


@contextmanager
def _silent() -> Iterator[None]:
    """What an operator in trouble logs is no news here."""
    logger = logging.getLogger("headrace.operator")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


async def _report(run: Run, steps: Sequence[Step], error: AssertionError) -> str:
    lines = "\n".join(f"    ({name!r}, {dice})," for name, dice in steps)
    again = await run.broken_by(steps)
    return f"{run}: {again or error}\n  {run.plan()}\n  {len(steps)} steps:\n{lines}"


async def shrink(run: Run, steps: list[Step]) -> list[Step]:
    """Ever smaller chunks that the failure does not need are left out."""
    size = len(steps)
    while size >= 1:
        at, removed = 0, False
        while at < len(steps):
            less = steps[:at] + steps[at + size :]
            if await run.broken_by(less) is not None:
                steps, removed = less, True
            else:
                at += size
        size = size if removed and size == 1 else size // 2
    return steps


async def undisturbed(kill_at: tuple[int, str] | None = None) -> World:
    """A pool that works, grows, shrinks by a drain and changes its image; at most one death of the operator."""
    world = World(Plan({"a": spec_of("a", _CALM, "IdleOnly")}, {"a": "a"}, interleaved=0.0, faulty=0.0), small)
    world.calm, world.kill_at = True, kill_at
    for image, (tasks, ticks) in enumerate(((4, 6), (9, 14), (2, 10)), start=1):
        world.queues["a"].submit(tasks)
        world.change("a", {**world.plan.specs["a"], "template": template(image // 2)})
        for _ in range(ticks):
            await one_calm_tick(world)
    await heal(world)
    return world


_CALM: Final = {
    "minReplicas": 1, "maxReplicas": 3, "idleSeconds": 2, "targetTasksPerReplica": 3,
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 2, "policies": []}},
}  # fmt: skip
