"""The control loop: one tick for all pools, each second and whenever something enters an empty queue."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from headrace.runtime.stats import Histogram

from .caps import Caps, share
from .cluster import Cluster
from .defaults import House, filled
from .fleet import Key
from .invalid import Invalid
from .looker import Looker
from .manifests import Pool, Ref
from .observed import Moment
from .schedules import check_schedules
from .sight import Look
from .spec import InvalidSpec, read_spec
from .steering import Steering

logger = logging.getLogger("headrace.operator")

BUDGET_S: Final = 0.5
"""A pool whose step takes longer goes at its own pace: the tick is over without it, so that it delays no other."""
AT_ONCE: Final = 20
"""Pools that begin a step before anything else gets its turn: a thousand new ones must not make Redis look slow."""
FIRST_AT_ONCE: Final = 40
"""Pools that are in their first step, which writes most: what a thousand hold in memory meanwhile is not given back."""
FIRST_S: Final = 5.0
"""A first step that takes longer counts as one no more: what hangs must not keep the others waiting."""
TICK_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PATIENCE_S: Final = 0.5
"""A Redis whose last look took longer is not waited for by a tick: its pools go at its pace, others at theirs."""


@dataclass
class Numbers:
    """What the loop counts; read by the metrics."""

    ticks: int = 0
    last_tick_s: float = 0.0
    """By the monotonic clock."""
    durations: Histogram = field(default_factory=lambda: Histogram(TICK_BUCKETS))
    """Of ticks."""
    overruns: int = 0
    """Steps that were not over within the budget of their tick."""
    errors: int = 0
    woken: int = 0


def this_moment() -> Moment:
    return Moment(time.monotonic(), datetime.now(UTC))


class ControlLoop:
    """Of all pools this process is responsible for. For one event loop; it lives as long as the process."""

    def __init__(
        self,
        cluster: Cluster,
        looker: Looker,
        *,
        tick_s: float,
        caps: Caps,
        house: House | None = None,
        clock: Callable[[], Moment] = this_moment,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """`leads`: whether this process may act at this moment."""
        self.pools: dict[Key, Steering] = {}
        self.invalid: dict[Key, Invalid] = {}
        """Pools that this process never knew a valid spec of."""
        self.numbers = Numbers()
        self.wake = asyncio.Event()
        self.look: Look = {}
        self._cluster = cluster
        self._looker = looker
        self._tick_s = tick_s
        self._caps = caps
        self._house = house or House()
        self._clock = clock
        self._leads = leads
        self._busy: dict[Key, asyncio.Task[None]] = {}
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._slow: set[str] = set()
        self._news = False
        """The tick came because something woke the loop."""
        self._missed: set[str] = set()
        """Connections that may have had that news, while their last look was still out."""
        self._firsts = asyncio.Semaphore(FIRST_AT_ONCE)
        self._begun: weakref.WeakSet[Steering] = weakref.WeakSet()
        """Those whose first step has begun; one that failed is tried again without waiting."""
        self._new: set[asyncio.Task[None]] = set()
        """First steps that are out, or wait for their turn."""

    # what the watches tell

    def saw_pool(self, raw: dict[str, Any]) -> InvalidSpec | None:
        """A WorkerPool came or changed. Returns what is wrong with it; it is then left as it was."""
        metadata = raw["metadata"]
        key, generation = Key(metadata["namespace"], metadata["name"]), metadata["generation"]
        try:
            spec = filled(read_spec(raw.get("spec", {})), self._house.pod_defaults)
            check_schedules(spec.scaling)
        except InvalidSpec as error:
            self._saw_invalid(key, raw, str(error))
            return error
        tenant = key.namespace if self._house.tenants else "default"
        pool = Pool(key.name, key.namespace, metadata["uid"], spec, tenant)
        known = self.pools.get(key)
        if known is None or known.pool.uid != pool.uid:
            self.pools[key] = Steering(pool, generation, self._shown(key, raw), self._clock())
        elif known.generation < generation:  # a watch may go on at a server that is behind
            known.replaced(pool, generation)
        else:
            return None
        self.invalid.pop(key, None)
        self.wake.set()
        return None

    def _saw_invalid(self, key: Key, raw: dict[str, Any], why: str) -> None:
        """One writer of a pool's status: its steering, if there is one."""
        metadata, known = raw["metadata"], self.pools.get(key)
        if known is not None and known.pool.uid == metadata["uid"]:
            known.refused(why, metadata["generation"])
            return
        self.pools.pop(key, None)
        ref, before = Ref(key.namespace, key.name, metadata["uid"]), self.invalid.get(key)
        if before is None or (before.ref, before.generation) != (ref, metadata["generation"]):
            self.invalid[key] = Invalid(ref, metadata["generation"], why, self._shown(key, raw))
            self.wake.set()

    def _shown(self, key: Key, raw: dict[str, Any]) -> dict[str, Any]:
        """The status as it is now, also if the watch has not shown yet what was written."""
        invalid = self.invalid.get(key)
        if invalid is not None and invalid.ref.uid == raw["metadata"]["uid"]:
            return invalid.status
        return raw.get("status") or {}

    @property
    def unreadable(self) -> int:
        """Pools whose present spec cannot be read."""
        return len(self.invalid) + sum("SpecValid" in each.troubles for each in self.pools.values())

    @property
    def resting(self) -> int:
        """Pools that the last tick left out, because nothing about them changes."""
        return sum(each.resting for each in self.pools.values())

    @property
    def redis_up(self) -> dict[str, bool]:
        """Connection that was looked at → whether it answered the last time."""
        return dict(self._looker.up)

    def lost_pool(self, key: Key) -> None:
        """A WorkerPool was deleted; what it owned is collected by the cluster."""
        self.pools.pop(key, None)
        self.invalid.pop(key, None)

    # the loop

    async def run(self) -> None:
        """Tick until cancelled. A fault of one pool, of Redis or of the cluster does not end it."""
        while True:
            began = time.monotonic()
            await self.tick()
            self.numbers.ticks += 1
            self.numbers.last_tick_s = time.monotonic()
            self.numbers.durations.observe(self.numbers.last_tick_s - began)
            await self._pause(began + self._tick_s - time.monotonic())

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.wake.wait()
                self.numbers.woken += 1
                self._news = True
        except TimeoutError:
            self._news = False

    async def tick(self) -> None:
        """Look at every queue once, and carry every pool one step on. Nothing, while this process does not lead."""
        self.wake.clear()
        if not self._leads():
            return
        for key, invalid in self.invalid.items():
            if invalid.is_due(self._clock().s) and key not in self._busy:
                self._begin(key, partial(invalid.tell, self._cluster, self._clock()))
        by_connection: dict[str, dict[Key, Steering]] = {}
        for key, steering in self.pools.items():
            by_connection.setdefault(steering.pool.spec.redis.connection, {})[key] = steering
        for name in self._looker.kept.keys() - by_connection.keys() - self._rounds.keys():
            self._looker.keep(name, set())
        for name, pools in by_connection.items():
            if name in self._rounds:
                if self._news:
                    self._missed.add(name)
            else:
                self._rounds[name] = task = asyncio.create_task(self._round(name, pools), name=f"round of {name}")
                task.add_done_callback(partial(self._over, name))
        await self._wait_for({name: task for name, task in self._rounds.items() if name not in self._slow})

    async def _wait_for(self, rounds: dict[str, asyncio.Task[None]]) -> None:
        """Until they are over. One that takes long is left to itself, at once if another Redis has news meanwhile."""
        end_s, left = time.monotonic() + PATIENCE_S + BUDGET_S, set(rounds.values())
        woken = asyncio.create_task(self.wake.wait())
        try:
            while left and not (woken.done() and len(left) < len(rounds)) and (rest_s := end_s - time.monotonic()) > 0:
                waited = left if woken.done() else {*left, woken}
                done, _ = await asyncio.wait(waited, timeout=rest_s, return_when=asyncio.FIRST_COMPLETED)
                left = left.difference(done)
        finally:
            woken.cancel()
        if time.monotonic() >= end_s:
            self._slow |= {name for name, task in rounds.items() if task in left}

    async def _round(self, name: str, pools: dict[Key, Steering]) -> None:
        """All pools of one Redis: look at their queues, then carry them on."""
        try:
            places = {place for each in pools.values() for place in each.places()}
            self._looker.keep(name, places)
            began, look = time.monotonic(), await self._looker.look(places)
            (self._slow.add if time.monotonic() - began > PATIENCE_S else self._slow.discard)(name)
            others = {place: answer for place, answer in self.look.items() if place.connection != name}
            self.look = others | look
            self._grant(pools.values(), look)
            started, now_s = [], self._clock().s
            for number, (key, each) in enumerate(pools.items(), start=1):
                if self._is_due(key, each, look, now_s):
                    started.append(self._start(key, each, look))
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            if started:
                _, late = await asyncio.wait(started, timeout=BUDGET_S)
                self.numbers.overruns += len(late - self._new)
        except Exception:
            self.numbers.errors += 1
            logger.exception("a look at connection %s failed unexpectedly; the next tick tries again", name)

    def _over(self, name: str, _: asyncio.Task[None]) -> None:
        """A round has ended, or was cancelled before it began."""
        del self._rounds[name]
        if name in self._missed:
            self._missed.discard(name)
            self.wake.set()

    def _is_due(self, key: Key, steering: Steering, look: Look, now_s: float) -> bool:
        """Not while its last step is out, nor where a step would change nothing, nor if it was deleted meanwhile."""
        if key in self._busy or self.pools.get(key) is not steering:
            return False
        try:
            return not steering.rests(look, self._cluster.fleet(key), now_s)
        except Exception:
            self._failed(key, "a look whether it rests")
            return True

    def _start(self, key: Key, steering: Steering, look: Look) -> asyncio.Task[None]:
        if steering not in self._begun:
            task = self._begin(key, partial(self._first_step, steering))
            self._new.add(task)
            task.add_done_callback(self._new.discard)
            return task
        return self._begin(key, partial(steering.step, look, self._looker, self._cluster, self._clock()))

    async def _first_step(self, steering: Steering) -> None:
        """With what was seen last when its turn comes."""
        async with self._firsts:
            if self.pools.get(steering.key) is not steering:
                return  # it was deleted while it waited
            self._begun.add(steering)
            step = asyncio.ensure_future(steering.step(self.look, self._looker, self._cluster, self._clock()))
            try:
                await asyncio.wait([step], timeout=FIRST_S)
            except asyncio.CancelledError:
                step.cancel()
                await asyncio.wait([step])
                raise
        await step

    def _begin(self, key: Key, step: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """One step at a time of each pool. It is made when it begins: cancelled before, a coroutine would be left."""
        task = asyncio.create_task(self._carry_on(key, step), name=f"pool {key}")
        self._busy[key] = task
        task.add_done_callback(lambda _: self._busy.pop(key, None))
        return task

    async def _carry_on(self, key: Key, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await step()
        except Exception:
            self._failed(key, "a step")

    def _failed(self, key: Key, what: str) -> None:
        self.numbers.errors += 1
        logger.exception("pool %s: %s failed unexpectedly; the next tick tries again", key, what)

    def _grant(self, looked_at: Iterable[Steering], look: Look) -> None:
        """What the caps leave to each pool, by what each would have now; of other Redis, by what they said last."""
        if self._caps == Caps():
            return
        for each in looked_at:
            try:
                each.wish(look, self._cluster.fleet(each.key), self._clock())
            except Exception:
                self._failed(each.key, "working out what it would have")
        ours = {key: each.wanted for key, each in self.pools.items() if each.decides}
        others = {key: each.wanted for key, each in self.pools.items() if not each.decides}
        grants = share(self._caps, ours, others)
        for each in self.pools.values():
            each.granted = grants.get(each.key)

    async def settled(self) -> None:
        """Wait until all looks and steps that have begun are over."""
        while tasks := [*self._rounds.values(), *self._busy.values()]:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """End the steps that are out."""
        tasks = [*self._rounds.values(), *self._busy.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
