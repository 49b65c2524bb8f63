"""An operator process: watches, the control loop, the Lease and the port, each of which ends all if it fails."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

import kopf

from headrace.redis_settings import RedisSettings

from .caps import Caps
from .fleet import Key, Pod
from .hand_on import HandOn
from .handlers import kopf_settings, watchers
from .kube import KubeCluster, Watched
from .lease import Lease
from .looker import Looker
from .loop import ControlLoop, this_moment
from .metrics import registry_of
from .recount import Recount
from .requests import connect
from .server import alive, serving
from .settings import OperatorSettings
from .wake import Waker

logger = logging.getLogger("headrace.operator")


class Operator:
    """One process, once."""

    def __init__(self, settings: OperatorSettings, connections: Mapping[str, RedisSettings]) -> None:
        self.settings = settings
        self.connections = connections
        self.watched = Watched()
        self.works = False
        self._stop = asyncio.Event()
        self._began_s = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, kubeconfig: str | None = None) -> None:
        """Until SIGTERM or SIGINT. Raises what ended one of its parts; the process should end then."""
        settings = self.settings
        if kubeconfig is not None:
            os.environ["KUBECONFIG"] = kubeconfig
        self._take_signals()
        async with AsyncExitStack() as stack:
            requests = await connect(kubeconfig)
            stack.push_async_callback(requests.aclose)
            self.looker = Looker(self.connections)
            stack.push_async_callback(self.looker.aclose)
            self.cluster = KubeCluster(requests, self.watched, allow_service_accounts=settings.allow_service_accounts)
            caps = Caps(settings.max_replicas, settings.max_replicas_per_namespace)
            self.loop = ControlLoop(
                self.cluster, self.looker, tick_s=settings.tick_s, caps=caps, tenants=settings.tenants
            )
            stack.push_async_callback(self.loop.aclose)
            self.hand_on = HandOn(self.looker)
            self.recount = Recount(requests, self.loop, self.watched, settings.namespaces, self.hand_on.forget)
            self.cluster.on_ghost = self.recount.soon
            registry = registry_of(self.loop, self.cluster)
            await stack.enter_async_context(serving(settings.host, settings.metrics_port, registry, self.health))
            await self._work(Lease(requests, settings.lease_namespace, self._identity()))

    def health(self) -> str:
        """'' if all is well."""
        return alive(self.loop.numbers, self.works, time.monotonic(), self._began_s)

    def _identity(self) -> str:
        return self.settings.identity or f"{socket.gethostname()}-{os.getpid()}"

    async def _work(self, lease: Lease) -> None:
        if self.settings.lease and not await lease.acquire(self._stop):
            return
        self._began_s, self.works = time.monotonic(), True
        try:
            async with asyncio.TaskGroup() as group:
                duties = [group.create_task(self.loop.run(), name="loop")]
                for name, redis in self.connections.items():
                    waker = Waker(name, redis, self.loop, self.looker, self.cluster)
                    duties.append(group.create_task(waker.run(), name=f"wake {name}"))
                duties.append(group.create_task(self.recount.run(), name="recount"))
                if self.settings.lease:
                    duties.append(group.create_task(self._keep(lease), name="lease"))
                await self._watch()
                for duty in duties:
                    duty.cancel()
        finally:
            await lease.release()

    async def _keep(self, lease: Lease) -> None:
        await lease.keep()
        raise LeaseLostError

    async def _watch(self) -> None:
        """kopf, until this process is told to end. It finds the kubeconfig by the variable only."""
        namespaces, others = self.settings.namespaces, asyncio.all_tasks()
        # kopf's own guess asks the system for the user's name, and a UID that a cluster chose has none.
        identity: Any = self._identity()
        parts = await kopf.spawn_tasks(
            registry=watchers(self.loop, self.watched, self._saw_pod, self._saw_invalid, self.recount.soon),
            settings=kopf_settings(everywhere=not namespaces),
            identity=identity,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
        self._take_signals()  # again: by kopf's own handlers it waits 5 s for whatever else runs in this process
        watching = asyncio.ensure_future(kopf.run_tasks(parts, ignored=others))
        ending = asyncio.create_task(self._stop.wait())
        ending.add_done_callback(lambda _: watching.cancel())
        try:
            await watching
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
            logger.info("told to end: another operator may begin")
        finally:
            ending.cancel()

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    # what watches tell beyond the store

    def _saw_pod(self, key: Key, pod: Pod, deleted: bool) -> None:
        steering = self.loop.pools.get(key)
        if steering is not None and self.hand_on.is_new(key, pod):
            self._spawn(self._hand_on(key, pod))
        if deleted:
            self.hand_on.forget(key, pod.name)

    async def _hand_on(self, key: Key, pod: Pod) -> None:
        steering = self.loop.pools[key]
        news = await self.hand_on.act(key, pod, steering.places())
        for each in news:
            await steering.tell(self.cluster, each, this_moment())
        self.loop.wake.set()

    def _saw_invalid(self, raw: dict[str, Any], why: str) -> None:
        self._spawn(self.loop.tell_invalid(raw, why))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "a duty of the operator failed; it is tried again at the next occasion", exc_info=task.exception()
            )


class LeaseLostError(Exception):
    """Another operator works now."""
