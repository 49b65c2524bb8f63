"""An API server and a Redis for the operator's model test: every request may fail, be lost, or be its sender's last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from headrace.broker.demand import Demand, GroupMissingError
from headrace.broker.reclaiming import Reclaim, Reclaimed
from headrace.errors import StoreUnavailable
from headrace_operator.cluster import ClusterError, Conflict, Refused
from headrace_operator.fleet import COST, Fleet, Key
from headrace_operator.kube import KubeCluster
from headrace_operator.looker import Place
from headrace_operator.manifests import TEMPLATE
from headrace_operator.requests import NotThere
from operator_model_queue import TrueQueue

if TYPE_CHECKING:
    from operator_model_cluster import Raw, TruePool
    from operator_model_world import World

FAULTS: Final = ("refused", "conflict", "lost request", "lost reply", "kill before", "kill after")


class Api:
    """Stands in for requests.Requests."""

    def __init__(self, world: World, life: int) -> None:
        self._world = world
        self._life = life
        """Which process asks: a dead one gets no answer."""

    async def send(self, method: str, path: str, body: Raw | None = None, *, kind: str = "") -> Raw:
        with self._world.judged():
            return await self._send(method, path, body)

    async def _send(self, method: str, path: str, body: Raw | None) -> Raw:
        world = self._world
        world.between()
        self._alive()
        fault = world.fault(method, path)
        if fault == "kill before":
            world.killed = True
        self._alive()
        if fault == "lost request":
            raise ClusterError("the API server does not answer")
        if fault == "refused":
            raise Refused("admission says no")
        if fault == "conflict" and method != "GET":
            raise Conflict("the object has been modified")
        try:
            answer = self._do(method, path.partition("?")[0].strip("/").split("/"), body or {})
        finally:
            world.killed = world.killed or fault == "kill after"
        self._alive()
        if fault == "lost reply":
            raise ClusterError("the API server does not answer any more")
        return answer

    def _alive(self) -> None:
        if self._world.killed or self._life != self._world.lives:
            raise asyncio.CancelledError

    def _do(self, method: str, parts: list[str], body: Raw) -> Raw:
        answer: Raw = {}
        match parts:
            case [*_, "events"]:
                self._world.promises.told(body)
            case [*_, "poddisruptionbudgets", _]:
                pass
            case [*_, "workerpools", name, "status"]:
                self._world.shown(name, body["status"])
            case [*_, "workerpools"]:
                answer = {"items": [{"metadata": {"uid": f"uid-{name}"}} for name in self._world.pools]}
            case [*_, "deployments"]:
                return self._create(self._world.pools[body["metadata"]["name"]], body)
            case [*_, "deployments", name, "scale"]:
                return self._scale(method, self._world.pools[name], body)
            case [*_, "deployments", name]:
                return self._apply(self._world.pools[name], body)
            case [*_, "pods", name]:
                return self._mark(name, body)
            case _:
                raise AssertionError(f"a request that nobody knows: {method} {parts}")
        return answer

    def _create(self, pool: TruePool, body: Raw) -> Raw:
        if pool.deployment is not None:
            raise Conflict("it exists")
        assert body["spec"]["replicas"] == 0, "a new pool starts no pod for nothing"
        return self._world.make_deployment(pool, _template(body))

    def _apply(self, pool: TruePool, body: Raw) -> Raw:
        assert "replicas" not in body["spec"], "templates and sizes are written apart"
        uid = body["metadata"].get("uid", "")
        if uid and (pool.deployment is None or pool.deployment.uid != uid):
            raise Conflict("the uid is that of another object")
        if pool.deployment is None:  # what server-side apply does; the API server's default is one replica
            self._world.make_deployment(pool, _template(body), replicas=1)
        return self._world.set_template(pool, _template(body))

    def _scale(self, method: str, pool: TruePool, body: Raw) -> Raw:
        made = pool.deployment
        if made is None:
            raise NotThere("deployments not found")
        if method == "PATCH":
            version = body["metadata"]["resourceVersion"]
            if version and version != str(made.version):
                raise Conflict("the object has been modified")
            self._world.promises.scaled(pool, body["spec"]["replicas"])
            self._world.set_replicas(pool, body["spec"]["replicas"])
        metadata = {"resourceVersion": str(made.version), "uid": made.uid}
        return {"metadata": metadata, "spec": {"replicas": made.replicas}}

    def _mark(self, name: str, body: Raw) -> Raw:
        for pool in self._world.pools.values():
            if name in pool.pods:
                pod = pool.pods[name]
                annotations = body["metadata"]["annotations"]
                pod.cheap = annotations[COST] is not None if COST in annotations else pod.cheap
                self._world.pod_changed(pool, pod)
                return pod.raw(pool.name, pool.namespace)
        raise NotThere("pods not found")


def _template(body: Raw) -> str:
    return str(body["spec"]["template"]["metadata"]["annotations"][TEMPLATE])


class Calls:
    """Stands in for broker.Queue: a call is a method's name and its arguments."""

    def __init__(self, queue: TrueQueue) -> None:
        self.queue = queue

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **more: Asked(self.queue, name, given, more)


class Asked(NamedTuple):
    """A call that is not sent yet."""

    queue: TrueQueue
    name: str
    given: tuple[Any, ...]
    more: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The workers that it is about."""
        first = self.given[0] if self.given else ()
        return (first,) if isinstance(first, str) else (first.worker,) if isinstance(first, Reclaim) else tuple(first)


class Client:
    """Stands in for AsyncClient."""

    def __init__(self, world: World, life: int) -> None:
        self._world = world
        self._life = life

    async def call(self, asked: Asked) -> Any:
        world = self._world
        world.between()
        if world.killed or self._life != world.lives:
            raise asyncio.CancelledError
        fault = world.redis_fault(asked.name)
        if asked.queue.fault or fault == "lost request":
            raise StoreUnavailable("redis", "it does not answer")
        with world.judged():
            self._judge(asked)
            answer = await self._do(asked)
        if fault == "lost reply":
            raise StoreUnavailable("redis", "it does not answer any more")
        return answer

    def _judge(self, asked: Asked) -> None:
        match asked.name:
            case "ask_to_drain":
                self._world.counts["asked to drain"] += 1
                self._world.promises.asked(asked.queue, asked.names)
            case "release_from_drain":
                self._world.counts["released"] += 1
            case "hand_back" | "reclaim":
                self._world.promises.handed_on(asked.names[0])

    async def _do(self, asked: Asked) -> Any:
        queue = asked.queue
        match asked.name:
            case "ask_to_drain":
                return queue.ask(asked.names, self._world.now_s)
            case "release_from_drain":
                return queue.release(asked.names)
            case "workers":
                return queue.seen()
            case "hand_back":
                return queue.hand_on(asked.names[0]), False
            case "reclaim":
                return Reclaimed("done", queue.hand_on(asked.names[0]))
        raise AssertionError(f"a call that nobody knows: {asked.name}")


class Lookers:
    """Stands in for Looker."""

    def __init__(self, world: World, life: int) -> None:
        self._world = world
        self._client = Client(world, life)
        self.kept: dict[str, set[Place]] = {}

    def keep(self, name: str, places: Iterable[Place]) -> None:
        """There is nothing to forget."""

    def client(self, name: str) -> Client:
        return self._client

    def queue(self, place: Place) -> Calls:
        return Calls(self._world.queues[place.queue])

    async def look(self, places: Iterable[Place]) -> dict[Place, Demand | Exception]:
        found = {place: await self._look(place) for place in sorted(places)}
        self._world.promises.looked(found)
        self._world.between()
        return found

    async def _look(self, place: Place) -> Demand | Exception:
        queue = self._world.queues[place.queue]
        if queue.fault == "group":
            return GroupMissingError("the stream 0 of this queue has lost its consumer group")
        if queue.fault:
            return TimeoutError("no answer within 2 s")
        return await self._demand(place, queue)

    async def _demand(self, place: Place, queue: TrueQueue) -> Demand | Exception:
        return queue.demand(self._world.now_s)


class Redis(Protocol):
    """Where the queues are."""

    def queue(self, name: str) -> TrueQueue: ...

    def lookers(self, world: World, life: int) -> Any: ...


class InMemory:
    """Queues that are a model too."""

    def queue(self, name: str) -> TrueQueue:
        return TrueQueue()

    def lookers(self, world: World, life: int) -> Any:
        return Lookers(world, life)


class SeenCluster(KubeCluster):
    """The operator's own, which tells what it showed."""

    def __init__(self, world: World, life: int) -> None:
        super().__init__(cast(Any, Api(world, life)), world.watched)
        self._world = world

    def fleet(self, key: Key) -> Fleet:
        found = super().fleet(key)
        self._world.promises.saw_fleet(key, found)
        return found
