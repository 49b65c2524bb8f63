"""How many tasks are where, as /api/v1/stats and the stream of events show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace.broker.broker import Depth

from .answers import QueueCounts, Stats
from .overview import Overview


def stats_of(seen: Overview, covers: Callable[[str], bool]) -> Stats:
    """The counts of the queues that are covered, and their sums."""
    queues = {name: _counts(depth) for name, depth in seen.depths.items() if covers(name)}
    sums = {name: sum(getattr(each, name) for each in queues.values()) for name in _SUMMED}
    return Stats(**sums, workers=len(seen.active), queues=queues)


_SUMMED: Final = [name for name in QueueCounts.__struct_fields__ if name != "paused"]


def _counts(depth: Depth) -> QueueCounts:
    return QueueCounts(
        pending=depth.waiting,
        processing=depth.processing,
        completed=depth.ended("completed"),
        failed=depth.ended("failed"),
        cancelled=depth.ended("cancelled"),
        scheduled=depth.delayed,
        parked=depth.parked,
        dead_letters=depth.dead,
        paused=depth.paused,
    )
