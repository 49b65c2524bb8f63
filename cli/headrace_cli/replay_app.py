"""The application of `headrace replay`: one type, `llm_request`, whose handler sleeps for the modelled duration."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from headrace import App, ConfigError, Ctx

from .replay_ledger import VARIABLE, Run, Writer
from .replay_trace import duration_s

Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
Speed = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class Deps:
    """What the handlers share."""

    ledger: Writer


async def deps() -> AsyncIterator[Deps]:
    """The ledger that the environment names."""
    path = os.environ.get(VARIABLE)
    if not path:
        raise ConfigError(f"{VARIABLE} is not set", "Name the file that the handlers note their runs in")
    yield Deps(Writer(Path(path)))


app = App("replay", deps=deps)


@app.task()
async def llm_request(ctx: Ctx[Deps], context_tokens: Tokens, generated_tokens: Tokens, speed: Speed = 1.0) -> None:
    """Take as long as such a request would, divided by `speed`; note the run in the ledger."""
    run = Run(ctx.id, ctx.attempt, time.time())
    ctx.deps.ledger.begin(run)
    await asyncio.sleep(duration_s(context_tokens, generated_tokens) / speed)
    ctx.deps.ledger.end(run, time.time())
