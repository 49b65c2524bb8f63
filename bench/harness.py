"""What a row of the table is, and how rounds become one figure: each side once a round, the median of the rounds."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, Protocol

from headrace.errors import HeadraceError
from headrace_cli.redis_binary import RedisBinary

from .errors import MeasureError
from .floor_client import Floor, find_floor
from .server import Server

Unit = Literal["×", "/s", "µs", "ms", "s", "B", "MB"]


@dataclass(frozen=True)
class Measure:
    """One line of the table."""

    key: str
    title: str
    unit: Unit
    goal: float | None = None
    """None is reported only."""
    at_most: bool = False
    """Whether less is better."""
    prototype: str = ""
    """What the issue's prototype reached, as it is written there."""

    def is_reached(self, value: float) -> bool | None:
        """None without a goal or a value."""
        if self.goal is None or math.isnan(value):
            return None
        return value <= self.goal if self.at_most else value >= self.goal


@dataclass(frozen=True)
class Reading:
    """One round's value of a measure, and what stands beside it. NaN = not measured."""

    value: float
    rate: float = math.nan
    """Tasks (or requests) a second."""
    floor: float = math.nan
    """The same of what it is compared with."""
    client_us: float = math.nan
    """CPU of the client, worker or API process in µs a task."""
    redis_us: float = math.nan
    """CPU of Redis' main thread in µs a task."""


Round = dict[str, Reading]
"""By the key of the measure."""


class Row(Protocol):
    """Measures that are taken together."""

    @property
    def name(self) -> str: ...

    @property
    def measures(self) -> Sequence[Measure]: ...

    def round(self, bench: Bench) -> Round:
        """Measure every side once."""
        ...


@dataclass(frozen=True)
class Sizes:
    """How much of everything a round does."""

    drain: int = 150_000
    few_slots: int = 60_000
    one_slot: int = 10_000
    pings: int = 20_000
    singles: int = 10_000
    concurrent: int = 100_000
    bulk: int = 200_000
    http_s: float = 3.0
    idle: int = 300
    loaded_s: float = 4.0
    memory: int = 100_000
    backlog: int = 1_000_000
    small_backlog: int = 10_000
    nap_s: float = 3.0
    processes: tuple[int, ...] = (1, 2, 4, 8)
    pages: int = 300


QUICK = Sizes(
    40_000, 15_000, 3_000, 5_000, 3_000, 30_000, 60_000, 1.0, 100, 1.5, 30_000, 100_000, 10_000, 1.0, pages=100
)
SMOKE = Sizes(1_000, 300, 50, 100, 50, 500, 2_000, 0.3, 10, 0.3, 2_000, 2_000, 500, 0.1, (1, 2), 5)


@dataclass
class Bench:
    """What the rows share: servers, the bare client, the sizes."""

    binary: RedisBinary
    sizes: Sizes
    aof: bool = False
    """Whether every row runs with an append-only file, not only the one about it."""
    tcp: bool = False
    """Whether every client connects over TCP instead of a Unix socket."""
    floor: Floor = field(default_factory=find_floor)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _servers: dict[bool, Server] = field(default_factory=dict)

    @property
    def server(self) -> Server:
        """The Redis of most rows."""
        return self.server_with(aof=self.aof)

    def server_with(self, *, aof: bool) -> Server:
        """Started when first asked for. A server that nobody uses costs nothing but memory."""
        if aof not in self._servers:
            self._servers[aof] = self._stack.enter_context(Server(self.binary, aof=aof, tcp=self.tcp))
        return self._servers[aof]

    def close(self) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Result:
    """A measure over all rounds."""

    measure: Measure
    readings: tuple[Reading, ...]
    note: str = ""

    def middle(self, pick: Callable[[Reading], float]) -> float:
        """The median over the rounds; NaN if there is none."""
        found = [value for value in map(pick, self.readings) if not math.isnan(value)]
        return median(found) if found else math.nan

    @property
    def value(self) -> float:
        return self.middle(lambda reading: reading.value)

    @property
    def span(self) -> tuple[float, float]:
        """The least and the greatest of the rounds."""
        values = [reading.value for reading in self.readings if not math.isnan(reading.value)]
        return (min(values), max(values)) if values else (math.nan, math.nan)

    @property
    def reached(self) -> bool | None:
        return self.measure.is_reached(self.value)


def run_row(row: Row, bench: Bench, rounds: int, tick: Callable[[str], None]) -> Iterator[Result]:
    """All rounds of a row; `tick` is called before each of them. A row that fails keeps
    the rounds before, and says why in a note."""
    taken: list[Round] = []
    note = ""
    for number in range(rounds):
        tick(f"{row.name} {number + 1}/{rounds}")
        try:
            taken.append(row.round(bench))
        except (MeasureError, HeadraceError) as reason:
            note = str(reason)
            break
    for measure in row.measures:
        readings = tuple(found[measure.key] for found in taken if measure.key in found)
        yield Result(measure, readings, note)
