"""The real worker, API and scripts in virtual time, under faults drawn from a seed: no run may break a promise.

Quick as it stands; `make model` does many runs. HEADRACE_SYSTEM_RUNS sets how many, HEADRACE_MODEL_SEED the first
seed; a failure prints the command that repeats it.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings

from redis_server import RedisServer
from system_model.faults import FAULTS, Fault
from system_model.nemesis import PROFILES
from system_model.redis_double import Tap
from system_model.run import EACH, BrokenError, simulate

LONG = settings.get_current_profile_name() == "long"
RUNS = int(os.environ.get("HEADRACE_SYSTEM_RUNS", "400" if LONG else len(PROFILES)))
SEED = int(os.environ.get("HEADRACE_MODEL_SEED", time.time() if LONG else 0))
TRIES = 12
"""Runs within which a fault must be noticed."""


@pytest.fixture
def tap(redis_server: RedisServer, redis_url: str) -> Iterator[Tap]:
    with Tap(redis_server.socket) as tap:
        yield tap


@pytest.mark.slow
def test_no_run_breaks_a_promise(tap: Tap) -> None:
    """And the runs met what they are for: tasks that ran again, were taken from the dead, and were sent again."""
    total: Counter[str] = Counter()
    for seed in range(SEED, SEED + RUNS):
        outcome = simulate(seed, tap)
        sys.stdout.write(f"{outcome}\n")
        total.update(outcome.counts)
        total["reruns"] += outcome.verdict.reruns
        assert outcome.accepted >= 3 * EACH
    assert [each for each in ("reruns", "reclaimed", "hand_back", "promote", "reconcile") if not total[each]] == []


@pytest.mark.slow
def test_a_seed_gives_the_same_run_again(tap: Tap) -> None:
    first, second = (simulate(4, tap) for _ in range(2))
    assert first == second
    assert simulate(4 + len(PROFILES), tap).history != first.history


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_noticed(tap: Tap, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    fault.into(monkeypatch)
    with pytest.raises(BrokenError) as broken:
        for seed in range(TRIES):
            simulate(seed, tap, fault.profile)
    sys.stdout.write(f"{fault}: {str(broken.value).splitlines()[0]}\n")
