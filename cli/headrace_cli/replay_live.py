"""A replay from its start to its summary, against an API that runs or against one that is started for it."""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import click

from .dev_lines import Screen
from .dev_probe import Found, Type
from .dev_signals import Stop
from .dev_stack import FoundRedis, Plan, Stack, find_redis, running
from .output import print_json
from .replay_client import TYPE, Client
from .replay_ledger import VARIABLE, read_ledger, size
from .replay_progress import progress, sentence
from .replay_report import as_json, show, succeeded
from .replay_run import Kills, Run
from .replay_tally import Facts, add_up
from .replay_trace import Row
from .worker import run_loop

_QUEUE: Final = "default"
_INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    speed: float
    url: str | None = None
    token: str | None = None
    workers: int = 2
    concurrency: int = 20
    kill_workers: int = 0
    seed: int = 0
    ledger: Path | None = None
    as_json: bool = False


class Replay:
    """One replay."""

    def __init__(self, rows: Sequence[Row], options: Options) -> None:
        self._rows = rows
        self._options = options
        self._run: Run | None = None
        self._name = f"replay-{secrets.token_hex(4)}"
        """Of its idempotency keys, and of its namespace: on a shared Redis it meets no other tasks."""

    def run(self) -> int:
        """Returns the exit code."""
        if self._options.url is not None:
            return run_loop(self._until_stopped(self._against(self._options.url)))
        with ExitStack() as life:
            folder = Path(life.enter_context(tempfile.TemporaryDirectory(prefix="headrace-")))
            redis = life.enter_context(find_redis(folder))
            return run_loop(self._until_stopped(self._here(redis, folder)))

    async def _until_stopped(self, work: Coroutine[Any, Any, int]) -> int:
        stop = Stop(asyncio.current_task())
        try:
            return await work
        except asyncio.CancelledError:
            if not stop.asked:
                raise
            click.echo(f"Stopped: {sentence(self._run.state)}." if self._run else "Stopped.", err=True)
            return _INTERRUPTED

    async def _here(self, redis: FoundRedis, folder: Path) -> int:
        options = self._options
        ledger = (options.ledger or folder / "ledger").absolute()
        environ = {VARIABLE: str(ledger), "HEADRACE_NAMESPACE": self._name, "HEADRACE_LOG_LEVEL": "warning"}
        plan = Plan("headrace_cli.replay_app", options.workers, str(options.concurrency), 0, environ)
        found = Found("replay", {TYPE: Type({})}, [_QUEUE], namespace=self._name)
        screen = Screen(sys.stderr if options.as_json else None)
        async with running(redis, plan, found, screen, asyncio.Event()) as stack:
            self._say(f"Redis {redis}; API {stack.url}; {options.workers} workers × {options.concurrency} slots")
            return await self._replay(stack.url, ledger, stack)

    async def _against(self, url: str) -> int:
        return await self._replay(url, self._options.ledger, None)

    async def _replay(self, url: str, ledger: Path | None, stack: Stack | None) -> int:
        options, earlier = self._options, size(ledger)
        async with Client(url, self._name, options.speed, options.token) as client:
            self._run = run = Run(client, self._rows, options.speed, self._kills(stack))
            last = self._rows[-1].at_s / options.speed
            self._say(f"{len(self._rows):,} rows in {last:,.1f} s, {options.speed:g} times as fast as recorded")
            async with progress(run.state, quiet=options.as_json):
                await run.send()
                await run.drain()
            seen = await run.look()
        facts = Facts(
            accepted=run.state.accepted,
            refused=run.state.refused,
            seen=seen,
            ledger=read_ledger(ledger, earlier) if ledger else None,
            completions=await _completions(stack) if stack else None,
            due=run.state.due,
        )
        return self._report(run, facts)

    def _report(self, run: Run, facts: Facts) -> int:
        tally = add_up(facts)
        if self._options.as_json:
            print_json(as_json(tally, run.state))
        else:
            show(tally, run.state, ledger=self._options.ledger)
        return 0 if succeeded(tally, run.state) else 1

    def _kills(self, stack: Stack | None) -> Kills | None:
        if stack is None or not self._options.kill_workers:
            return None
        rng = Random(self._options.seed)
        return Kills(self._options.kill_workers, lambda: stack.workers.kill_one(rng) is not None, rng)

    def _say(self, sentence: str) -> None:
        if not self._options.as_json:
            click.echo(sentence)


async def _completions(stack: Stack) -> int:
    """Accepted completions, as Redis counted them."""
    depth = await stack.store.client.call(stack.store.queues[_QUEUE].depth())
    return depth.ended("completed")
