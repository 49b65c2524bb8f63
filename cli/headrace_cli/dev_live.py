"""A `headrace dev` while it lives: started, reloaded, stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from . import reload
from .dev_lines import Screen
from .dev_probe import Found, Look, Sample
from .dev_screen import Facts, show
from .dev_signals import Stop
from .dev_stack import FoundRedis, Plan, Stack, find_redis, running
from .load import AppLoadError, load_app
from .worker import run_loop


class Dev:
    """One run of `headrace dev`."""

    def __init__(self, plan: Plan, *, reload: bool = True, sample: bool = True) -> None:
        raw = os.environ.get("HEADRACE_LOG_FORMAT") == "json"
        self._plan = replace(plan, raw_logs=raw)
        self._screen = Screen(raw=raw)
        self._reload = reload
        self._sample = sample

    def run(self, found: Found) -> int:
        """Until Ctrl-C. Returns the exit code."""
        with find_redis(Path.cwd(), found.url) as redis:
            return run_loop(self._until_stopped(redis, found))

    async def _until_stopped(self, redis: FoundRedis, found: Found) -> int:
        stop = Stop(asyncio.current_task())
        try:
            async with AsyncExitStack() as life:
                await self._live(life, redis, found, stop)
        except asyncio.CancelledError:
            if not stop.asked:
                raise
        return 0

    async def _live(self, life: AsyncExitStack, redis: FoundRedis, found: Found, stop: Stop) -> None:
        if found.has_targets:
            targets = await life.enter_async_context(_targets(self._plan.app))
            self._plan = replace(self._plan, environ=dict(targets.environ))
            found = msgspec.structs.replace(found, samples=[Sample(*each) for each in targets.samples])
        stack = await life.enter_async_context(running(redis, self._plan, found, self._screen, stop.at_once))
        life.callback(self._screen.say, "stopping; Ctrl-C again does not wait for tasks")
        self._show(stack, found)
        from .dev_http import run_sample  # loaded by now, see `running`

        async with asyncio.TaskGroup() as group:
            if self._sample and self._plan.processes and found.samples:
                group.create_task(run_sample(stack, found))
            if self._watches:
                group.create_task(self._keep_fresh(stack, found))
            await asyncio.get_running_loop().create_future()

    async def _look(self) -> Found:
        return await asyncio.to_thread(Look(self._plan.app, {**os.environ, **(self._plan.environ or {})}).result)

    @property
    def _watches(self) -> bool:
        return self._reload and reload.available()

    def _show(self, stack: Stack, found: Found) -> None:
        hint = "pip install 'headrace[dev]' brings reload on save" if self._reload else "--no-reload"
        show(stack, Facts(found, len(found.files) if self._watches else None, hint))

    async def _keep_fresh(self, stack: Stack, found: Found) -> None:
        watch = reload.Watch(found.files)
        async for changed in watch.bursts():
            self._screen.say(f"{reload.describe(changed)} changed")
            try:
                found = await self._look()
            except AppLoadError as error:
                detail = f"\n{error.detail.rstrip()}" if error.detail else ""
                self._screen.say(f"{error.problem}; the old code keeps serving{detail}", level="error")
                continue
            watch.watch(found.files)
            if await stack.reload(found):
                self._screen.say(f"reloaded: {'  '.join(sorted(found.types))}")
            else:
                self._screen.say("the new code does not start; the old code keeps serving", level="error")


def _targets(app: str) -> AbstractAsyncContextManager[Any]:
    """The servers that the application's samples talk to."""
    load_app(app)
    targets: AbstractAsyncContextManager[Any] = sys.modules[app.partition(":")[0]].dev_targets()
    return targets
