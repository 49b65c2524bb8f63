"""Who decides how many pods there are."""

from __future__ import annotations

from random import Random
from typing import Protocol

from bench.autoscaling.pool import Pool


class Policy(Protocol):
    """One way to scale."""

    def attach(self, pool: Pool, random: Random) -> None:
        """Take over a pool that is about to run. `random`: for the phase of its clocks."""
