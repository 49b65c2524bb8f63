"""One time of leading: what is known and done from the moment at which this process may act until it may no more.

A term begins as a new process does, with lists of all that is there: while another operator led, pools went on without
this one, and what it knew of them before is no longer true.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import kopf
from kopf._cogs.structs.references import Insights

from headrace.redis_settings import RedisSettings

from .caps import Caps
from .cluster import ClusterError
from .defaults import House
from .fleet import Key, Pod
from .hand_on import HandOn
from .handlers import kopf_settings, watchers
from .kube import API_VERSION, KubeCluster, Watched
from .lease import Lease
from .looker import Looker
from .loop import ControlLoop, this_moment
from .recount import Recount
from .requests import Forbidden, NotThere, Requests
from .settings import OperatorSettings
from .wake import Waker

logger = logging.getLogger("headrace.operator")


UNDEFINED_S = 2.0
"""Between two looks whether WorkerPools are defined."""


class LeaseLostError(Exception):
    """This process leads no more."""


class Term:
    """Runs once. `leads`: whether this process may act at this moment."""

    def __init__(
        self,
        settings: OperatorSettings,
        connections: Mapping[str, RedisSettings],
        requests: Requests,
        leads: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._connections = connections
        self._leads = leads
        self.began_s = time.monotonic()
        self.watched = Watched()
        self.looker = Looker(connections)
        self.cluster = KubeCluster(
            requests.fenced(leads), self.watched, allow_service_accounts=settings.allow_service_accounts
        )
        self.loop = ControlLoop(
            self.cluster, self.looker, tick_s=settings.tick_s, leads=leads,
            caps=Caps(settings.max_replicas, settings.max_replicas_per_namespace),
            house=House(settings.tenants, settings.pod_defaults),
        )  # fmt: skip
        self.hand_on = HandOn(self.looker)
        self.recount = Recount(requests, self.loop, self.watched, settings.namespaces, self.hand_on.forget)
        self.cluster.on_ghost = self.recount.soon
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event, lease: Lease | None, identity: str, signals: Callable[[], None]) -> None:
        """Until `stop` is set, or the Lease is lost: LeaseLostError. Raises what ended one of its parts.

        `signals` takes the process's signals back from kopf, by whose own handlers it would wait 5 s for the rest.
        """
        async with asyncio.TaskGroup() as group:
            duties = [group.create_task(self.loop.run(), name="loop")]
            for name, redis in self._connections.items():
                waker = Waker(name, redis, self.loop, self.looker, self.cluster)
                duties.append(group.create_task(waker.run(), name=f"wake {name}"))
            duties.append(group.create_task(self.recount.run(), name="recount"))
            if lease is not None:
                duties.append(group.create_task(self._keep(lease), name="lease"))
            await self._watch(stop, identity, signals)
            for duty in duties:
                duty.cancel()

    async def aclose(self) -> None:
        """End what is out, and close the connections to Redis."""
        for task in self._tasks:
            task.cancel()
        await self.loop.aclose()
        await self.looker.aclose()

    async def _keep(self, lease: Lease) -> None:
        await lease.keep()
        for task in self._tasks:
            task.cancel()
        await self.loop.aclose()  # at once, and not when all the rest has ended
        raise LeaseLostError

    async def _watch(self, stop: asyncio.Event, identity: str, signals: Callable[[], None]) -> None:
        """kopf, until this process is told to end."""
        while not stop.is_set():
            await self._defined(stop)
            if await self._watch_on(stop, identity, signals):
                return
            logger.warning("another API server does not know WorkerPools yet; the watches begin anew")

    async def _watch_on(self, stop: asyncio.Event, identity: str, signals: Callable[[], None]) -> bool:
        """False if it found no WorkerPools, for it looks once only. It finds the kubeconfig by the variable only."""
        namespaces, others, insights = self._settings.namespaces, asyncio.all_tasks(), Insights()
        # kopf's own guess asks the system for the user's name, and a UID that a cluster chose has none.
        named: Any = identity
        parts = await kopf.spawn_tasks(
            registry=watchers(self.loop, self.watched, self._saw_pod, self._saw_pool, self.recount.soon),
            settings=kopf_settings(),
            identity=named,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            insights=insights,
        )
        signals()
        watching = asyncio.ensure_future(kopf.run_tasks(parts, ignored=others))
        ending, blind = asyncio.create_task(stop.wait()), asyncio.create_task(_is_blind(insights))
        for each in (ending, blind):
            each.add_done_callback(lambda _: watching.cancel())
        try:
            await watching
        except asyncio.CancelledError:
            if stop.is_set():
                logger.info("told to end: another operator may begin")
            elif blind.done() and not blind.cancelled():
                return False
            else:
                raise
        finally:
            ending.cancel()
            blind.cancel()
        return True

    async def _defined(self, stop: asyncio.Event) -> None:
        """Wait until WorkerPools are defined. kopf looks for them once, where this looks too."""
        said = ""
        while not stop.is_set() and (why := await self._missing()):
            if why != said:
                logger.warning("%s", why)
            said = why
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), UNDEFINED_S)

    async def _missing(self) -> str:
        """Why WorkerPools cannot be watched yet. An API server tells of a kind some time after it knows it."""
        group, _, version = API_VERSION.partition("/")
        try:
            groups = (await self._requests.send("GET", "/apis")).get("groups") or ()
            if any(each.get("name") == group and version in str(each.get("versions")) for each in groups):
                served = (await self._requests.send("GET", f"/apis/{API_VERSION}")).get("resources") or ()
                if any(each.get("name") == "workerpools" for each in served):
                    return ""
        except NotThere:
            pass
        except Forbidden:
            return ""  # kopf is refused too, and says so
        except ClusterError as error:
            return f"what the API server serves is not known yet: {error}"
        return "the cluster does not know WorkerPools yet: headrace's crds/ define them"

    # what watches tell beyond the store

    def _saw_pool(self, key: Key) -> None:
        """Pods whose end was shown before their pool was."""
        for pod, deleted in self.hand_on.early(key):
            self._saw_pod(key, pod, deleted)

    def _saw_pod(self, key: Key, pod: Pod, deleted: bool) -> None:
        if self.hand_on.is_new(key, pod) and self._leads():
            if key in self.loop.pools:
                self._spawn(self._hand_on(key, pod, deleted))
                return
            self.hand_on.keep(key, pod, deleted)
        if deleted:
            self.hand_on.forget(key, pod.name)

    async def _hand_on(self, key: Key, pod: Pod, deleted: bool) -> None:
        steering = self.loop.pools.get(key)
        if steering is not None:
            for each in await self.hand_on.act(key, pod, steering.places()):
                await steering.tell(self.cluster, each, this_moment())
            self.loop.wake.set()
        if deleted:
            self.hand_on.forget(key, pod.name)

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


async def _is_blind(insights: Insights) -> None:
    """Over when kopf has looked what there is, and found no WorkerPools."""
    await insights.ready_resources.wait()
    if any(each.plural == "workerpools" for each in insights.watched_resources):
        await asyncio.Event().wait()
