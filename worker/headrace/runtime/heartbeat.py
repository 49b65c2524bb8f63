"""Shows Redis that this worker lives, from a thread: a handler that blocks the event loop is slow, not dead.

The thread has a connection of its own with short time-outs, keeps its own monotonic schedule, and outlives every fault
of Redis. What it learns is handed to the event loop. A C call that holds the GIL stops it too: then other workers take
over, and this one's reports are refused.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from traceback import walk_stack
from typing import Final

from headrace.broker.broker import Beat, Queue
from headrace.broker.client import BlockingClient
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings

logger = logging.getLogger("headrace.worker")

ANSWER_S: Final = 2.0
"""A beat without an answer is given up after so many seconds, for the next one."""
BLOCKED_S: Final = 5.0
"""An event loop that does not answer for so many seconds is said to be blocked, and by what."""
PLACES: Final = 4
"""So many frames are named: the innermost one is often a library's."""


class Heartbeat:
    """Beats in every queue each `beat_s` seconds, between `start` and `stop`.

    `on_beat(queue, beat)` and `on_error(error)` run in the event loop. `info`, which may be replaced at any time, is
    the worker's description as JSON; every beat carries it, because whoever took this worker for dead deleted it.
    """

    def __init__(
        self,
        settings: RedisSettings,
        queues: Sequence[Queue],
        worker: str,
        info: bytes,
        beat_s: float,
        on_beat: Callable[[str, Beat], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.info = info
        self.loads: Mapping[str, str] = {}
        """Queue → what follows the counter: `WorkerBeat.load`. May be replaced at any time."""
        self._queues = tuple(queues)
        self._worker = worker
        self._beat_s = beat_s
        self._on_beat = on_beat
        self._on_error = on_error
        short = min(settings.timeout_s, ANSWER_S)
        self._client = BlockingClient(replace(settings, timeout_s=short, connect_timeout_s=short))
        self._counter = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._answered = -float("inf")
        self._stopping = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Event | None = None
        self._loop_watch: _LoopWatch | None = None

    # the event loop's side

    @property
    def started(self) -> bool:
        """Whether every queue has had a beat: nothing should be claimed before."""
        return self._answered > 0

    def answered_within(self, seconds: float) -> bool:
        """Whether Redis answered a beat in these last seconds."""
        return time.monotonic() - self._answered <= seconds

    async def start(self) -> None:
        """Beat from now on; returns when every queue has had a beat. After an error (HeadraceError) call it again."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._ended = asyncio.Event()
            self._loop_watch = _LoopWatch()
            self._thread = threading.Thread(target=self._work, name="headrace-heartbeat", daemon=True)
            self._thread.start()
        await self.beat_now()

    async def beat_now(self) -> None:
        """One beat out of turn. Raises what went wrong with it: a HeadraceError."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        self._wake.set()
        await waiter

    def end(self) -> None:
        """Begin no other beat."""
        self._stopping = True
        self._wake.set()

    async def stop(self, within_s: float) -> None:
        """Beat no more; returns when the last one is through, so that the worker can sign off.

        One that is not through `within_s` is left to its thread, which ends with it or with the process.
        """
        self.end()
        if self._ended is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._ended.wait()
        for waiter in self._take_waiters():
            waiter.cancel()

    # the thread's side

    def _work(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            self._round()
            now = time.monotonic()
            due = max(due + self._beat_s, now)  # what was missed is not made up for
            if not self._stopping:  # it may have been set before the round cleared the event
                self._wake.wait(due - now)
        self._client.close()
        assert self._ended is not None
        self._tell(self._ended.set)

    def _round(self) -> None:
        assert self._loop_watch is not None
        self._wake.clear()
        waiters = self._take_waiters()
        self._counter += 1
        failure = self._beat_everywhere()
        if failure is None:
            self._answered = time.monotonic()
        if waiters:
            self._tell(_resolve, waiters, failure)
        self._loop_watch.look(self._tell)

    def _beat_everywhere(self) -> Exception | None:
        failure: Exception | None = None
        for queue in self._queues:
            try:
                beat = self._client.call(
                    queue.beat(self._worker, f"{self._counter} {self.loads.get(queue.name, '')}", self.info)
                )
            except Exception as error:  # whatever it is: the beats must go on
                failure = error
                self._client.close()  # a late answer must not become the next beat's
                self._tell(self._on_error, error)
                if isinstance(error, StoreUnavailable):
                    break
            else:
                self._tell(self._on_beat, queue.name, beat)
        return failure

    def _take_waiters(self) -> list[asyncio.Future[None]]:
        """Each is taken once, though loop and thread may come here at the same time."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._waiters.popleft())
        return taken

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody is left to beat for
            self._stopping = True


def _resolve(waiters: list[asyncio.Future[None]], failure: Exception | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(failure)


class _LoopWatch:
    """Asks the loop for an echo at a beat; when none comes, says which line of code keeps it from answering.

    Looks come from the thread that beats, so they never wait: not for the log, which may be what the loop hangs in,
    and not for the disk that holds the source.
    """

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._asked: float | None = None
        """When the echo was asked for that has not come."""
        self._warned = False

    def look(self, tell: Callable[..., None]) -> None:
        asked = self._asked
        if asked is None:
            self._warned = False
            self._asked = time.monotonic()
            tell(self._echo)
        elif not self._warned and (silent_s := time.monotonic() - asked) >= BLOCKED_S:
            self._warned = True
            with suppress(RuntimeError):  # no thread to be had: it stays unsaid
                threading.Thread(target=_say_blocked, args=(silent_s, self._place()), daemon=True).start()

    def _echo(self) -> None:
        self._asked = None

    def _place(self) -> str:
        frame = sys._current_frames().get(self._thread_id)
        if frame is None:
            return "an unknown place"
        innermost_first = islice(walk_stack(frame), PLACES)
        return ", called from ".join(
            f"{each.f_code.co_filename}:{line} in {each.f_code.co_name}" for each, line in innermost_first
        )


def _say_blocked(seconds: float, place: str) -> None:
    logger.warning(
        "The event loop has been blocked for %.0f s, so nothing else runs in this worker. It is at %s. "
        "Write the handler as `def` instead of `async def` to give it a thread, or await there.",
        seconds,
        place,
    )
