"""Child processes for CPU-bound handlers (`process=True`): they leave the worker's loop and threads alone, and can be
killed when a handler does not end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

import msgspec

from headrace.logs import JsonFormatter, TextFormatter
from headrace.runtime.frames import Answer, Hello, ProcessJob, Stop, Unframer, frame
from headrace.runtime.raised import HandlerFailed, to_error
from headrace.task import Failure, Progress

__all__ = ["HandlerFailed", "ProcessDied", "ProcessJob", "ProcessSlots"]

logger = logging.getLogger("headrace.worker")

CANCEL_S: Final = 2.0
"""A handler that was cancelled has so long to clean up; then its process is killed."""
START_S: Final = 60.0
"""A child that has not imported the application by then is given up."""
CLOSE_S: Final = 5.0
"""Idle children have so long to leave their deps when the worker stops."""
LAST_WORDS_S: Final = 0.2
"""What a child wrote before it ended arrives within that; its own children may keep the pipe open for ever."""
PIPE_S: Final = 1.0
"""A child that closed its pipe, which it needs, is killed unless it ends by itself within that."""
STOPPED: Final = "killed because its worker stops"
_HINTS: Final = {
    signal.SIGKILL: ": out of memory, or killed by hand",
    signal.SIGSEGV: ": a fault in native code, see standard error",
}
_answer: Final = msgspec.json.Decoder(Answer).decode


class ProcessDied(Exception):  # noqa: N818 - named for the outcome, as the errors of headrace are
    """The process ended before the attempt did. `str` is a sentence with exit code or signal."""

    def __init__(self, cause: str, reason: str = "") -> None:
        super().__init__(cause)
        self.reason = reason
        """`timeout` if it was killed for that."""
        self.failure = Failure(type(self).__name__, cause, reason=reason)
        """The same as texts. A traceback would only show where the worker waited."""


class ProcessSlots:
    """Up to `size` children of this process that have imported `app_path` (`module` or `module:attribute`).

    They start when they are needed, and one that dies is replaced. To be used from the event loop.
    """

    def __init__(self, app_path: str, size: int) -> None:
        self._app_path = app_path
        self._size = size
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []
        self._waiting: dict[ProcessJob, asyncio.Future[_Child]] = {}
        self._running: dict[ProcessJob, _Child] = {}
        self._starts: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, job: ProcessJob, on_progress: Callable[[Progress], None] = lambda progress: None) -> bytes:
        """The handler's result as JSON; meanwhile `on_progress` gets what it says of its progress.

        Raises HandlerFailed, or ProcessDied. A cancelled call kills the process.
        """
        child = self._idle_child() or await self._wait(job)
        self._running[job] = child
        child.served = True
        try:
            answer = await child.ask(job, on_progress)
        except asyncio.CancelledError:
            child.kill(STOPPED)
            raise
        finally:
            del self._running[job]
            self._offer(child)
        if answer.failure is not None:
            raise to_error(answer)
        return bytes(answer.result)

    def warn(self, job: ProcessJob) -> None:
        """The handler's `ctx.cancelled` becomes true; if it waits for a process, as soon as it begins."""
        if job in self._waiting:
            self._waiting[job].add_done_callback(lambda _: self.warn(job))
        elif job in self._running:
            self._running[job].tell(Stop(interrupt=False))

    def cancel(self, job: ProcessJob) -> None:
        """Raise CancelledError in the handler; after CANCEL_S its process is killed."""
        waiter = self._waiting.get(job)
        if waiter is not None and waiter.done():
            waiter.add_done_callback(lambda _: self.cancel(job))
        elif waiter is not None:
            self.kill(job, "cancelled", "")
        elif job in self._running:
            self._running[job].tell(Stop(interrupt=True))
            asyncio.get_running_loop().call_later(CANCEL_S, self.kill, job, "killed because its task was cancelled", "")

    def kill(self, job: ProcessJob, cause: str = "killed at the hard timeout", reason: str = "timeout") -> None:
        """End the process that runs this job, and whatever that started; `run` raises ProcessDied(cause, reason)."""
        waiter = self._waiting.get(job)
        if waiter is not None and waiter.done():  # it got a process just now, and begins before its later callbacks
            waiter.add_done_callback(lambda _: self.kill(job, cause, reason))
        elif waiter is not None:
            waiter.set_exception(ProcessDied(f"The attempt was {cause} before it had a process.", reason))
        elif job in self._running:
            self._running[job].kill(cause, reason)

    async def close(self) -> None:
        """End all children: the idle ones may close what they opened, the others are killed. Waiting jobs get none."""
        self._closed = True
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(_no_process("its worker stops"))
        for child in self._children:
            if child in self._idle:
                child.dismiss()
            else:
                child.kill(STOPPED)
        while self._children:
            _, late = await asyncio.wait([child.end for child in self._children], timeout=CLOSE_S)
            for child in self._children if late else ():
                child.kill(STOPPED)
        if self._starts:
            await asyncio.wait(self._starts)

    async def _wait(self, job: ProcessJob) -> _Child:
        waiter: asyncio.Future[_Child] = asyncio.get_running_loop().create_future()
        self._waiting[job] = waiter
        if self._closed:
            waiter.set_exception(_no_process("its worker stops"))
        self._start_child()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._offer(waiter.result())
            raise
        finally:
            del self._waiting[job]

    def _idle_child(self) -> _Child | None:
        """One that can be asked; the end of the others is near."""
        while self._idle:
            child = self._idle.pop()
            if child.usable:
                return child
        return None

    def _offer(self, child: _Child) -> None:
        """To the first who waits; nobody gets one that is no longer of use."""
        if not child.usable:
            return
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_result(child)
                return
        self._idle.append(child)

    def _start_child(self) -> None:
        if self._closed or len(self._children) >= self._size:
            return
        child = _Child(self._child_ended)
        self._children.add(child)
        start = asyncio.get_running_loop().create_task(self._start(child))
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)

    async def _start(self, child: _Child) -> None:
        try:
            await child.start(_hello(self._app_path))
        except Exception as error:  # as many kinds as event loops have ways to start one
            if not self._closed:
                logger.error("a child process could not start: %s", error)
                self._refuse_one(_no_process(str(error)))
            if not isinstance(error, ProcessDied):  # there never was a process whose end would be told
                self._child_ended(child)
        else:
            self._offer(child)

    def _refuse_one(self, error: ProcessDied) -> None:
        """One start failed, so one job does; the others get starts of their own."""
        waiter = next((waiter for waiter in self._waiting.values() if not waiter.done()), None)
        if waiter is not None:
            waiter.set_exception(error)

    def _child_ended(self, child: _Child) -> None:
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        # At once, so that the next job need not wait; but one that died without a job, only for a job that waits.
        if child.served or any(not waiter.done() for waiter in self._waiting.values()):
            self._start_child()


def _no_process(why: str) -> ProcessDied:
    return ProcessDied(f"The attempt got no process: {why.removesuffix('.')}.")


class _Child(asyncio.SubprocessProtocol):
    """One process. It is asked one thing at a time."""

    def __init__(self, on_end: Callable[[_Child], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.end: asyncio.Future[None] = self._loop.create_future()
        """Done when the process has ended."""
        self.served = False
        """Whether it was ever given a job."""
        self._on_end = on_end
        self._transport: asyncio.SubprocessTransport | None = None
        self._unframer = Unframer()
        self._answer: asyncio.Future[Answer] | None = None
        self._on_progress: Callable[[Progress], None] = lambda progress: None
        self._why: tuple[str, str] | None = None
        """Cause and reason, if it was killed or dismissed from here."""
        self._cut = False
        """Whether one of its pipes is lost: it ends, or is killed for that."""

    @property
    def usable(self) -> bool:
        """Whether it lives and may be asked."""
        if self._why is not None or self._cut or self._transport is None:
            return False
        return self._transport.get_returncode() is None

    @property
    def _pipe(self) -> asyncio.WriteTransport:
        assert self._transport is not None
        return cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    async def start(self, hello: Hello) -> None:
        """Start it; returns when it has imported the application. Raises ProcessDied, or what the event loop raises."""
        program = (sys.executable, "-m", "headrace.runtime.child")
        # A session of its own: Ctrl-C in the terminal does not reach it, and its own children die with it.
        try:
            await self._loop.subprocess_exec(lambda: self, *program, stderr=None, start_new_session=True)
        except Exception:
            self.kill("given up")  # if it is there all the same
            self.end.set_result(None)
            raise
        late = self._loop.call_later(START_S, self.kill, f"killed because it was not ready after {START_S:g} s")
        ready = await self.ask(hello)
        late.cancel()
        if ready.failure is not None:
            raise ProcessDied(f"Importing the application failed: {ready.failure.type}: {ready.failure.message}")

    async def ask(
        self, message: msgspec.Struct, on_progress: Callable[[Progress], None] = lambda progress: None
    ) -> Answer:
        """Send one frame and wait for its answer. Raises ProcessDied."""
        self._answer = self._loop.create_future()
        self._on_progress = on_progress
        if self.end.done():
            raise ProcessDied(self._obituary())
        self.tell(message)
        return await self._answer

    def tell(self, message: msgspec.Struct) -> None:
        """Send one frame that has no answer of its own."""
        if not self._pipe.is_closing():  # else its end is near, and uvloop would raise
            self._pipe.write(frame(message))

    def kill(self, cause: str, reason: str = "") -> None:
        """End it now, with all processes that it started."""
        if self._transport is not None and _has_ended(self._transport):
            return
        self._why = self._why or (cause, reason)
        if self._transport is None:
            return  # it is being started, and will look
        with suppress(ProcessLookupError, PermissionError):  # it ended by itself just now
            os.killpg(self._transport.get_pid(), signal.SIGKILL)

    def dismiss(self) -> None:
        """Let it end by itself."""
        self._why = self._why or ("dismissed", "")
        if self._transport is not None:
            self._pipe.close()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        if self._why is not None:
            self.kill(*self._why)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        for body in self._unframer.feed(data):
            answer = _answer(body)
            if self._answer is None or self._answer.done():
                continue
            if answer.progress is not None:
                self._on_progress(answer.progress)
            else:
                self._answer.set_result(answer)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._cut = True
        if self._transport is not None and self._transport.get_returncode() is not None:
            self._end()
        elif self._why is None:
            self._loop.call_later(PIPE_S, self.kill, "killed because it closed its pipe")

    def process_exited(self) -> None:
        self._loop.call_later(LAST_WORDS_S, self._end)

    def _end(self) -> None:
        if self.end.done():
            return
        self.end.set_result(None)
        assert self._transport is not None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ProcessDied(self._obituary(), self._why[1] if self._why else ""))
        self._transport.close()
        self._on_end(self)

    def _obituary(self) -> str:
        if self._why is not None:
            return f"The process that ran the attempt was {self._why[0]}."
        code = (self._transport.get_returncode() if self._transport is not None else None) or 0
        return f"The process that ran the attempt ended with {_words(code)}."


def _has_ended(transport: asyncio.SubprocessTransport) -> bool:
    """By the kernel's word: a loop that was blocked has not heard of it yet, and runs the timers first that are due."""
    if transport.get_returncode() is not None:
        return True
    try:
        return os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # and its code has been fetched
        return True
    except AttributeError:  # macOS before Python 3.13
        return False


def _words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"signal {-code}"
    return f"{number.name}{_HINTS.get(number, '')}"


def _hello(app_path: str) -> Hello:
    root = logging.getLogger()
    formatters = [handler.formatter for handler in root.handlers]
    is_json = next((isinstance(each, JsonFormatter) for each in formatters if _is_ours(each)), None)
    return Hello(app_path, sys.path, os.getpid(), root.level, is_json)


def _is_ours(formatter: logging.Formatter | None) -> bool:
    return isinstance(formatter, JsonFormatter | TextFormatter)
