"""An app with a CPU-bound type, in a module that a child process can import."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from headrace import App, Ctx
from headrace.context import current_ctx

app = App("processes")


@app.task(process=True)
def pid_of(ctx: Ctx) -> list[int]:
    return [os.getpid(), ctx.attempt]


@app.task(process=True, timeout=0.2, max_retries=0)
def spin() -> None:
    while True:
        time.sleep(0.01)


@app.task(process=True, max_retries=0)
def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(process=True, max_retries=0)
def broken() -> None:
    raise LookupError("in the child")


@app.task(process=True, timeout=60)
def reports(steps: int, note: str) -> None:
    """Says how far it is, quickly, and then waits until it is cancelled."""
    for step in range(steps):
        current().progress_sync(step + 1, steps, f"step {step + 1}")
    _wait(note)


@app.task(process=True, timeout=60)
def tidies(note: str) -> None:
    """Cleans up when it is cancelled."""
    try:
        _wait(note)
    finally:
        Path(note).write_text("tidied")


@app.task(process=True, timeout=60)
def stubborn(note: str) -> None:
    """Does not let itself be cancelled."""
    while True:
        with suppress(asyncio.CancelledError):
            _wait(note)


def _wait(note: str) -> None:
    Path(note).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def current() -> Ctx:
    ctx = current_ctx.get()
    assert ctx is not None
    return ctx
