"""What a scaler reads: how much of a queue wants to run, and who works in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from headrace.broker.keys import SUSPECTS


@dataclass(frozen=True, slots=True)
class TypeTime:
    """One type in one queue: its share of the attempts that began lately, and the mean seconds of those that ended."""

    name: str
    share: float
    seconds: float | None = None
    """None until one ended."""

    def text(self) -> str:
        mean = "-" if self.seconds is None else f"{self.seconds * 1_000:.3f}"
        return f"{self.name}={mean}:{self.share * 1_000:.0f}"


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """What a worker says of itself with each beat: `<counter> <tasks it runs> <d or -> <mean ms> <type>=<ms>:<‰> …`.

    The means are of the queue that the beat is in, and of its commonest types. Older workers say less.
    """

    counter: int
    running: int = 1
    """Tasks; 1 for a worker too old to say: who is not known to be idle counts as busy."""
    draining: bool = False
    """It claims no more."""
    mean_s: float | None = None
    """Of the tasks it ran lately; None before the first one."""
    types: tuple[TypeTime, ...] = ()

    def text(self) -> str:
        return f"{self.counter} {self.load()}"

    def load(self) -> str:
        """What follows the counter."""
        text = f"{self.running} {'d' if self.draining else '-'}"
        if self.mean_s is None:
            return text
        return " ".join([text, f"{self.mean_s * 1_000:.3f}", *(each.text() for each in self.types)])


MOST_MS: Final = 366 * 24 * 3_600 * 1_000
"""No task takes longer."""
LATEST_MS: Final = 1 << 52
"""No time by a clock is later."""


def parse_beat(text: str) -> WorkerBeat:
    """A beat of any age; what cannot be read counts as busy, and a figure that cannot be meant as not said."""
    parts = text.split()
    try:
        counter = int(parts[0])
        if len(parts) < 3:
            return WorkerBeat(counter)
        running = _count(parts[1])
    except (ValueError, IndexError):
        return WorkerBeat(0)
    mean_s = _seconds(parts[3]) if len(parts) > 3 else None
    types = tuple(each for each in map(_type_time, parts[4:]) if each is not None)
    return WorkerBeat(counter, running, parts[2] == "d", mean_s, types)


def _type_time(text: str) -> TypeTime | None:
    name, _, figures = text.partition("=")
    mean, _, share = figures.partition(":")
    try:
        return TypeTime(name, _count(share, 1_000) / 1_000, _seconds(mean))
    except ValueError:
        return None


def _count(text: str, most: int = 1_000_000) -> int:
    """Raises ValueError for what is none, or none that could be meant."""
    if 0 <= (count := int(text)) <= most:
        return count
    raise ValueError(f"{count} is not from 0 to {most}")


def _seconds(ms: str) -> float | None:
    """None for what is none, or none that could be meant."""
    try:
        return float(ms) / 1_000 if 0 <= float(ms) <= MOST_MS else None  # and so for nan
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a queue."""

    waiting: int = 0
    processing: int = 0
    oldest_s: float = 0.0


NO_BEAT: Final = -1
"""A counter below all."""


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
    suspects: Part = Part()
    """Of all these, the tasks that were running when their worker died."""
    plain_oldest_s: float = 0.0
    """As `oldest_s`, of all others."""

    def answered(self, worker: str) -> bool:
        """Whether a beat of it, later than the request to drain, says that it claims no more.

        One from before tells nothing: it may have been released since, and claim again.
        """
        beat = self.workers[worker]
        return beat.draining and beat.counter > self.asked_at.get(worker, NO_BEAT)


class GroupMissingError(ValueError):
    """A stream has lost its consumer group: that is a fault, and never an empty queue."""


_NOW: Final = 5
"""Where a reply tells its time."""


def parse_demand(reply: list[Any]) -> Demand:
    rows, delayed, due_soon, parked, paused, now, beats, asked = reply
    now_ms = int(now)
    waiting = processing = 0
    oldest_s, suspects = 0.0, Part()
    for digit, length, pending, oldest in zip(*(iter(rows),) * 4, strict=True):
        if pending == b"":
            raise GroupMissingError(f"the stream {digit.decode()} of this queue has lost its consumer group")
        waiting += length - pending
        processing += pending
        age_s = (now_ms - int(oldest.partition(b"-")[0])) / 1_000 if oldest else 0.0
        if digit == SUSPECTS.encode():
            suspects = Part(length - pending, pending, max(0.0, age_s))
        else:
            oldest_s = max(oldest_s, age_s)
    if waiting < 0:
        raise GroupMissingError("a stream holds fewer entries than its consumers: something foreign deleted some")
    drain = {name: _asked(text, now_ms) for name, text in _pairs(asked)}
    return Demand(
        waiting, processing, delayed, due_soon, parked, max(oldest_s, suspects.oldest_s), bool(paused),
        {name: parse_beat(text) for name, text in _pairs(beats)},
        {name: seconds for name, (seconds, _) in drain.items()},
        {name: counter for name, (_, counter) in drain.items()}, suspects, oldest_s,
    )  # fmt: skip


def _asked(text: str, now_ms: int) -> tuple[float, int]:
    """Seconds since a worker was asked to drain, and the counter of its beat before that: `<ms> <counter>`.

    What cannot be read says no more than that it was asked: as if now, and before any beat.
    """
    parts = text.split()
    try:
        return (now_ms - _count(parts[0], LATEST_MS)) / 1_000, int(parts[1]) if len(parts) > 1 else NO_BEAT
    except (ValueError, IndexError):
        return 0.0, NO_BEAT


class Unchanged:
    """Reads one queue's replies, look by look: the very Demand of before, while nothing has changed.

    Nearly all queues are so nearly always, and a thousand of them are looked at each second.
    """

    __slots__ = ("_demand", "_reply")

    def __init__(self) -> None:
        self._reply: list[Any] | None = None
        self._demand: Demand | None = None

    def __call__(self, reply: list[Any]) -> Demand:
        """As `parse_demand`. Raises GroupMissingError as it does."""
        timeless = [*reply[:_NOW], *reply[_NOW + 1 :]]
        if self._demand is not None and timeless == self._reply:
            return self._demand
        demand = parse_demand(reply)
        grows = demand.oldest_s or demand.asked
        self._reply, self._demand = (None, None) if grows else (timeless, demand)
        return demand


def _pairs(flat: list[bytes]) -> list[tuple[str, str]]:
    texts = [each.decode(errors="replace") for each in flat]
    return list(zip(texts[::2], texts[1::2], strict=True))
