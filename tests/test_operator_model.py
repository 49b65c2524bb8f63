"""The operator in a world in which anything happens in any order, and what must hold all the same.

Real are the control loop, decisions, drain, hand-on, status and the requests to Kubernetes; workers, pods and the API
server are a model, and so are the queues, but for the runs on a real Redis. Quick as it stands; `make model` runs it
for long. HEADRACE_MODEL_SEED is the first seed.
"""

from __future__ import annotations

import os
import sys
import time

import pytest
from hypothesis import settings

from operator_model_api import FAULTS
from operator_model_end import end_of
from operator_model_explorer import FailedError, explore, undisturbed
from operator_model_mutants import MUTANTS, Mutant
from operator_model_plan import OLD_ANSWERS, PROFILES
from operator_model_redis import in_redis
from operator_model_rule import RULES
from redis_server import RedisServer

LONG = settings.get_current_profile_name() == "long"
SEED = int(os.environ.get("HEADRACE_MODEL_SEED", time.time() if LONG else 1))
RUNS = 1_000_000 if LONG else 8 * len(PROFILES)
SECONDS = 1_800.0 if LONG else 1e9
ON_REDIS = 1_000 if LONG else len(PROFILES)
LIMIT = 600
"""Runs within which a fault on purpose must show."""
REACHED = {
    *FAULTS, "killed", "crashes", "handed on", "scaled up", "scaled down", "scaled blindly", "redis ask_to_drain",
    "a season's floor",
    *(f"Event {name}" for name in
      ("ScaledToZero", "WokeFromZero", "QueueUnreachable", "FallbackActive", "InvalidSpec", "InvalidTemplate")),
    *(f"rule {rule.name}" for rule in RULES),
}  # fmt: skip


@pytest.mark.slow
async def test_any_order_of_anything_keeps_every_promise() -> None:
    """No busy pod is stopped, nothing shrinks blindly, and in the end all is done and small."""
    total = await explore(SEED, runs=RUNS, seconds=SECONDS)
    sys.stdout.write("\n".join(["", f"first seed {SEED}", *total.lines()]) + "\n")
    assert sorted(REACHED - {*total.counts}) == []


@pytest.mark.slow
async def test_the_same_holds_with_the_queues_in_a_real_redis(redis_server: RedisServer, redis_url: str) -> None:
    async with in_redis(redis_server.socket, redis_url) as redis:
        total = await explore(SEED, runs=ON_REDIS, redis=redis, whole=True)
    sys.stdout.write("\n".join(["", *total.lines()]) + "\n")
    wanted = {"handed on", "scaled up", "scaled down", "asked to drain", "released", "Event QueueUnreachable"}
    assert sorted(wanted - {*total.counts}) == []


@pytest.mark.slow
async def test_a_fault_shows_on_a_real_redis_too(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the mutants, the one that what Redis keeps with a request to drain protects from."""
    next(each for each in MUTANTS if each.name == "an answer from before counts").into(monkeypatch)
    async with in_redis(redis_server.socket, redis_url) as redis:
        with pytest.raises(FailedError, match="is stopped"):
            await explore(0, runs=LIMIT, profiles=[OLD_ANSWERS], redis=redis, whole=True)


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
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
async def test_a_faulty_operator_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a broken promise, and not by a crash. `make model-mutants` prints how soon."""
    mutant.into(monkeypatch)
    began = time.monotonic()
    with pytest.raises(FailedError) as caught:
        await explore(0, runs=LIMIT, profiles=[mutant.profile], whole=True)
    said = str(caught.value).splitlines()[0]
    sys.stdout.write(f"\n{mutant.name:32} {time.monotonic() - began:5.1f} s  {said}\n")
    assert "an error that nobody expects" not in said
