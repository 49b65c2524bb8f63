"""Handlers that run in child processes, for test_processes.py: a child imports them by the name of this module."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from headrace import App, Ctx, Permanent, RetryAfter


class OddError(LookupError):
    """Known to worker and child alike, and not made without arguments."""

    def __init__(self, key: str, *, where: str) -> None:
        super().__init__(key)
        self.where = where


class BareRetryAfter(RetryAfter):
    """One whose author forgot what its base class has to be told."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        return "soon"


class UniqueError(Exception):
    """A class that has no subclasses."""

    def __init_subclass__(cls) -> None:
        raise LookupError("there is one only")


async def deps() -> AsyncIterator[str]:
    yield "shared"
    leave_note()


def leave_note() -> None:
    if left := os.environ.get("LEFT_FILE"):
        Path(left).write_text("left")


app = App("processes", deps=deps)


@app.task(process=True)
def pid() -> int:
    return os.getpid()


@app.task(process=True)
def echo(value: Any = None) -> Any:
    return value


@app.task(process=True)
def tell_context(ctx: Ctx[str]) -> dict[str, Any]:
    logging.getLogger("somebody").warning("seen in a child")
    left = ctx.deadline - time.monotonic()
    return {
        "id": ctx.id,
        "attempt": ctx.attempt,
        "token": ctx.token,
        "deps": ctx.deps,
        "left": left,
        "queue": ctx.queue,
    }


@app.task(process=True)
def chatter() -> str:
    print("printed")  # noqa: T201 - where prints go is what is tested
    os.write(1, b"written\n")
    os.write(2, b"complained\n")
    return sys.stdin.read()


@app.task(process=True)
def fail(how: str) -> None:
    class LocalError(ValueError):
        pass

    errors: dict[str, BaseException] = {
        "value": ValueError("not good"),
        "odd": OddError("k", where="here"),
        "local": LocalError("known to nobody else"),
        "permanent": Permanent("never"),
        "later": RetryAfter(12.5, "busy"),
        "bare": BareRetryAfter(),
        "unique": UniqueError("no other"),
        "exit": SystemExit(3),
        "stop": StopIteration(),
        "group": ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    }
    raise errors[how]


@app.task(process=True)
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "pipe":
        os.closerange(3, 50)
        time.sleep(60)
    os.kill(os.getpid(), getattr(signal, how))


@app.task(process=True)
def hang(note: str) -> None:
    """Says so in a file, starts a program of its own, and never ends."""
    program = subprocess.Popen(["sleep", "600"])
    Path(note).write_text(f"{os.getpid()} {program.pid}")
    while True:
        pass


@app.task(process=True)
def hold_the_gil(note: str) -> None:
    """As hang, in a call of C that lets no other thread run."""
    program = subprocess.Popen(["sleep", "600"])
    Path(note).write_text(f"{os.getpid()} {program.pid}")
    re.match(r"(a+)+$", "a" * 60 + "b")


@app.task(process=True)
def wait_for(file: str, note: str) -> str:
    """Ends when the file is there."""
    Path(note).write_text(str(os.getpid()))
    while not Path(file).exists():
        time.sleep(0.005)
    return "done"


@app.task(process=True)
def heed(ctx: Ctx[str]) -> str:
    """Ends when it is asked to."""
    while not ctx.cancelled:
        time.sleep(0.005)
    return "heard"


@app.task(process=True)
def leave_when(file: str) -> None:
    """Closes its pipes at once, and ends when the file is there."""
    os.closerange(3, 50)
    while not Path(file).exists():
        time.sleep(0.005)
    os._exit(3)


@app.task(process=True)
def cut_pipes_when(file: str) -> int:
    """Leaves a thread behind that closes the pipes of its process when the file is there."""

    def cut() -> None:
        while not Path(file).exists():
            time.sleep(0.005)
        os.closerange(3, 50)

    threading.Thread(target=cut, daemon=True).start()
    return os.getpid()


@app.task(process=True)
def signals_of_programs() -> str:
    """How a program that a handler starts takes Ctrl-C and SIGTERM."""
    code = "import signal; print(signal.getsignal(2) == signal.default_int_handler, signal.getsignal(15) == 0)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@app.task()
def in_a_thread() -> None:
    """No process task."""
