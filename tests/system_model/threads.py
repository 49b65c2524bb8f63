"""Threads of simulated processes: real ones, of which never more than one runs, and only when it is their turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from .world import World

T = TypeVar("T")
NEVER = float("inf")


class _VanishedError(BaseException):
    """Raised in a thread whose world has ended."""


class Thread:
    """As threading.Thread. Its process runs it between two turns of its loops."""

    def __init__(
        self, world: World, *, target: Callable[..., object], name: str = "", daemon: bool = True, args: Any = ()
    ) -> None:
        assert world.current is not None, "started by a process"
        self.world = world
        self.name = name
        self._process = world.current
        self._target = partial(target, *args)
        self._ready: Callable[[], bool] = lambda: True
        self._deadline = NEVER
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._doomed = False
        self._real = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._process.actors.append(self)
        self._real.start()

    def _main(self) -> None:
        self._go.acquire()
        try:
            if not self._doomed:
                self._target()
        except _VanishedError:
            pass
        except BaseException as error:
            self.world.fault(f"{self._process.name}: thread {self.name}", error)
        finally:
            self._process.actors.remove(self)
            self._back.release()

    def block(self, ready: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Called by the thread itself: others run until `ready` says so, or the time is up. Returns what it says."""
        if self._doomed:
            raise _VanishedError
        self._ready = ready
        self._deadline = NEVER if timeout_s is None else self.world.now + timeout_s
        self._back.release()
        self._go.acquire()
        if self._doomed:
            raise _VanishedError
        return ready()

    # the world's side

    def is_ready(self, now: float) -> bool:
        return now >= self._deadline or self._ready()

    def next_at(self) -> float:
        return self._deadline

    def turn(self) -> None:
        self.world.thread = self
        try:
            self._go.release()
            self._back.acquire()
        finally:
            self.world.thread = None

    def close(self) -> None:
        """Let the real thread end."""
        self._doomed = True
        self.turn()
        self._real.join(5)


class Event:
    """As threading.Event, for one waiting thread."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        return bool(self._world.thread.block(self.is_set, timeout))


class Queue(Generic[T]):
    """As queue.SimpleQueue, read by threads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        self._items.append(item)

    def get(self) -> T:
        while not self._items:
            self._world.thread.block(lambda: bool(self._items))
        return self._items.popleft()


class QueueType:
    """In the place of queue.SimpleQueue, which is also written SimpleQueue[…]."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self) -> Queue[Any]:
        return Queue(self._world)

    def __getitem__(self, _: object) -> QueueType:
        return self


def module(world: World) -> SimpleNamespace:
    """In the place of the module `threading`."""
    return SimpleNamespace(
        Thread=partial(Thread, world), Event=partial(Event, world), get_ident=threading.get_ident, Lock=threading.Lock
    )
