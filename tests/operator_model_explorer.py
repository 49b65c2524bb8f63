"""Runs worlds by seed; a failure is cut down to the steps that it needs.

Each step has dice of its own, so that leaving one out does not change what the others do.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace_operator.caps import Caps
from operator_model_end import heal, one_calm_tick
from operator_model_rules import CONCURRENCY, QUIET, RULES, scaling_of, small, template
from operator_model_world import Plan, World

STEPS: Final = 150
"""Of one run."""
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


def plan_of(seed: int) -> Plan:
    """How the run of this seed is."""
    dice = random.Random(f"plan {seed}")
    names = ["a", "b"][: 1 if seed % 2 else dice.choice((1, 1, 2))]
    queue_of = {name: dice.choice(("q", name)) for name in names}
    specs = {
        name: {
            "queues": [{"name": queue_of[name]}], "template": template(0),
            "scaling": scaling_of(dice, eager=seed % 2 == 1),
            "worker": {"concurrency": CONCURRENCY}, "drain": {"policy": dice.choice(("IdleOnly", "Graceful"))},
        }
        for name in names
    }  # fmt: skip
    caps = dice.choice((Caps(), Caps(), Caps(cluster=4), Caps(namespace=4)))
    return Plan(specs, queue_of, caps, dice.choice((0.0, 0.3, 0.6)), dice.choice((0.0, 0.02, 0.1)))


def steps_of(seed: int) -> list[Step]:
    dice = random.Random(f"steps {seed}")
    weights = [rule.weight * dice.choice((0.0, 0.3, 1.0, 1.0, 1.0, 3.0)) for rule in RULES]
    weights[0] = RULES[0].weight
    if seed % 2:
        weights = [weight if rule.name in QUIET else 0.0 for rule, weight in zip(RULES, weights, strict=True)]
    return [(rule.name, dice.randrange(1 << 30)) for rule in dice.choices(RULES, weights, k=STEPS)]


async def explore(seed: int, *, runs: int, seconds: float = 1e9) -> Statistics:
    """Runs by consecutive seeds. Raises FailedError."""
    logging.getLogger("headrace.operator").setLevel(logging.CRITICAL)
    total, began = Statistics(), time.monotonic()
    while total.runs < runs and time.monotonic() - began < seconds:
        steps = steps_of(seed)
        try:
            world = await play(seed, steps)
        except AssertionError as error:
            raise FailedError(await _report(seed, steps, error)) from error
        total.runs, total.steps = total.runs + 1, total.steps + len(steps)
        total.counts.update(world.counts)
        total.counts.update(f"rule {name}" for name, _ in steps)
        seed += 1
    total.seconds = time.monotonic() - began
    return total


async def play(seed: int, steps: Sequence[Step]) -> World:
    """One run to its good end."""
    world = World(plan_of(seed), small)
    for name, dice in steps:
        world.dice = random.Random(dice)
        await _BY_NAME[name].do(world)
    await heal(world)
    return world


async def _report(seed: int, steps: list[Step], error: AssertionError) -> str:
    short = await shrink(seed, steps)
    again = await broken_by(seed, short)
    lines = "\n".join(f"    ({name!r}, {dice})," for name, dice in short)
    return f"seed {seed}: {again or error}\n  {plan_of(seed)}\n  {len(short)} steps:\n{lines}"


async def broken_by(seed: int, steps: Sequence[Step]) -> AssertionError | None:
    """The failure that these steps lead to."""
    try:
        await play(seed, steps)
    except AssertionError as error:
        return error
    return None


async def shrink(seed: int, steps: list[Step]) -> list[Step]:
    """Ever smaller chunks that the failure does not need are left out."""
    size = len(steps)
    while size >= 1:
        at, removed = 0, False
        while at < len(steps):
            less = steps[:at] + steps[at + size :]
            if await broken_by(seed, less) is not None:
                steps, removed = less, True
            else:
                at += size
        size = size if removed and size == 1 else size // 2
    return steps


async def undisturbed(kill_at: tuple[int, str] | None = None) -> World:
    """A pool that works, grows, shrinks by a drain and changes its image; at most one death of the operator."""
    spec = {**plan_of(0).specs["a"], "queues": [{"name": "a"}], "scaling": _CALM}
    world = World(Plan({"a": spec}, {"a": "a"}, interleaved=0.0, faulty=0.0), small)
    world.calm, world.kill_at = True, kill_at
    for tasks, ticks in ((4, 6), (9, 14), (2, 10)):
        world.queues["a"].pending += tasks
        for _ in range(ticks):
            await one_calm_tick(world)
    await heal(world)
    return world


_CALM: Final = {
    "minReplicas": 1, "maxReplicas": 3, "idleSeconds": 2, "targetTasksPerReplica": 3,
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 2, "policies": []}},
}  # fmt: skip
