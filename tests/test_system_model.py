"""The real worker, API and scripts in virtual time, under faults drawn from a seed: no run may break a promise.

Quick as it stands; `make model` does many runs, and seeds all faults. HEADRACE_SYSTEM_RUNS sets how many,
HEADRACE_MODEL_SEED the first seed; a failure prints the command that repeats it.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings

from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer, real_servers
from system_model.faults import FAULTS, Fault
from system_model.nemesis import PROFILES
from system_model.redis_double import Tap
from system_model.run import EACH, BrokenError, simulate

LONG = settings.get_current_profile_name() == "long"
RUNS = int(os.environ.get("HEADRACE_SYSTEM_RUNS", "400" if LONG else len(PROFILES)))
SEED = int(os.environ.get("HEADRACE_MODEL_SEED", time.time() if LONG else 0))
TRIES = 20
"""Runs within which a fault must be noticed."""
QUICK = {
    "acknowledged before the record",
    "a failure is no attempt",
    "beats are not heeded",
    "a stop keeps connections that swallow all",
    "the lowest priority first",
    "full memory stops reports",
    "a bulk job counts what it did not do",
    "records outlive their time",
}
"""Faults that every CI seeds."""
MEETS = {
    "stops": "hand_back",
    "queues": "claims",
    "memory": "submit refused",
    "jobs": "bulk_save",
    "expiry": "expired",
}
"""What a profile is for: without that its runs prove nothing."""
SEEDED = [fault for fault in FAULTS if LONG or fault.name in QUICK]


@pytest.fixture
def tap(redis_server: RedisServer, redis_url: str) -> Iterator[Tap]:
    with Tap(redis_server.socket) as tap:
        yield tap


@pytest.fixture(scope="module")
def one_tap() -> Iterator[Tap]:
    """To one Redis: what is looked for is the same with every one."""
    binary = next(each for each in real_servers().values() if isinstance(each, RedisBinary))
    with RedisServer(binary) as server, Tap(server.socket) as tap:
        yield tap


@pytest.mark.slow
def test_no_run_breaks_a_promise(tap: Tap, redis_server: RedisServer) -> None:
    """And the runs met what they are for: tasks that ran again, were taken from the dead, and were handed back."""
    total, met = Counter[str](), Counter[str]()
    for seed in range(SEED, SEED + RUNS) if LONG else _half(redis_server):
        outcome = simulate(seed, tap)
        sys.stdout.write(f"{outcome}\n")
        total.update(outcome.counts)
        total["reruns"] += outcome.verdict.reruns
        met[outcome.profile] += outcome.counts.get(MEETS.get(outcome.profile, "claims"), 0)
        assert outcome.accepted >= 3 * EACH
    assert [each for each in ("reruns", "reclaimed", "hand_back", "promote", "reconcile") if not total[each]] == []
    assert [each for each, times in met.items() if not times] == []


def _half(server: RedisServer) -> range:
    """Of the runs, since each kind needs only one Redis."""
    return range(SEED + (server.version >= (8,)), SEED + RUNS, 2)


@pytest.mark.slow
def test_a_seed_gives_the_same_run_again(one_tap: Tap) -> None:
    first, second = (simulate(SEED, one_tap, "all") for _ in range(2))
    assert first == second
    assert simulate(SEED + 1, one_tap, "all").history != first.history


@pytest.mark.slow
@pytest.mark.parametrize("fault", SEEDED, ids=str)
def test_a_fault_is_noticed(one_tap: Tap, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    fault.into(monkeypatch)
    with pytest.raises(BrokenError) as broken:
        for seed in range(TRIES):
            simulate(seed, one_tap, fault.profile)
    sys.stdout.write(f"{fault}: {str(broken.value).splitlines()[0]}\n")
