"""Threads for synchronous handlers.

`loop.run_in_executor` costs 15 µs a task: a lock, two futures and a wake-up of the loop each. Here one queue feeds the
threads, their results gather in a deque, and the loop is woken once for all that ended meanwhile.
"""

from __future__ import annotations

import logging
import threading
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Any

from headrace.runtime.reconnect import Voice

logger = logging.getLogger("headrace.worker")

Work = Callable[[], object]
Done = Callable[[Any, BaseException | None], None]
"""Gets the result and None, or None and what was raised. Runs in the event loop."""


class ThreadSlots:
    """Up to `size` daemon threads, started as they are needed. To be used from the event loop.

    Each call has a context of its own: a context variable that one handler sets is not seen by the next. A thread
    cannot be stopped. Whoever gives a handler up submits that much less, and no thread takes its place; if the handler
    ends after all, `done` is called as ever and the thread is free again.
    """

    def __init__(self, loop: AbstractEventLoop, size: int, name: str = "headrace-slot") -> None:
        self._loop = loop
        self._size = size
        self._name = name
        self._jobs: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._ended: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._threads: list[threading.Thread] = []
        self._outstanding = 0
        self._voice = Voice()
        self._woken = False
        self._closed = False

    def submit(self, work: Work, done: Done) -> None:
        """Run `work()` in a thread as soon as one is free, then `done(result, error)` in the loop."""
        self._jobs.put((work, done))
        self._outstanding += 1
        if len(self._threads) < min(self._outstanding, self._size):
            self._start_thread()

    def outcome(self, work: Work) -> Future[tuple[Any, BaseException | None]]:
        """What `done` would get. If it is cancelled before the work begins, that does not begin."""
        outcome: Future[tuple[Any, BaseException | None]] = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if not outcome.done():
                outcome.set_result((result, error))

        self.submit(lambda: None if outcome.done() else work(), done)
        return outcome

    def close(self) -> None:
        """End the threads that are idle, and the others when their handlers end; waits for none, calls no `done`."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)

    def _start_thread(self) -> None:
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # as where a container may have no more; the next task tries again
            if self._voice.may_speak(self._loop.time()):
                text = "there are %d threads for handlers, for another one could not start: %s"
                logger.warning(text, len(self._threads), error)
            if not self._threads:
                self._refuse_last(error)
        else:
            self._threads.append(thread)

    def _refuse_last(self, error: RuntimeError) -> None:
        """Nobody is there who would ever take it."""
        job = self._jobs.get_nowait()
        assert job is not None
        self._ended.append((job[1], None, error))
        self._loop.call_soon(self._deliver)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result, error = None, None
            try:
                result = Context().run(work)
            except BaseException as raised:  # also SystemExit: it ends the attempt, not the thread
                error = raised
            self._ended.append((done, result, error))
            if not self._woken and not self._wake():
                return
            # An idle thread must not keep the last task's objects alive.
            del job, work, done, result, error

    def _wake(self) -> bool:
        """Have the loop look at what ended. False if nobody wants to know any more."""
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed
            if self._closed:
                return False
            raise
        return True

    def _deliver(self) -> None:
        # First the flag, then the look: what ends from here on wakes the loop again.
        self._woken = False
        ended = self._ended
        try:
            while ended:
                done, result, error = ended.popleft()
                self._outstanding -= 1
                if not self._closed:
                    done(result, error)
        finally:
            if ended:  # a `done` raised; the others must not wait for the next task to end
                self._loop.call_soon(self._deliver)
