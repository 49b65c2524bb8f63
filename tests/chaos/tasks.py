"""The application whose tasks are run while everything around them breaks. A child process imports it by name."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from headrace import App, Ctx, Retry

from . import memory
from .ledger import VARIABLE, Writer


async def deps() -> AsyncIterator[Writer]:
    """The ledger that the environment names; each process notes its own lines."""
    writer = Writer(Path(os.environ[VARIABLE]), f"{os.environ.get('WORKER_ID', 'worker')}:{os.getpid()}")
    yield writer
    writer.close()


app = App("chaos", deps=deps)
AGAIN = Retry(10, base_s=0.05, cap_s=0.5)


class OnPurposeError(Exception):
    """As the task's arguments ask."""


@app.task(retry=AGAIN)
async def coroutine(ctx: Ctx[Writer], ms: int = 0, failures: int = 0) -> list[int]:
    """Takes so long in the event loop; its first `failures` attempts fail. Returns its token."""
    ctx.deps.begin(ctx.id, ctx.token)
    await asyncio.sleep(ms / 1_000)
    return _end(ctx, failures)


@app.task(retry=AGAIN)
def thread(ctx: Ctx[Writer], ms: int = 0, failures: int = 0) -> list[int]:
    """The same in a thread."""
    ctx.deps.begin(ctx.id, ctx.token)
    time.sleep(ms / 1_000)
    return _end(ctx, failures)


@app.task(retry=AGAIN, process=True)
def process(ctx: Ctx[Writer], ms: int = 0, failures: int = 0) -> list[int]:
    """The same in a process of its own."""
    ctx.deps.begin(ctx.id, ctx.token)
    time.sleep(ms / 1_000)
    return _end(ctx, failures)


@app.task(retry=AGAIN)
def stone(ctx: Ctx[Writer], s: int) -> list[int]:
    """Its first attempt lets nothing else of its worker run for so many seconds: C code that keeps the GIL."""
    ctx.deps.begin(ctx.id, ctx.token)
    if ctx.attempt == 1:
        ctypes.PyDLL(None).sleep(s)
    return _end(ctx, 0)


@app.task(retry=AGAIN)
async def pill(ctx: Ctx[Writer], how: str) -> None:
    """Ends its worker, or keeps it from ever doing anything else."""
    ctx.deps.begin(ctx.id, ctx.token)
    match how:
        case "kill -9":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "out of memory":
            memory.exhaust()
        case "blocked loop":
            while True:
                time.sleep(1)  # noqa: ASYNC251 - as a handler that forgot to await


def _end(ctx: Ctx[Writer], failures: int) -> list[int]:
    ctx.deps.end(ctx.id, ctx.token)
    if ctx.attempt <= failures:
        raise OnPurposeError(f"attempt {ctx.attempt} of {failures} that shall fail")
    return list(ctx.token)
