"""A child process that never outlives its parent, however the parent ends."""

from __future__ import annotations

import signal
import subprocess
from types import TracebackType
from typing import Self

# Reads the process id, then waits for a line (all is well) or the end of the pipe (the parent is gone).
# It works on Linux and macOS and, unlike PR_SET_PDEATHSIG, does not fire when only the thread that started
# the child ends.
_WATCH = 'read -r pid || exit 0; read -r _ && exit 0; kill "-$1" "$pid"'


class Guard:
    """Sends ``sign`` to one process when this process ends without saying :meth:`release`.

    The watcher is a shell in a session of its own, so that Ctrl-C in the terminal does not reach it.
    """

    def __init__(self, pid: int, sign: signal.Signals = signal.SIGTERM) -> None:
        self._watcher = subprocess.Popen(  # noqa: S603 - a fixed text, no input from outside
            ["/bin/sh", "-c", _WATCH, "guard", sign.name.removeprefix("SIG")],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._tell(f"{pid}\n")

    def release(self) -> None:
        """Let the process live on, or tell that it has ended. May be said more than once."""
        if self._watcher.stdin is None or self._watcher.stdin.closed:
            return
        self._tell("\n")
        self._watcher.stdin.close()
        self._watcher.wait()

    def _tell(self, line: str) -> None:
        assert self._watcher.stdin is not None
        try:
            self._watcher.stdin.write(line.encode())
        except BrokenPipeError:
            # Someone ended the watcher; the process it watched is only less guarded by that.
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
