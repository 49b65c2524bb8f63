"""One worker process under `headrace dev`: started, listened to, ended, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .child import Guard

MAX_LINE: Final = 64 * 1024
"""Bytes of a line that a worker prints; a longer one is shown in parts."""
_REST_S: Final = 0.5
"""How long to read on after the end; a process that the worker started may hold the pipe for ever."""


@dataclass(frozen=True)
class WorkerCommand:
    """What every worker process of one version of the application has in common."""

    arguments: tuple[str, ...]
    """After `headrace worker`."""
    environ: Mapping[str, str]


class WorkerProcess:
    """A child that runs `headrace worker`, in a session of its own: Ctrl-C in the terminal is for its parent."""

    def __init__(self, worker_id: str, command: WorkerCommand, on_line: Callable[[str], None]) -> None:
        self.worker_id = worker_id
        self.expected_to_end = False
        """Set by who stops it, so that its end is no surprise."""
        self._command = command
        self._on_line = on_line
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, also after its end; 0 before its start."""
        return self._popen.pid if self._popen is not None else 0

    @property
    def alive(self) -> bool:
        """Whether it was started and has not been seen to end."""
        return self._popen is not None and self._popen.returncode is None

    async def run(self) -> int:
        """Start it and return when it has ended: its exit code, or minus the signal that killed it."""
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        environ = {**self._command.environ, "WORKER_ID": self.worker_id, "PYTHONUNBUFFERED": "1"}
        try:
            self._popen = popen = subprocess.Popen(  # noqa: ASYNC220, S603 - our own program; returns at once
                [sys.executable, "-m", "headrace_cli", "worker", *self._command.arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        finally:
            os.close(writing)
        with Guard(popen.pid):
            lines = _Lines(self._on_line)
            pipe, _ = await loop.connect_read_pipe(lambda: lines, os.fdopen(reading, "rb", 0))
            try:
                code = await _end_of(popen)
                await asyncio.wait([lines.closed], timeout=_REST_S)
            finally:
                pipe.close()
                self.kill()
        return code

    def terminate(self) -> None:
        """Ask it to end: it finishes what it can within its grace, and hands back the rest."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._popen is not None:
            self._popen.send_signal(number)


async def _end_of(popen: subprocess.Popen[bytes]) -> int:
    # A thread, because asyncio's own watchers differ between loops, and some of them also wait for the pipes.
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def tell(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def wait() -> None:
        code = popen.wait()
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, code)

    threading.Thread(target=wait, name=f"wait-{popen.pid}", daemon=True).start()
    return await ended


class _Lines(asyncio.Protocol):
    """What a process prints, line by line."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))
        if not self.closed.done():
            self.closed.set_result(None)


def describe_exit(code: int) -> str:
    """How a process ended, in words: `exit code 1`, `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
