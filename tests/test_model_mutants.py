"""The model catches faults that are put in on purpose (model_mutants.py); all of them are tried by `make model`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

import model_explorer
from headrace.broker.broker import Queue
from model_explorer import PROFILES, STEPS, FailedError, explore
from model_mutants import LAPSES, MUTANTS, Lapse, Mutant
from model_redis import Wire
from redis_server import RedisServer

LONG = settings.get_current_profile_name() == "long"
LIMIT = 600
"""Rounds within which a fault must show; each runs every profile once."""


@pytest.fixture
def wire(redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(model_explorer, "shrink", lambda wire, trace, error, queue: trace)
    with Wire(redis_server.socket) as wire:
        yield wire


def rounds_until_caught(wire: Wire, queue: Queue | None = None) -> int:
    """How long it took."""
    for seed in range(LIMIT):
        try:
            for profile in PROFILES:
                explore(wire, seed, STEPS, profile, queue=queue)
        except FailedError:
            return seed + 1
    pytest.fail(f"not caught in {LIMIT * len(PROFILES) * STEPS:,} steps")


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS if LONG else MUTANTS[::6], ids=str)
def test_a_faulty_script_is_caught(wire: Wire, mutant: Mutant) -> None:
    assert rounds_until_caught(wire, mutant.queue(wire))


@pytest.mark.slow
@pytest.mark.parametrize("lapse", LAPSES if LONG else LAPSES[1:2], ids=str)
def test_a_careless_worker_is_caught(wire: Wire, lapse: Lapse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapse.of, lapse.attribute, lapse.instead)
    assert rounds_until_caught(wire)
