"""Breaks a system by a plan that a seed makes: which fault, when, how long. The same seed makes the same plan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from redis_server import RedisServer

from .proxy import FaultProxy
from .system import DEAD_AFTER_S, Program, System

LONGEST_S: Final = 6.0
"""No fault lasts longer, but for the freezing of a worker, which must outlast its death."""


@dataclass(frozen=True)
class Fault:
    """One fault of a plan."""

    at_s: float
    """Seconds after the start."""
    kind: str
    whom: int
    """Which API or worker; taken modulo those that may be hurt."""
    for_s: float
    """How long it lasts."""
    number: int
    """A whole number for kinds that need one."""

    def __str__(self) -> str:
        return f"{self.at_s:7.1f} s {self.kind} ({self.whom}, {self.for_s:.1f} s, {self.number})"


KINDS: Final = (
    "kill_worker",
    "stop_worker",
    "freeze_worker",
    "kill_api",
    "freeze_api",
    "kill_redis",
    "freeze_redis",
    "reset",
    "blackhole",
    "half_open",
    "delay",
    "swallow",
    "fill_memory",
    "forget_scripts",
)


def plan(
    seed: int, duration_s: float, every_s: tuple[float, float] = (20.0, 40.0), kinds: Iterable[str] = KINDS
) -> list[Fault]:
    """One fault each `every_s` seconds, all kinds once before any comes again."""
    dice, at_s, faults = Random(seed), 0.0, list[Fault]()
    deck: list[str] = []
    while True:
        at_s += dice.uniform(*every_s)
        if at_s >= duration_s:
            return faults
        if not deck:
            deck = list(kinds)
            dice.shuffle(deck)
        fault = Fault(at_s, deck.pop(), dice.randrange(100), dice.uniform(0.3, LONGEST_S), dice.randint(5, 100))
        faults.append(fault)


@dataclass(frozen=True)
class Done:
    """A fault that was carried out."""

    fault: Fault
    began: float
    """Unix time."""
    healed: float


class Nemesis:
    """The first API and the first worker are never hurt themselves: on them memory is measured."""

    def __init__(self, system: System, redis: RedisServer, proxy: FaultProxy) -> None:
        self.done: list[Done] = []
        self.complaints: list[str] = []
        """Graceful stops that did not end with exit code 0."""
        self._system = system
        self._redis = redis
        self._proxy = proxy

    async def carry_out(self, faults: Iterable[Fault]) -> None:
        """All of a plan, each at its time, or when the one before is over."""
        start = time.monotonic()
        for fault in faults:
            await asyncio.sleep(max(0.0, start + fault.at_s - time.monotonic()))
            await self.strike(fault)

    async def strike(self, fault: Fault) -> None:
        """One fault, from its beginning to its heal."""
        began = time.time()
        await getattr(self, f"_{fault.kind}")(fault)
        self.done.append(Done(fault, began, time.time()))

    def _victim(self, fault: Fault, kind: Literal["apis", "workers"]) -> Program:
        programs: list[Program] = getattr(self._system, kind)
        mortal = programs[1:] or programs
        return mortal[fault.whom % len(mortal)]

    # processes

    async def _kill_worker(self, fault: Fault) -> None:
        await self._kill(self._victim(fault, "workers"))

    async def _kill_api(self, fault: Fault) -> None:
        await self._kill(self._victim(fault, "apis"))

    async def _kill(self, program: Program) -> None:
        await asyncio.to_thread(program.kill)
        program.start()

    async def _stop_worker(self, fault: Fault) -> None:
        program = self._victim(fault, "workers")
        code = await asyncio.to_thread(program.stop)
        if code:
            self.complaints.append(f"{program.name} was told to stop and ended with {code}")
        program.start()

    async def _freeze_worker(self, fault: Fault) -> None:
        await self._freeze(self._victim(fault, "workers"), 2 * DEAD_AFTER_S)

    async def _freeze_api(self, fault: Fault) -> None:
        await self._freeze(self._victim(fault, "apis"), fault.for_s)

    async def _freeze(self, program: Program, for_s: float) -> None:
        program.freeze()
        await asyncio.sleep(for_s)
        program.thaw()

    # Redis

    async def _kill_redis(self, fault: Fault) -> None:
        await asyncio.to_thread(self._redis.kill)
        await asyncio.sleep(fault.for_s / 3)
        await asyncio.to_thread(self._redis.start)

    async def _freeze_redis(self, fault: Fault) -> None:
        self._redis.freeze()
        await asyncio.sleep(fault.for_s)
        self._redis.thaw()

    async def _fill_memory(self, fault: Fault) -> None:
        await asyncio.to_thread(self._redis.redis.config_set, "maxmemory", 1)
        await asyncio.sleep(fault.for_s)
        await asyncio.to_thread(self._redis.redis.config_set, "maxmemory", 0)

    async def _forget_scripts(self, fault: Fault) -> None:
        await asyncio.to_thread(self._redis.redis.script_flush)

    # the way there

    async def _reset(self, fault: Fault) -> None:
        self._proxy.reset()

    async def _blackhole(self, fault: Fault) -> None:
        self._proxy.blackhole()
        await self._heal_after(fault.for_s)

    async def _half_open(self, fault: Fault) -> None:
        self._proxy.half_open()
        await self._heal_after(fault.for_s)

    async def _delay(self, fault: Fault) -> None:
        self._proxy.delay_s = fault.number / 1_000
        await self._heal_after(fault.for_s)

    async def _swallow(self, fault: Fault) -> None:
        self._proxy.every(fault.number)
        await self._heal_after(fault.for_s)

    async def _heal_after(self, for_s: float) -> None:
        await asyncio.sleep(for_s)
        self._proxy.heal()
