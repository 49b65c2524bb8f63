"""What goes into a reclaim and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .replies import MAX_ITEMS


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Whose tasks to take, and how far."""

    worker: str
    seen: str
    """The beat that did not change for the TTL; '' = none was seen; '*' = the worker is proven dead."""
    nonce: str
    cause: str = "its worker stopped beating"
    max_crashes: int = 3
    backoff_ms: int = 5_000
    limit: int = MAX_ITEMS


class Buried(NamedTuple):
    """A task that a reclaim sent to the dead letter."""

    id: str
    type: str
    """'' if its envelope cannot be read: it is no crash that buried it then."""
    crashes: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What became of a dead worker's tasks."""

    what: str
    """alive (its beat changed), marked (no beat yet), moved (call again), done."""
    taken: int = 0
    """Entries that are no longer the worker's."""
    handed_on: tuple[str, ...] = ()
    """Ids of those that go on."""
    buried: tuple[Buried, ...] = ()

    def __add__(self, later: Reclaimed) -> Reclaimed:
        """Both calls together."""
        return Reclaimed(
            later.what, self.taken + later.taken, self.handed_on + later.handed_on, self.buried + later.buried
        )


def parse_reclaimed(reply: list[Any]) -> Reclaimed:
    what, taken, handed_on, buried = reply
    dead = tuple(
        Buried(id_.decode(), type_.decode(errors="replace"), int(crashes))
        for id_, type_, crashes in zip(buried[::3], buried[1::3], buried[2::3], strict=True)
    )
    return Reclaimed(what.decode(), taken, tuple(id_.decode() for id_ in handed_on), dead)
