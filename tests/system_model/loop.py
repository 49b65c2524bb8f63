"""The event loop of a simulated process: asyncio's own, without a selector, one turn at a time."""

from __future__ import annotations

import asyncio
import errno
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .net import Link, LoopServer, Transport, latency
from .world import Process

R = TypeVar("R")
Factory = Callable[[], Any]


class Loop(asyncio.BaseEventLoop):
    """Runs when the world says so, by the world's time."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process
        self.world = process.world
        self.dice = self.world.dice_of(f"{process.name} loop {len(process.actors)}")
        self.set_exception_handler(self._told)
        process.actors.append(self)

    def _told(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self.process.alive:
            said = f"{self.process.name}: {context.get('message')} {context.get('handle') or context.get('task') or ''}"
            self.world.fault(said, context.get("exception"))

    # the world's side

    def is_ready(self, now: float) -> bool:
        return bool(self._ready) or self.next_at() <= now

    def next_at(self) -> float:
        timers = self._scheduled
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
        return timers[0].when() if timers else float("inf")

    def turn(self) -> None:
        """As BaseEventLoop._run_once: timers that are due, then all that was ready when it began."""
        while self.next_at() <= self.time():
            self._ready.append(heapq.heappop(self._scheduled))
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(self._ready)):
                if not self.process.alive:
                    break
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        """Its tasks end where they stand, and nobody is told of it."""
        if self.is_closed():
            return
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined] # private, and what asyncio itself uses
        super().close()
        if self in self.process.actors:
            self.process.actors.remove(self)

    # the program's side

    def time(self) -> float:
        return self.world.now

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def run_in_executor(self, executor: Any, func: Callable[..., R], *args: Any) -> asyncio.Future[R]:  # type: ignore[override]
        """Done at once: nothing that is simulated blocks there."""
        future: asyncio.Future[R] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def create_connection(  # type: ignore[override]
        self, factory: Factory, host: str, port: int, **options: Any
    ) -> tuple[Transport, Any]:
        """To whoever serves that address."""
        await asyncio.sleep(latency(self.dice))
        server = self.world.servers.get((host, port))
        link = Link(self.world, f"{self.process.name} → {host}:{port}")
        end = server.accept(link) if server is not None else None
        if end is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")
        protocol = factory()
        transport = Transport(self, protocol, link)
        link.join(transport, end)
        protocol.connection_made(transport)
        return transport, protocol

    async def create_server(self, factory: Factory, host: str, port: int, **options: Any) -> LoopServer:  # type: ignore[override]
        """Listen on an address of the world."""
        return LoopServer(self, factory, host, port)


class InnerLoop(Loop):
    """The loop of a thread: what it runs, the thread waits for."""

    def run_until_complete(self, work: Any) -> Any:
        task: asyncio.Task[Any] = self.create_task(work)
        self.world.thread.block(task.done)
        return task.result()


def start(process: Process, main: Callable[[], Coroutine[Any, Any, object]]) -> Loop:
    """Give a process its loop and let it run `main`; it exits when that ends."""
    loop = Loop(process)

    def ended(task: asyncio.Task[object]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and process.alive:
            process.world.fault(f"{process.name} ended with an error", error)
        process.kill()

    process.world.current = process
    try:
        process.main = loop.create_task(main())
        process.main.add_done_callback(ended)
    finally:
        process.world.current = None
    return loop
