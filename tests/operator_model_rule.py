"""A thing that may happen in a run of the operator's model test, and how each finds what it happens to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from operator_model_cluster import TruePod, TruePool
from operator_model_queue import TrueQueue, Worker
from operator_model_world import World


@dataclass(frozen=True)
class Rule:
    name: str
    weight: float
    """In runs in which anything may happen."""
    do: Callable[[World], Awaitable[None]]


RULES: Final[list[Rule]] = []


def rule(weight: float) -> Callable[[Callable[[World], Awaitable[None]]], Callable[[World], Awaitable[None]]]:
    def add(do: Callable[[World], Awaitable[None]]) -> Callable[[World], Awaitable[None]]:
        RULES.append(Rule(do.__name__, weight, do))
        return do

    return add


def a_queue(world: World) -> TrueQueue:
    return world.queues[world.dice.choice(sorted(world.queues))]


def a_name(world: World) -> str:
    return world.dice.choice(sorted(world.pools))


def a_pool(world: World) -> TruePool:
    return world.pools[a_name(world)]


def a_worker(world: World) -> tuple[TruePool, TruePod, Worker] | None:
    """Any worker, if there is one."""
    pool = a_pool(world)
    workers = [*pool.workers]
    return (pool, *world.dice.choice(workers)) if workers else None
