"""The command `headrace` as people run it: in a process of its own, with lines that a test can wait for."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HEADRACE = [sys.executable, "-P", "-m", "headrace_cli"]
PATIENCE_S = 60.0
"""A start takes some two seconds, and ten on a machine that is busy with something else."""


def clean_environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without what would change a command's ways; `more` is added."""
    ours = ("HEADRACE_", "REDIS_", "EXAMPLES_", "SMTP_", "PORT", "WORKER_ID", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"TERM": "xterm-256color"} | dict(more or {})


def run(*args: str, cwd: Path, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a pipe."""
    return subprocess.run(
        [*HEADRACE, *args],
        cwd=cwd,
        env=clean_environ(environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class Command:
    """A command that goes on. Leaving the block kills it if it has not ended."""

    def __init__(self, *args: str, cwd: Path, terminal: bool = False, **environ: str) -> None:
        self._output = b""
        self._news = threading.Condition()
        self._closed = False
        read, write = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [*HEADRACE, *args],
            cwd=cwd,
            env=clean_environ(environ),
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=write,
            start_new_session=True,
        )
        os.close(write)
        self._reader = threading.Thread(target=self._read, args=(read,), daemon=True)
        self._reader.start()

    def _read(self, file: int) -> None:
        while True:
            try:
                data = os.read(file, 65536)
            except OSError:  # how a terminal says that its last writer is gone
                data = b""
            with self._news:
                self._output += data
                self._closed = not data
                self._news.notify_all()
            if not data:
                os.close(file)
                return

    @property
    def output(self) -> str:
        """All that it printed until now."""
        return self._output.decode().replace("\r\n", "\n")

    def wait_for(self, pattern: str, *, after: int = 0) -> re.Match[str]:
        """Wait until it prints this; `after` is a length of the output from which to look."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                if found := re.compile(pattern).search(self.output, after):
                    return found
                left = deadline - time.monotonic()
                if self._closed or left <= 0 or not self._news.wait(left):
                    raise AssertionError(f"it never printed {pattern!r}, but:\n{self.output}")

    def send(self, number: signal.Signals) -> None:
        """A signal to this process alone."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def stop(self) -> int:
        """Ctrl-C, and wait for its end."""
        self.send(signal.SIGINT)
        return self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.end()


def http(method: str, url: str, body: Any = None) -> Any:
    """The JSON of an answer, or its text if it is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    return json.loads(text) if text.startswith(("{", "[")) else text
