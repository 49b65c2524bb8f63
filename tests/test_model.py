"""All scripts against a model, in any order, with every fault of network, processes and server between the steps.

Quick as it stands; `make model` runs it for hours. HEADRACE_MODEL_STEPS sets the steps of each profile, and
HEADRACE_MODEL_SEED the first seed; a failure prints both, and the steps it needs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from headrace.task import ARROWS
from model_explorer import PROFILES, Statistics, explore
from model_machine import machine
from model_redis import Wire
from model_rules import RULES
from redis_server import RedisServer

LONG = settings.get_current_profile_name() == "long"
STEPS = int(os.environ.get("HEADRACE_MODEL_STEPS", "400000" if LONG else "3000"))
SEED = int(os.environ.get("HEADRACE_MODEL_SEED", time.time() if LONG else 1))

FINDINGS = [f"V{n}" for n in range(1, 22) if n != 6]
ALSO = [
    *("V6 retrying", "V6 failed", "V6 parked", "V6 reclaim", "V6 hand back"),
    *("full", "unique", "forced", "gone", "poison", "purged", "replayed", "buried", "left"),
    *(f"{state} → {after}" for state in ARROWS for after in ARROWS[state]),
    *("adopted", "lost ownership", "marker lost", "late cycle", "late submit", "late reclaim", "late hand_back"),
]
RARE = {"V4", "V10", "V12", "V16", "V6 failed", "V6 parked", "V6 hand back", "poison", "late hand_back"}
"""Not in every short run; each has a test of its own."""
ENOUGH = 2_000_000
"""Steps that reach also those."""


@pytest.fixture
def wire(redis_server: RedisServer, redis_url: str) -> Iterator[Wire]:
    with Wire(redis_server.socket) as wire:
        yield wire


@pytest.mark.slow
def test_any_order_of_anything_keeps_every_promise(wire: Wire) -> None:
    """And the run reached every rule and every finding of the first model check."""
    total = Statistics()
    for profile in PROFILES:
        explore(wire, SEED, STEPS, profile, total)
    sys.stdout.write("\n".join(["", f"seed {SEED}", *total.lines()]) + "\n")
    assert [rule.name for rule in RULES if not total.rules[rule.name]] == []
    wanted = {*FINDINGS, *ALSO} - (RARE if total.steps < ENOUGH else set())
    assert sorted(name for name in wanted if not total.counts[name]) == []


@pytest.mark.slow
def test_hypothesis_finds_no_sequence_that_breaks_a_promise(wire: Wire) -> None:
    run_state_machine_as_test(
        machine(wire),
        settings=settings(
            max_examples=2_000 if LONG else 25,
            stateful_step_count=200 if LONG else 60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
