"""Memory and open files of processes over time: samples, and the slope of a straight line through them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from .system import Program

EVERY_S = 2.0


@dataclass
class Samples:
    """Of one process that lives all the time."""

    name: str
    seconds: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    fds: list[float] = field(default_factory=list)

    def after(self, warm_s: float) -> Samples:
        """Without what was seen in the first seconds, in which every program grows."""
        first = next((at for at, second in enumerate(self.seconds) if second >= warm_s), len(self.seconds))
        return Samples(self.name, self.seconds[first:], self.rss[first:], self.fds[first:])

    def mib_an_hour(self) -> float:
        return slope(self.seconds, self.rss) * 3_600 / 1024**2

    def fifths(self, values: Sequence[float]) -> list[float]:
        """The median of each fifth of the time: what goes up and down stays about the same, what leaks does not."""
        fifth = max(1, len(values) // 5)
        parts = [values[at : at + fifth] for at in range(0, fifth * 5, fifth)]
        return [statistics.median(part) for part in parts if part]

    def fds_an_hour(self) -> float:
        return slope(self.seconds, self.fds) * 3_600


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line with the least squares; 0 for fewer than two points."""
    if len(x) < 2:
        return 0.0
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((each - mean_x) ** 2 for each in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


async def watch(programs: Sequence[Program], into: Sequence[Samples]) -> None:
    """Until cancelled."""
    began = time.monotonic()
    while True:
        for program, samples in zip(programs, into, strict=True):
            with suppress(OSError):  # it ended by itself, which is told elsewhere
                rss, fds = program.rss(), program.fds()
                samples.seconds.append(time.monotonic() - began)
                samples.rss.append(rss)
                samples.fds.append(fds)
        await asyncio.sleep(EVERY_S)
