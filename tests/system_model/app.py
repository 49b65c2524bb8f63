"""The application whose tasks are run: each notes what it does in a ledger outside Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from chaos.ledger import Ledger, Note
from headrace import App, Ctx, Retry
from headrace.decorator import Task

from .world import Process

AGAIN: Final = Retry(10, base_s=0.05, cap_s=0.5)
REDIS: Final = "redis://redis:6379/0"


class OnPurposeError(Exception):
    """As the task's arguments ask."""


@dataclass(frozen=True)
class Hands:
    """What handlers of one process share."""

    process: Process
    ledger: Ledger

    def begin(self, ctx: Ctx[Hands]) -> None:
        self.ledger.begun.append(self._note(ctx))

    def end(self, ctx: Ctx[Hands], failures: int) -> list[int]:
        """Returns the attempt's token. Raises OnPurposeError for the first `failures` attempts."""
        self.ledger.ended.append(self._note(ctx))
        if ctx.attempt <= failures:
            raise OnPurposeError(f"attempt {ctx.attempt} of {failures} that shall fail")
        return list(ctx.token)

    def _note(self, ctx: Ctx[Hands]) -> Note:
        return Note(ctx.id, ctx.token, self.process.name, self.process.world.now)


@dataclass(frozen=True)
class Made:
    """The application of one process, and its task types."""

    app: App[Hands]
    types: dict[str, Task[Any, Any]]


def make(process: Process, ledger: Ledger) -> Made:
    """An App of its own, as in a process of its own."""

    async def deps() -> AsyncIterator[Hands]:
        yield Hands(process, ledger)

    app = App("model", url=REDIS, deps=deps)

    @app.task(retry=AGAIN)
    async def coroutine(ctx: Ctx[Hands], ms: int = 0, failures: int = 0) -> list[int]:
        """Takes so long in the event loop."""
        ctx.deps.begin(ctx)
        await asyncio.sleep(ms / 1_000)
        return ctx.deps.end(ctx, failures)

    @app.task(retry=AGAIN)
    def thread(ctx: Ctx[Hands], ms: int = 0, failures: int = 0) -> list[int]:
        """The same in a thread."""
        ctx.deps.begin(ctx)
        if ms:
            process.world.thread.block(lambda: False, ms / 1_000)
        return ctx.deps.end(ctx, failures)

    @app.task(retry=AGAIN)
    async def pill(ctx: Ctx[Hands], failures: int = 0) -> list[int]:
        """Kills its worker in its first `failures` attempts."""
        ctx.deps.begin(ctx)
        if ctx.attempt <= failures:
            process.kill()
            await asyncio.Event().wait()
        return ctx.deps.end(ctx, 0)

    return Made(app, {"coroutine": coroutine, "thread": thread, "pill": pill})
