"""Looking through the tasks of one queue: what `scan` is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from .replies import Found, parse_found

ALL_SOURCES: Final = ("z", "p", "wr", "ws", "w3", "w2", "w1", "w0", "cr", "cs", "c3", "c2", "c1", "c0", "d", "j")
"""Where tasks lie, in the order in which a list goes through them; `w` and `c` are what waits and what is claimed."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Where to look, from where on, how far, and what is sure not to be wanted."""

    sources: tuple[str, ...] = ALL_SOURCES
    source: str = ""
    """'' = from the first one on."""
    position: bytes = b""
    as_of_ms: int | None = None
    """What came to a stream after that is left out, so that a task which moved there does not come twice."""
    want: int = 100
    """Tasks to return at most."""
    cost: int = 1_000
    """Tasks to look at, at most; one over 4 KiB counts as several."""
    since_ms: int = 0
    until_ms: int | None = None
    states: tuple[str, ...] = ()
    """Of `z` and `j`, which hold tasks of several states."""
    payloads: bool = False
    words: tuple[str, ...] = ()
    """All of them are in the envelope of a task that is wanted."""
    values: tuple[str, ...] = ()
    """All of them are in its payload. (What has escapes like \\u0061 in it may be wanted whatever it holds.)"""
    signs: tuple[str, ...] = ()
    """All of them, in lower case, are in its N."""

    def args(self) -> list[bytes | str | int]:
        """The arguments of the script."""
        return [
            " ".join(self.sources),
            self.source,
            self.position,
            "" if self.as_of_ms is None else self.as_of_ms,
            self.want,
            self.cost,
            self.since_ms,
            "" if self.until_ms is None else self.until_ms,
            f",{','.join(self.states)},",
            int(self.payloads),
            len(self.words),
            len(self.values),
            *self.words,
            *self.values,
            *self.signs,
        ]


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found, and where to go on."""

    as_of_ms: int
    source: str
    """'' = there is no more."""
    position: bytes
    looked: int
    cost: int
    found: list[tuple[str, Found]]
    """Ids and what lies there. Large payloads (unless they were asked for), results and past attempts are left out."""


def parse_scanned(reply: list[Any]) -> Scanned:
    """The answer to a scan."""
    as_of, source, position, looked, cost, rows = reply
    found = [(row[0].decode(errors="replace"), where) for row in rows if (where := parse_found(row[1:])) is not None]
    return Scanned(int(as_of), source.decode(), position, looked, cost, found)
