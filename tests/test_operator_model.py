"""The operator in a world in which anything happens in any order, and what must hold all the same.

Real are the control loop, decisions, drain, hand-on, status and the requests to Kubernetes; queues, workers, pods and
the API server are a model. Quick as it stands; `make model` runs it for long. HEADRACE_MODEL_SEED is the first seed.
"""

from __future__ import annotations

import os
import sys
import time

import pytest
from hypothesis import settings

import operator_model_explorer
from operator_model_api import FAULTS
from operator_model_end import end_of
from operator_model_explorer import FailedError, explore, undisturbed
from operator_model_mutants import MUTANTS, Mutant
from operator_model_rules import RULES

LONG = settings.get_current_profile_name() == "long"
SEED = int(os.environ.get("HEADRACE_MODEL_SEED", time.time() if LONG else 1))
RUNS = 1_000_000 if LONG else 80
SECONDS = 1_800.0 if LONG else 1e9
LIMIT = 3_000
"""Runs within which a fault on purpose must show."""
QUICK = {
    "taken before they answer",
    "busy ones count as idle",
    "no bounds",
    "an Event each tick",
    "a pod's boots are all dead",
}
"""Faults that a few dozen runs show; the others take longer."""
REACHED = {
    *FAULTS, "killed", "crashes", "handed on", "scaled up", "scaled down", "scaled blindly", "redis ask_to_drain",
    *(f"Event {name}" for name in ("ScaledToZero", "WokeFromZero", "QueueUnreachable", "FallbackActive")),
    *(f"rule {rule.name}" for rule in RULES),
}  # fmt: skip


@pytest.mark.slow
async def test_any_order_of_anything_keeps_every_promise() -> None:
    """No busy pod is stopped, nothing shrinks blindly, and in the end all is done and small."""
    total = await explore(SEED, runs=RUNS, seconds=SECONDS)
    sys.stdout.write("\n".join(["", f"first seed {SEED}", *total.lines()]) + "\n")
    assert sorted(REACHED - {*total.counts}) == []


@pytest.mark.slow
async def test_an_operator_that_dies_at_any_write_ends_where_an_undisturbed_one_does() -> None:
    """Before the write, and after it without having heard that it was done."""
    calm = await undisturbed()
    assert calm.writes > 20
    for write in range(1, calm.writes + 1):
        for when in ("kill before", "kill after"):
            world = await undisturbed((write, when))
            assert world.counts["killed"] == 1
            assert end_of(world) == end_of(calm), f"killed {when} write {write}"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [each for each in MUTANTS if LONG or each.name in QUICK], ids=str)
async def test_a_faulty_operator_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole(seed: int, steps: list[tuple[str, int]]) -> list[tuple[str, int]]:
        return steps

    monkeypatch.setattr(operator_model_explorer, "shrink", whole)
    mutant.into(monkeypatch)
    with pytest.raises(FailedError) as caught:
        await explore(0, runs=LIMIT)
    sys.stdout.write(f"\n{mutant}: {str(caught.value).splitlines()[0]}\n")
