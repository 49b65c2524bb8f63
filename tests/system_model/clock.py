"""While a world runs, time, chance and threads of this process are the world's."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import random
import secrets
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import FunctionType
from typing import Any, Final

import pytest

from headrace import task
from headrace.context import progress_listeners
from headrace.runtime import executor, heartbeat
from headrace.runtime import threads as slot_threads

from . import threads
from .loop import InnerLoop
from .world import World

OURS: Final = ("headrace.", "headrace_api.")


class _Log(logging.Handler):
    """What programs log is kept for whoever looks into a failure."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        who = self._world.current.name if self._world.current else "-"
        error = f" ({record.exc_info[1]!r})" if record.exc_info else ""
        self._world.note(f"{who}: {record.getMessage()}{error}")
        if record.levelno >= logging.ERROR and record.exc_info and not self._world.closed:
            self._world.fault(f"{who} logged: {record.getMessage()}", record.exc_info[1])


@contextmanager
def ruled_by(world: World) -> Iterator[None]:
    """Time, chance and threads are the world's until the block ends; then the world is over."""
    before = random.getstate()
    gc.disable()  # it comes at moments that no seed decides
    with pytest.MonkeyPatch.context() as patch:
        _rule_time(world, patch)
        _rule_chance(world, patch)
        _rule_threads(world, patch)
        try:
            with _kept_logs(world):
                try:
                    yield
                finally:
                    world.close()
                    progress_listeners.clear()
                    _bury()
        finally:
            task._uuids.clear()
            random.setstate(before)
            gc.enable()


def _bury() -> None:
    """What processes were in the middle of is collected now, and what it says at that is not told."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    finally:
        sys.unraisablehook = hook


def _rule_time(world: World, patch: pytest.MonkeyPatch) -> None:
    def monotonic() -> float:
        return world.now

    def wall_ns() -> int:
        return int(world.wall() * 1e9)

    of_world: dict[Any, Any] = {time.monotonic: monotonic, time.time: world.wall, time.perf_counter: monotonic}
    for function in _functions():
        # A clock that is a default argument was looked up long ago.
        given = function.__defaults__ or ()
        made = tuple(of_world.get(each, each) if callable(each) else each for each in given)
        if made != given:
            patch.setattr(function, "__defaults__", made)
    patch.setattr(time, "monotonic", monotonic)
    patch.setattr(time, "perf_counter", monotonic)
    patch.setattr(time, "time", world.wall)
    patch.setattr(time, "time_ns", wall_ns)


def _functions() -> Iterator[FunctionType]:
    """Those of our modules that may have such defaults, constructors among them."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(OURS):
            continue
        for each in list(vars(module).values()):
            if inspect.isfunction(each):
                yield each
            elif inspect.isclass(each) and each.__module__ == name and inspect.isfunction(each.__init__):
                yield each.__init__


def _rule_chance(world: World, patch: pytest.MonkeyPatch) -> None:
    dice = world.dice_of("programs")

    def drawn_hex(size: int = 16) -> str:
        return dice.randbytes(size).hex()

    random.seed(f"{world.seed} random")
    patch.setattr(secrets, "token_hex", drawn_hex)
    patch.setattr(os, "urandom", dice.randbytes)
    patch.setattr(executor, "Random", lambda: Random(dice.random()))
    task._uuids.clear()


def _rule_threads(world: World, patch: pytest.MonkeyPatch) -> None:
    def new_loop() -> InnerLoop:
        assert world.current is not None
        return InnerLoop(world.current)

    patch.setattr(asyncio, "new_event_loop", new_loop)
    patch.setattr(heartbeat, "threading", threads.module(world))
    patch.setattr(slot_threads, "threading", threads.module(world))
    patch.setattr(slot_threads, "SimpleQueue", threads.QueueType(world))


@contextmanager
def _kept_logs(world: World) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("headrace", "headrace_api", "asyncio", "aiohttp")]
    before = [(each.propagate, each.level) for each in loggers]
    handler = _Log(world)
    for each in loggers:
        each.addHandler(handler)
        each.propagate = False
        each.setLevel(logging.INFO)
    try:
        yield
    finally:
        for each, (propagate, level) in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.propagate = propagate
            each.setLevel(level)
