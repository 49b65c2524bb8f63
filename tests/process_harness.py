"""Child processes for tests: jobs for them, and a child whose worker is the test."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from headrace.runtime.frames import Answer, Hello, ProcessJob, Unframer, frame
from headrace.runtime.processes import ProcessSlots

APP = "process_tasks:app"
LIMIT_S = 30.0


def job(type_: str, attempt: int = 1, **payload: Any) -> ProcessJob:
    raw = msgspec.Raw(msgspec.json.encode(payload))
    return ProcessJob(type_, raw, "an-id", "default", attempt, 7, time.monotonic() + 100)


async def run(slots: ProcessSlots, type_: str, **payload: Any) -> Any:
    return json.loads(await asyncio.wait_for(slots.run(job(type_, **payload)), LIMIT_S))


def lives(pid: int) -> bool:
    """Whether the process is there and no zombie (somebody else's child may be reaped late)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until_written(path: Path) -> str:
    async with asyncio.timeout(LIMIT_S):
        while not (text := read(path)):  # noqa: ASYNC110 - a foreign process writes it
            await asyncio.sleep(0.005)
    return text


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class Child:
    """A child process whose worker is the test; it is killed at the end of the block."""

    def __init__(self, program: Sequence[str] = ("-m", "headrace.runtime.child"), **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        )
        self._unframer = Unframer()
        self._bodies: list[bytes] = []
        self.say(Hello(APP, sys.path, os.getpid(), 30, None))
        assert self.hear() == Answer()

    def say(self, *messages: msgspec.Struct) -> None:
        """All of them at once."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(map(frame, messages)))
        self.process.stdin.flush()

    def hear(self) -> Answer:
        """Its next answer."""
        assert self.process.stdout is not None
        while not self._bodies:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, "the child ended without an answer"
            self._bodies += self._unframer.feed(data)
        return msgspec.json.decode(self._bodies.pop(0), type=Answer)

    def dismissed(self) -> int:
        """Its exit code, once its pipe is closed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        with self.process:  # closes its pipes, and waits
            pass
