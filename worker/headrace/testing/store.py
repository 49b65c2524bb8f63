"""Redis' place in a test: fakeredis, which carries out the same Lua scripts, with a clock that stands still."""

from __future__ import annotations

import importlib
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, TypeVar

from headrace.broker.broker import Call
from headrace.broker.scripts import without_shebang

R = TypeVar("R")

VERSION: Final = (7, 0)


class Clock:
    """The time of a test: it begins now, and moves when it is told to."""

    def __init__(self) -> None:
        self._ms = int(time.time() * 1000)

    def ms(self) -> int:
        """Unix time in ms."""
        return self._ms

    def time(self) -> float:
        """Unix time in seconds."""
        return self._ms / 1000

    def advance(self, seconds: float) -> None:
        """Move on. Raises ValueError for a step back."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"Time moves forward only, not by {seconds!r} seconds.")
        self.move_to(self._ms + math.ceil(seconds * 1000))

    def move_to(self, ms: int) -> None:
        """Move on to that time, unless it is past."""
        self._ms = max(self._ms, ms)


class Store:
    """An empty server of one test. Safe to share between threads."""

    def __init__(self, clock: Clock) -> None:
        fakeredis = _fakeredis()
        self._clock = clock
        self._lock = threading.RLock()
        # The connection alone: a client would repeat what failed, and sleep in between.
        server = fakeredis.FakeServer(version=VERSION)
        self._connection: Any = fakeredis.FakeRedis(server=server, protocol=2).connection_pool.get_connection()

    def call(self, call: Call[R]) -> R:
        """Carry out one transition."""
        source = without_shebang(call.script.source)
        with self._lock, _told_by(self._clock):
            self._connection.send_command("EVAL", source, *call.words[2:])
            reply = self._connection.read_response(disable_decoding=True)
        return call.parse(reply)

    def close(self) -> None:
        self._connection.disconnect()


def _fakeredis() -> Any:
    """The module, with what it runs Lua by. Raises ImportError, in words, where one of them is not installed."""
    try:
        importlib.import_module("lupa")
        return importlib.import_module("fakeredis")
    except ImportError as error:
        raise ImportError(
            f"headrace.testing keeps the tasks of a test in fakeredis with Lua, but {error.name!r} is not installed. "
            "Run: pip install 'headrace[dev]'"
        ) from error


@contextmanager
def _told_by(clock: Clock) -> Iterator[None]:
    """fakeredis' modules read this clock meanwhile: TIME, entry ids and expiry go by it."""
    modules = [each for name, each in list(sys.modules.items()) if name.startswith("fakeredis.") and _reads_time(each)]
    for module in modules:
        vars(module)["time"] = clock
    try:
        yield
    finally:
        for module in modules:
            vars(module)["time"] = time


def _reads_time(module: ModuleType) -> bool:
    return vars(module).get("time") is time
