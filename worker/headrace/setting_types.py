"""Settings that are more than a number: durability per queue, shares of queues."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from headrace.task import LABEL, LABEL_WORDS


@dataclass(frozen=True)
class Local:
    """Answered when Redis has the task in memory; what a crash of Redis loses is up to its own settings."""

    def __str__(self) -> str:
        return "local"


@dataclass(frozen=True)
class Fsync:
    """Answered when the task is on Redis' disk."""

    def __str__(self) -> str:
        return "fsync"


@dataclass(frozen=True)
class Replicated:
    """Answered when this many replicas have the task."""

    replicas: int

    def __str__(self) -> str:
        return f"replicated:{self.replicas}"


Durability = Local | Fsync | Replicated


def parse_durability(given: str) -> Durability:
    """`local`, `fsync` or `replicated:N` with N from 1 to 9. Raises ValueError."""
    word = given.strip().lower()
    if word == "local":
        return Local()
    if word == "fsync":
        return Fsync()
    if match := re.fullmatch(r"replicated:([1-9])", word):
        return Replicated(int(match[1]))
    raise ValueError(f"{given.strip()!r} is not one of local, fsync, replicated:1 … replicated:9")


T = TypeVar("T")


class PerQueue(Mapping[str, T], Generic[T]):
    """Queue → something. A queue that is not named has that of `default`."""

    def __init__(self, default: T, named: Mapping[str, T]) -> None:
        self._named = {"default": default, **named}

    def __getitem__(self, queue: str) -> T:
        return self._named.get(queue) or self._named["default"]

    def __contains__(self, queue: object) -> bool:
        return isinstance(queue, str)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __str__(self) -> str:
        return ",".join(f"{queue}={value}" for queue, value in self._named.items())

    __repr__ = __str__


class Durabilities(PerQueue[Durability]):
    """Queue → durability."""

    def __init__(self, named: Mapping[str, Durability]) -> None:
        super().__init__(Local(), named)

    @classmethod
    def parse(cls, given: str) -> Durabilities:
        """One word for all queues, or `orders=fsync,default=local`. Raises ValueError."""
        if "=" not in given:
            return cls({"default": parse_durability(given)})
        return cls({queue: parse_durability(word) for queue, word in _pairs(given, "=")})


SUSPECTS: Final = ("run", "leave", "only")


class SuspectRules(PerQueue[str]):
    """Queue → what a worker does about suspects: tasks that were running when their worker died."""

    def __init__(self, named: Mapping[str, str]) -> None:
        super().__init__("run", named)

    @classmethod
    def parse(cls, given: str) -> SuspectRules:
        """One word for all queues, or `mail=only,default=leave`. Raises ValueError."""
        named = dict(_pairs(given, "=")) if "=" in given else {"default": given.strip()}
        for word in named.values():
            if word not in SUSPECTS:
                raise ValueError(f"{word!r} is not one of {', '.join(SUSPECTS)}")
        return cls(named)


class QueueShare(NamedTuple):
    """A queue that a worker serves, and its share of the claims while several queues have work."""

    name: str
    weight: int = 1


def parse_queues(given: str) -> tuple[QueueShare, ...]:
    if not given.strip():
        raise ValueError("Name at least one queue")
    shares = []
    for queue, weight in _pairs(given, "=", "1"):
        if not re.fullmatch(r"[1-9][0-9]{0,2}", weight):
            raise ValueError(f"The weight of queue {queue!r} is {weight!r}; give a whole number from 1 to 999")
        shares.append(QueueShare(queue, int(weight)))
    return tuple(shares)


def _pairs(given: str, sign: str, missing: str = "") -> list[tuple[str, str]]:
    """`a=1,b=2` as pairs, each name a queue's and named once."""
    seen: dict[str, str] = {}
    for part in given.split(","):
        queue, found, value = (piece.strip() for piece in part.partition(sign))
        if not re.fullmatch(LABEL, queue):
            raise ValueError(f"{queue!r} is not a queue's name; allowed is {LABEL_WORDS}")
        if queue in seen:
            raise ValueError(f"Queue {queue!r} is named twice; name it once")
        seen[queue] = value if found else missing
    return list(seen.items())
