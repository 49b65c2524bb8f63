"""The other side of `headrace.runtime.processes`: a process that runs CPU-bound handlers, one at a time.

It talks to its worker over what were its standard input and output; a handler's prints go to standard error. It ends
when the worker ends, however that happens, and leaves Ctrl-C and SIGTERM to it.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import Context
from functools import reduce
from importlib import import_module
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from headrace.context import Ctx, current_ctx, progress_listeners
from headrace.errors import ConfigError
from headrace.logs import setup_logging
from headrace.runtime.attempt import failure_of
from headrace.runtime.frames import MAX_RESULT, Answer, Hello, ProcessJob, Stop, Unframer, frame
from headrace.runtime.raised import to_answer
from headrace.task import Progress

if TYPE_CHECKING:
    from headrace.app import App

ORPHANED: Final = 70
"""Exit code of a child that found its worker gone in the middle of a job."""
_PR_SET_PDEATHSIG: Final = 1
_READ: Final = 1 << 16
PROGRESS_S: Final = 0.2
"""Between two reports of progress."""
_INTERRUPT: Final = signal.SIGUSR1
"""From a thread of this process to its main thread: the job is cancelled."""
_message: Final = msgspec.json.Decoder(ProcessJob | Stop).decode
_hello: Final = msgspec.json.Decoder(Hello).decode


def main() -> None:
    """Serve one worker until it closes the pipe."""
    pipes = _Pipes()
    hello = _hello(next(pipes.bodies))
    _tie_to(hello.parent)
    try:
        with _prepared(hello) as bench:
            pipes.send(Answer())
            bench.report = pipes.report
            pipes.start_reading(bench.hear)
            while (job := pipes.jobs.get()) is not None:
                answer = bench.run(job)
                pipes.forget_progress()
                pipes.busy = False  # before the answer: at once behind it the next job comes, or the end
                pipes.send(answer)
    except BaseException as error:  # before a job: the worker is told why this process is of no use
        pipes.send(Answer(failure=failure_of(error)))
        sys.exit(1)


class _Pipes:
    """The frames from and to the worker."""

    def __init__(self) -> None:
        self._input: BinaryIO = os.fdopen(os.dup(0), "rb", 0)
        self._output: BinaryIO = os.fdopen(os.dup(1), "wb")
        # From here on a print, also one of a C library, goes to standard error and can spoil no frame.
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # it is the text file of a fresh process
        self.jobs: SimpleQueue[ProcessJob | None] = SimpleQueue()
        self.busy = False
        self._writing = threading.Lock()
        self._progress: Progress | None = None
        self._pause: threading.Timer | None = None
        """Runs for PROGRESS_S after each progress that was sent; the latest of what came meanwhile follows."""
        self.bodies = self._read()

    def _read(self) -> Iterator[bytes]:
        unframer = Unframer()
        while data := self._input.read(_READ):
            yield from unframer.feed(data)

    def send(self, answer: Answer) -> None:
        with self._writing:
            self._output.write(frame(answer))
            self._output.flush()

    def report(self, progress: Progress) -> None:
        """Tell the worker how far the job is; from any thread of the handler."""
        with self._writing:
            self._progress = progress
            if self._pause is None:
                self._send_progress()

    def _send_progress(self) -> None:
        self._pause = None
        progress, self._progress = self._progress, None
        if progress is not None:
            self._output.write(frame(Answer(progress=progress)))
            self._output.flush()
            self._pause = threading.Timer(PROGRESS_S, self._after_pause)
            self._pause.daemon = True
            self._pause.start()

    def _after_pause(self) -> None:
        with self._writing:
            self._send_progress()

    def forget_progress(self) -> None:
        """The job has ended, so nobody wants to know any more."""
        with self._writing:
            self._progress = None

    def start_reading(self, hear: Callable[[ProcessJob | Stop], None]) -> None:
        """Read in a thread, so that requests to stop and the end of the worker are noticed in the middle of a job."""
        threading.Thread(target=self._pass_on, args=(hear,), name="headrace-frames", daemon=True).start()

    def _pass_on(self, hear: Callable[[ProcessJob | Stop], None]) -> None:
        for body in self.bodies:
            message = _message(body)
            hear(message)
            if isinstance(message, ProcessJob):
                self.busy = True
                self.jobs.put(message)
        if self.busy:
            os._exit(ORPHANED)
        self.jobs.put(None)


def _tie_to(parent: int) -> None:
    """End with the worker, even inside a C call that holds the GIL (Linux; elsewhere the pipe's end has to do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(ORPHANED)
    # Not SIG_IGN, which programs that a handler starts would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    faulthandler.enable()


class _Bench:
    """The application, and what its handlers share."""

    def __init__(self, app: App[Any], deps: Any) -> None:
        self._app = app
        self._deps = deps
        self._ctx: Ctx[Any] | None = None
        """Of the job that runs."""
        self._asked: Stop | None = None
        """What was asked of the job that came last, which may not have begun."""
        self.report: Callable[[Progress], None] = lambda progress: None
        signal.signal(_INTERRUPT, self._interrupted)
        progress_listeners.append(self._said)

    def run(self, job: ProcessJob) -> Answer:
        try:
            try:
                result = Context().run(self._call, job)
            finally:
                self._ctx = None
        except BaseException as error:  # also SystemExit: it ends the attempt, not the process
            return to_answer(error)
        return Answer(result=msgspec.Raw(result))

    def _said(self, ctx: Ctx[Any], progress: Progress) -> None:
        """What a thread that a handler left behind says is not of the job that runs now."""
        if ctx is self._ctx:
            self.report(progress)

    def hear(self, message: ProcessJob | Stop) -> None:
        """In the thread that reads: a job comes, or the one that came last is to end."""
        self._asked = message if isinstance(message, Stop) else None
        self._obey()

    def _obey(self) -> None:
        """Both when it is asked and when the job begins, whichever is later."""
        ctx, asked = self._ctx, self._asked
        if ctx is not None and asked is not None:
            ctx.cancelled = True
            if asked.interrupt:
                os.kill(os.getpid(), _INTERRUPT)

    def _interrupted(self, *_: object) -> None:
        """In the main thread, wherever the handler is. Not twice: it may be cleaning up."""
        ctx, self._ctx = self._ctx, None
        if ctx is not None:
            raise asyncio.CancelledError("the task was cancelled")

    def _call(self, job: ProcessJob) -> bytes:
        definition = self._app.registry[job.type]
        ctx = Ctx(
            id=job.id,
            type=job.type,
            queue=job.queue,
            attempt=job.attempt,
            epoch=job.epoch,
            deadline=job.deadline,
            deps=self._deps,
            trace=job.trace,
        )
        current_ctx.set(ctx)
        self._ctx = ctx
        self._obey()
        result = definition.invoke(definition.decode(job.payload), ctx)
        return definition.encode_result(result, MAX_RESULT) or b"null"


@contextmanager
def _prepared(hello: Hello) -> Iterator[_Bench]:
    """Import the application; enter its deps if a handler here can ask for them."""
    sys.path[:] = hello.path
    if hello.log_json is not None:
        setup_logging(logging.getLevelName(hello.log_level), hello.log_json)
    app = find_app(hello.app)
    if not any(each.kind == "process" and each.takes_ctx for each in app.registry.values()):
        yield _Bench(app, None)
        return
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        deps = runner.run(stack.enter_async_context(app.lifespan()))
        try:
            yield _Bench(app, deps)
        finally:
            runner.run(stack.aclose())


def find_app(name: str) -> App[Any]:
    """The App at `module` (its only one) or `module:attribute`. Raises whatever the import raises, and ConfigError."""
    from headrace.app import App

    module_name, _, attribute = name.partition(":")
    module = import_module(module_name)
    values = [reduce(getattr, attribute.split("."), module)] if attribute else vars(module).values()
    apps = list({id(each): each for each in values if isinstance(each, App)}.values())
    if len(apps) != 1:
        raise ConfigError(f"{name!r} names {len(apps)} Apps, not one", "Write module:attribute")
    return apps[0]


if __name__ == "__main__":
    main()
