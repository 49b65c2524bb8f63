"""A `headrace dev` while it lives: started, reloaded, stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from . import reload
from .dev_lines import Screen
from .dev_probe import Found, Look, Sample, together
from .dev_screen import Facts, show
from .dev_signals import Stop
from .dev_stack import FoundRedis, Plan, Stack, find_redis, running
from .load import AppLoadError, load_app
from .worker import run_loop

if TYPE_CHECKING:
    from .dev_pools import Pools


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
        life.callback(self._screen.let_go)
        self._screen.hold()  # a worker that finds work would bury the first screen
        stack = await life.enter_async_context(running(redis, self._plan, found, self._screen, stop.at_once))
        pools = self._pools(stack)
        if pools is not None:
            life.push_async_callback(pools.aclose, stop.at_once)
            await pools.begin()
        life.callback(self._screen.say, "stopping; Ctrl-C again does not wait for tasks")
        self._show(stack, found, pools)
        self._screen.let_go()
        from .dev_http import run_sample  # loaded by now, see `running`

        async with asyncio.TaskGroup() as group:
            if pools is not None:
                group.create_task(pools.run())
            if self._sample and (self._plan.processes or pools) and found.samples:
                group.create_task(run_sample(stack, found))
            if self._watches:
                group.create_task(self._keep_fresh(stack, found, pools))
            await asyncio.get_running_loop().create_future()

    def _pools(self, stack: Stack) -> Pools | None:
        if not self._plan.files:
            return None
        from .dev_pools import Pools  # the operator's modules, which nobody else needs

        return Pools(stack)

    async def _look(self) -> Found:
        environ = {**os.environ, **(self._plan.environ or {})}
        looks = [Look(app, environ) for app in (self._plan.app, *self._plan.others)]
        try:
            return together([await asyncio.to_thread(look.result) for look in looks])
        finally:
            for look in looks:  # a stop waits for no import
                look.give_up()

    @property
    def _watches(self) -> bool:
        return self._reload and reload.available()

    def _show(self, stack: Stack, found: Found, pools: Pools | None) -> None:
        hint = "pip install 'headrace[dev]' brings reload on save" if self._reload else "--no-reload"
        watching = len(found.files) if self._watches else None
        show(stack, Facts(found, watching, hint, () if pools is None else pools.lines()))
        if pools is not None:
            pools.say_what_is_ignored()

    async def _keep_fresh(self, stack: Stack, found: Found, pools: Pools | None) -> None:
        watch = reload.Watch(found.files)
        async for changed in watch.bursts():
            self._screen.say(f"{reload.describe(changed)} changed")
            try:
                found = await self._look()
            except AppLoadError as error:
                detail = f"\n{error.detail.rstrip()}" if error.detail else ""
                self._screen.say(f"{error.problem}; the old code keeps serving{detail}", level="error")
                watch.widen()
                continue
            watch.watch(found.files)
            if await stack.reload(found):
                if pools is not None:
                    pools.renew()
                self._screen.say(f"reloaded: {'  '.join(sorted(found.types))}")
            else:
                self._screen.say("the new code does not start; the old code keeps serving", level="error")


def _targets(app: str) -> AbstractAsyncContextManager[Any]:
    """The servers that the application's samples talk to."""
    load_app(app)
    targets: AbstractAsyncContextManager[Any] = sys.modules[app.partition(":")[0]].dev_targets()
    return targets
