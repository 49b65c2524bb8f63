"""Virtual time, and who runs next.

One thing runs at a time: a turn of an event loop, a stretch of a thread, or what arrives on a connection. Among those
that could run the seed chooses; when nobody can, time goes on to the next moment at which somebody could.

Within a loop callbacks keep their order, for asyncio promises it and programs may rely on it. What the order of
callbacks depends on in reality, the arrival of bytes and the time that others take, is drawn.
"""

from __future__ import annotations

import heapq
import itertools
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

EPOCH: Final = 1_800_000_000.0
"""Unix time at the world's time 0."""
TURN_S: Final = 2e-5
"""The longest time that a turn takes, so that whoever waits in a circle does not wait for ever."""
KEPT_LINES: Final = 400

Action = Callable[[], object]


class Actor(Protocol):
    """Who can be run: a loop or a thread of a process."""

    def is_ready(self, now: float) -> bool: ...

    def next_at(self) -> float:
        """When it can run if nothing happens before; infinity if never."""

    def turn(self) -> None: ...

    def close(self) -> None:
        """The world has ended."""


class Server(Protocol):
    """Who accepts connections at an address."""

    def accept(self, link: Any) -> Any:
        """Its end of a new connection; None if it refuses it."""


class StuckError(AssertionError):
    """What was waited for did not come, although there was time enough."""


class Process:
    """A simulated process: loops, threads, connections. It can be killed and frozen."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.frozen = False
        self.skew_s = 0.0
        """Its clock is ahead by so much."""
        self.actors: list[Actor] = []
        self.links: list[Any] = []
        """Its ends of connections, in the order in which they were made."""
        self.addresses: list[tuple[str, int]] = []
        self.on_exit: Action = lambda: None
        self.main: Any = None
        """Its main task; who is dead must not be collected, for that would run what stands behind `finally`."""

    def kill(self) -> None:
        """It is gone, in the middle of whatever it did; what it had sent may still arrive."""
        if not self.alive:
            return
        self.alive = False
        for address in self.addresses:
            self.world.servers.pop(address, None)
        for link in list(self.links):
            link.vanish()
        self.world.note(f"{self.name} is gone")
        self.on_exit()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False


@dataclass
class World:
    """All processes of one run."""

    seed: int
    now: float = 1_000.0
    processes: list[Process] = field(default_factory=list)
    servers: dict[tuple[str, int], Server] = field(default_factory=dict)
    current: Process | None = None
    """Whose code runs."""
    thread: Any = None
    """The simulated thread that runs."""
    errors: list[str] = field(default_factory=list)
    """What no program may do, such as a callback that raises."""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    """What happened last, for people."""
    steps: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.dice = self.dice_of("scheduler")
        self._events: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()
        self._links = itertools.count(1)

    # what others use

    def dice_of(self, name: str) -> Random:
        """Dice of one part, so that what another part draws does not change what this one does."""
        return Random(f"{self.seed} {name}")

    def process(self, name: str) -> Process:
        """A new process, without a loop yet."""
        made = Process(self, name)
        self.processes.append(made)
        return made

    def next_link(self) -> int:
        return next(self._links)

    def after(self, seconds: float, action: Action) -> None:
        """Have this done then."""
        self.at(self.now + seconds, action)

    def at(self, moment: float, action: Action) -> None:
        """What is to be done at the same moment is done in the order in which it was said."""
        heapq.heappush(self._events, (moment, next(self._numbers), action))

    def wall(self) -> float:
        """Unix time by the clock of whoever asks."""
        return EPOCH + self.now + (self.current.skew_s if self.current else 0.0)

    def note(self, line: str) -> None:
        self.lines.append(f"{self.now:10.4f} {line}")

    def fault(self, said: str, error: BaseException | None = None) -> None:
        """Something that must not be; the run fails with it."""
        if self.closed:
            return
        where = "".join(traceback.format_exception(error)) if error is not None else ""
        self.errors.append(f"{said}\n{where}".rstrip())

    # running

    def run(self, until: Callable[[], bool], limit_s: float, what: str) -> None:
        """Go on until that is so. Raises StuckError after `limit_s` of virtual time, AssertionError at a fault."""
        end = self.now + limit_s
        look_at = self.now
        while self.now < end:
            if self.now >= look_at:
                if until():
                    return
                look_at = self.now + 0.1
            if not self._step():
                break
            if self.errors:
                raise AssertionError(self.errors[0])
        if not until():
            raise StuckError(f"{what} within {limit_s:g} s did not come to be")

    def _step(self) -> bool:
        """One thing runs, or time goes on. False if there is nothing left to happen."""
        self.steps += 1
        able = [each for each in self._actors() if each[1].is_ready(self.now)]
        due = bool(self._events) and self._events[0][0] <= self.now
        chosen = self.dice.randrange(len(able) + due) if able or due else -1
        if 0 <= chosen < len(able):
            self._turn(*able[chosen])
        elif due:
            heapq.heappop(self._events)[2]()
        else:
            return self._go_on()
        return True

    def _actors(self) -> list[tuple[Process, Actor]]:
        return [(p, actor) for p in self.processes if p.alive and not p.frozen for actor in p.actors]

    def _turn(self, process: Process, actor: Actor) -> None:
        self.current = process
        try:
            actor.turn()
        finally:
            self.current = None
        self.now += self.dice.random() * TURN_S

    def _go_on(self) -> bool:
        moments = [actor.next_at() for _, actor in self._actors()]
        if self._events:
            moments.append(self._events[0][0])
        then = min(moments, default=float("inf"))
        if then == float("inf"):
            return False
        self.now = max(self.now, then)
        return True

    def close(self) -> None:
        """End all of it, without a word."""
        self.closed = True
        for process in self.processes:
            for actor in list(process.actors):
                actor.close()
        self.processes.clear()
        self.servers.clear()
        self._events.clear()
