"""What a scaler reads: how much of a queue wants to run, and who works in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """What a worker says of itself with each beat: `<counter> <tasks it runs> <d or -> <mean ms of a task>`."""

    counter: int
    running: int = 1
    """Tasks; 1 for a worker too old to say: who is not known to be idle counts as busy."""
    draining: bool = False
    """It claims no more."""
    mean_s: float | None = None
    """Of the tasks it ran lately; None before the first one."""

    def text(self) -> str:
        return f"{self.counter} {self.load()}"

    def load(self) -> str:
        """What follows the counter."""
        mean = "" if self.mean_s is None else f" {self.mean_s * 1_000:.3f}"
        return f"{self.running} {'d' if self.draining else '-'}{mean}"


def parse_beat(text: str) -> WorkerBeat:
    """A beat of any age; what cannot be read counts as busy."""
    parts = text.split()
    try:
        counter = int(parts[0])
        if len(parts) < 3:
            return WorkerBeat(counter)
        mean_s = float(parts[3]) / 1_000 if len(parts) > 3 else None
        return WorkerBeat(counter, int(parts[1]), parts[2] == "d", mean_s)
    except (ValueError, IndexError):
        return WorkerBeat(0)


@dataclass(frozen=True, slots=True)
class Demand:
    """One queue at one moment."""

    waiting: int
    """In streams and claimed by nobody, those taken back and suspects with them."""
    processing: int
    delayed: int
    """Scheduled and retrying."""
    due_soon: int
    parked: int
    oldest_s: float
    """Seconds since the oldest waiting entry came; 0 if nothing waits."""
    paused: bool
    workers: dict[str, WorkerBeat]
    asked: dict[str, float]
    """Workers asked to drain → seconds since then."""
    asked_at: dict[str, int] = field(default_factory=dict)
    """Workers asked to drain → the counter of their beat before that."""

    def answered(self, worker: str) -> bool:
        """Whether a beat of it, later than the request to drain, says that it claims no more.

        One from before tells nothing: it may have been released since, and claim again.
        """
        beat = self.workers[worker]
        return beat.draining and beat.counter > self.asked_at.get(worker, -1)


class GroupMissingError(ValueError):
    """A stream has lost its consumer group: that is a fault, and never an empty queue."""


def parse_demand(reply: list[Any]) -> Demand:
    rows, delayed, due_soon, parked, paused, now, beats, asked = reply
    now_ms = int(now)
    waiting = processing = 0
    oldest_s = 0.0
    for digit, length, pending, oldest in zip(*(iter(rows),) * 4, strict=True):
        if pending == b"":
            raise GroupMissingError(f"the stream {digit.decode()} of this queue has lost its consumer group")
        waiting += length - pending
        processing += pending
        if oldest:
            oldest_s = max(oldest_s, (now_ms - int(oldest.partition(b"-")[0])) / 1_000)
    if waiting < 0:
        raise GroupMissingError("a stream holds fewer entries than its consumers: something foreign deleted some")
    return Demand(
        waiting, processing, delayed, due_soon, parked, oldest_s, bool(paused),
        {name: parse_beat(text) for name, text in _pairs(beats)},
        {name: (now_ms - int(at.split()[0])) / 1_000 for name, at in _pairs(asked)},
        {name: int(at.split()[1]) for name, at in _pairs(asked) if " " in at},
    )  # fmt: skip


def _pairs(flat: list[bytes]) -> list[tuple[str, str]]:
    texts = [each.decode(errors="replace") for each in flat]
    return list(zip(texts[::2], texts[1::2], strict=True))
