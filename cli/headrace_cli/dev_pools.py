"""`headrace dev -f pool.yaml`: WorkerPools on this machine. The operator's own loop decides; its pods are processes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Final

from msgspec.structs import replace as with_fields

from headrace.broker.demand import Demand
from headrace_operator.caps import Caps
from headrace_operator.defaults import House
from headrace_operator.fleet import Key, Pod
from headrace_operator.hand_on import HandOn
from headrace_operator.looker import Looker, Place
from headrace_operator.loop import ControlLoop
from headrace_operator.manifests import Pool, Ref
from headrace_operator.news import News
from headrace_operator.orders import Order, order_of
from headrace_operator.pool_file import InvalidPoolFile, PoolFiles, read_files, resource
from headrace_operator.processes import ProcessCluster
from headrace_operator.spec import Mode, PoolSpec, Redis
from headrace_operator.status import in_words
from headrace_operator.wake import Waker
from headrace_operator.workforce import crews

from . import reload
from .dev_process import WorkerCommand, WorkerProcess, describe_exit
from .dev_stack import Stack, worker_environ

TICK_S: Final = 1.0
MOST: Final = max(8, 4 * (os.cpu_count() or 1))
"""Processes of a pool that does not insist on more: a file for a cluster may allow too many for a laptop."""
_LOOK_S: Final = 0.5
_CONNECTION: Final = "default"
"""Whatever a pool calls its Redis, here it is the one that there is."""


class Pools:
    """All WorkerPools of one `headrace dev`: the host of their processes."""

    def __init__(self, stack: Stack) -> None:
        self.default_grace_s = stack.crew.grace_s
        self.cluster = ProcessCluster(self)
        self._stack = stack
        self._screen = stack.screen
        self._files = stack.plan.files
        redis = stack.redis.settings
        self._looker = Looker({_CONNECTION: redis})
        self.loop = ControlLoop(self.cluster, self._looker, tick_s=TICK_S, caps=Caps(), house=House(tenants=True))
        self._waker = Waker(_CONNECTION, redis, self.loop, self._looker, self.cluster)
        self._hand_on = HandOn(self._looker)
        self._pools: dict[Key, Pool] = {}
        """As last read, those with them whose processes still leave."""
        self._listed: PoolFiles = PoolFiles()
        self._generations: dict[Key, int] = {}
        self._stamped: list[str] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._lines: dict[Key, str] = {}

    # its life

    async def begin(self) -> None:
        """Read the files. Raises InvalidPoolFile."""
        # The screen tells each piece of news by itself.
        logging.getLogger("headrace.operator").setLevel(logging.WARNING)
        self._stamped = self._stamps()
        self._take(self._read())
        if self._stack.redis.embedded is not None:
            await self._stack.store.hand_on_orphans("headrace dev ended")

    async def run(self) -> None:
        """Scale them until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.loop.run())
            group.create_task(self._waker.run())
            group.create_task(self._follow())

    async def aclose(self, at_once: asyncio.Event) -> None:
        """Let all processes end within their grace, or, when `at_once` is set, end them now."""
        await self.loop.aclose()
        # Together, or else the workers beside the pools would take over what these hand back, only to end as well.
        await asyncio.gather(self.cluster.aclose(at_once), self._stack.workers.stop(at_once))
        await asyncio.gather(*self._leaving)
        await self._looker.aclose()

    def renew(self) -> None:
        """The code changed."""
        for key in self._listed.pools:
            self.cluster.renew(key)

    # the files

    def _read(self) -> PoolFiles:
        return read_files(self._files, self._stack.api_settings.namespace)

    def _take(self, fresh: PoolFiles) -> list[str]:
        """Make the pools what the files say. Returns the names of those that changed."""
        gone = [key for key in self._listed.pools if key not in fresh.pools]
        changed = [key for key, pool in fresh.pools.items() if pool != self._listed.pools.get(key)]
        self._listed = fresh
        for key in gone:
            self.loop.lost_pool(key)
            self._lines.pop(key, None)
            task = asyncio.create_task(self.cluster.remove(key))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for key in changed:
            pool = fresh.pools[key]
            here = self._pools[key] = replace(pool, spec=_bearable(pool.spec))
            self._stack.store.serve(queue.name for queue in here.spec.queues)
            self._generations[key] = self._generations.get(key, 0) + 1
            self.loop.saw_pool(resource(here, self._generations[key]))
        return [key.name for key in (*changed, *gone)]

    async def _follow(self) -> None:
        """Saving a file is what `kubectl apply` is in a cluster."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now = self._stamps()
            if now == self._stamped or not all(now):
                continue
            self._stamped = now
            try:
                changed = self._take(self._read())
            except InvalidPoolFile as error:
                self._screen.say(f"{error} The pools go on as they were.", level="error")
                continue
            if changed:
                self._screen.say(f"{', '.join(map(str, self._files))} changed: {', '.join(changed)}")
                self.say_what_is_ignored(changed)

    def _stamps(self) -> list[str]:
        return [reload.stamp(str(file)) for file in self._files]

    # the screen

    def lines(self) -> list[str]:
        """Each pool in one line."""
        return [_line(key.name, self._pools[key]) for key in self._listed.pools]

    def say_what_is_ignored(self, names: Sequence[str] | None = None) -> None:
        """What of the files does nothing here."""
        if names is None:
            for note in self._listed.notes:
                self._screen.say(note)
        for key, pool in self._listed.pools.items():
            if names is None or key.name in names:
                most = self._pools[key].spec.scaling.max_replicas
                if most < pool.spec.scaling.max_replicas:
                    self._screen.say(f"maxReplicas is {most} on this machine", who=key.name)
                for sentence in order_of(pool, self.default_grace_s).ignored:
                    self._screen.say(sentence, who=key.name)

    async def show(self, pool: Ref, status: dict[str, Any]) -> None:
        """Its status, when that looks different."""
        key, line = Key(pool.namespace, pool.name), _status_line(status)
        if line == self._lines.get(key) or key not in self._listed.pools:
            return
        self._lines[key] = line
        ready = next(each for each in status["conditions"] if each["type"] == "Ready")
        self._screen.say(line, who=pool.name, level="info" if ready["status"] != "False" else "warning")

    async def tell(self, pool: Ref, news: News) -> None:
        level = "warning" if news.type == "Warning" else "info"
        self._screen.say(f"{news.reason}: {news.message}", who=pool.name, level=level)

    # the processes

    def launch(self, pool: Pool, name: str, order: Order) -> WorkerProcess:
        environ = {"HEADRACE_APP": self._stack.plan.app}
        environ |= {**worker_environ(self._stack.redis, self._stack.plan), **order.environ}
        if self._stack.plan.raw_logs is False:
            environ["HEADRACE_LOG_FORMAT"] = "json"
        self._stack.guests.add(name)
        who = f"{pool.name}-{name.rpartition('-')[2]}"
        return WorkerProcess(name, WorkerCommand(order.arguments, environ), self._screen.child(who))

    def describe(self, code: int) -> str:
        return describe_exit(code)

    def beating(self, key: Key) -> AbstractSet[str]:
        answers = [self.loop.look.get(place) for place in self._places(key)]
        return crews(each for each in answers if isinstance(each, Demand)).keys()

    async def ended(self, key: Key, pod: Pod) -> None:
        self._stack.guests.discard(pod.name)
        self._stack.workers.sums.ended(pod.name)
        for news in await self._hand_on.act(key, pod, self._places(key)):
            await self.tell(self._pools[key].ref, news)
        self._hand_on.forget(key, pod.name)
        self.loop.wake.set()

    def _places(self, key: Key) -> Iterable[Place]:
        pool = self._pools[key]
        return [Place(_CONNECTION, pool.tenant, queue.name) for queue in pool.spec.queues]


def _bearable(spec: PoolSpec) -> PoolSpec:
    """With the one Redis that there is, and no more replicas than a laptop can bear."""
    scaling = spec.scaling
    most = min(scaling.max_replicas, max(MOST, scaling.min_replicas, scaling.fallback.replicas))
    return with_fields(spec, redis=Redis(), scaling=with_fields(scaling, max_replicas=most))


def _line(name: str, pool: Pool) -> str:
    spec = pool.spec
    queues = " ".join(queue.name for queue in spec.queues)
    of = f"queue{'' if len(spec.queues) == 1 else 's'} {queues}, {spec.worker.concurrency} slots a process"
    if spec.mode is Mode.EXTERNAL:
        return f"{name}: {spec.replicas} processes (mode External) of {of}"
    mode = "" if spec.mode is Mode.AUTO else f" (mode {spec.mode})"
    return f"{name}: {spec.scaling.min_replicas} to {spec.scaling.max_replicas} processes{mode} of {of}"


def _status_line(status: dict[str, Any]) -> str:
    """2 of 2 ready, 1 busy · 12 pending, 10 processing."""
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    parts = [in_words(*(status.get(f"{name}Replicas", 0) for name in ("ready", "desired", "draining")))]
    parts += [f"{status[field]} {word}" for field, word in _COUNTS if status.get(field)]
    why = f" · {ready['reason']}: {ready['message']}" if ready["status"] == "False" else ""
    decision = status.get("decision", {})
    would = f" · {decision['message']}" if decision.get("reason") == Mode.DRY_RUN else ""
    return f"{', '.join(parts)}{why}{would}"


_COUNTS: Final = (
    ("busyReplicas", "busy"),
    ("pending", "pending"),
    ("processing", "processing"),
)
