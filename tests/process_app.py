"""An app with a CPU-bound type, in a module that a child process can import."""

from __future__ import annotations

import os
import signal
import time

from headrace import App, Ctx

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
