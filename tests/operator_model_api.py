"""An API server and a Redis for the operator's model test: every request may fail, be lost, or be its sender's last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from headrace.broker.broker import WorkerSeen
from headrace.broker.demand import Demand, GroupMissingError
from headrace.broker.reclaiming import Reclaimed
from headrace.errors import StoreUnavailable
from headrace_operator.cluster import ClusterError, Conflict, Refused
from headrace_operator.fleet import COST
from headrace_operator.looker import Place
from headrace_operator.manifests import TEMPLATE
from headrace_operator.requests import NotThere

if TYPE_CHECKING:
    from operator_model_cluster import Raw, TruePool, TrueQueue
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
                self._world.told(body)
            case [*_, "poddisruptionbudgets", _]:
                pass
            case [*_, "workerpools", name, "status"]:
                self._world.shown(name, body["status"])
            case [*_, "workerpools"]:
                answer = {"items": [self._world.pool_raw(name) for name in self._world.pools]}
            case [*_, "workerpools"]:
                return {"items": [{"metadata": {"uid": f"uid-{name}"}} for name in self._world.pools]}
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
            self._world.our_scale(pool, body["spec"]["replicas"])
        return {"metadata": {"resourceVersion": str(made.version)}, "spec": {"replicas": made.replicas}}

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
        return lambda *given, **_: (self.queue, name, given)


class Client:
    """Stands in for AsyncClient."""

    def __init__(self, world: World, life: int) -> None:
        self._world = world
        self._life = life

    async def call(self, call: tuple[TrueQueue, str, tuple[Any, ...]]) -> Any:
        world, (queue, name, given) = self._world, call
        world.between()
        if world.killed or self._life != world.lives:
            raise asyncio.CancelledError
        fault = world.redis_fault(name)
        if queue.fault or fault == "lost request":
            raise StoreUnavailable("redis", "it does not answer")
        with world.judged():
            answer = self._do(queue, name, given)
        if fault == "lost reply":
            raise StoreUnavailable("redis", "it does not answer any more")
        return answer

    def _do(self, queue: TrueQueue, name: str, given: tuple[Any, ...]) -> Any:
        world = self._world
        match name:
            case "ask_to_drain":
                world.counts["asked to drain"] += 1
                world.check_asked(queue, tuple(given[0]))
                queue.ask(tuple(given[0]), world.now_s)
                return 0
            case "release_from_drain":
                world.counts["released"] += 1
                queue.release(tuple(given[0]))
                return 0
            case "workers":
                return [
                    WorkerSeen(each, "1", b'{"started_ms":%d}' % queue.began_ms[each], queue.held[each])
                    for each in queue.beats
                ]
            case "hand_back":
                return world.hand_on(queue, given[0]), False
            case "reclaim":
                return Reclaimed("done", world.hand_on(queue, given[0].worker))
        raise AssertionError(f"a call that nobody knows: {name}")


class Lookers:
    """Stands in for Looker."""

    def __init__(self, world: World, life: int) -> None:
        self._world = world
        self._client = Client(world, life)

    def client(self, name: str) -> Client:
        return self._client

    def queue(self, place: Place) -> Calls:
        return Calls(self._world.queues[place.queue])

    async def look(self, places: Iterable[Place]) -> dict[Place, Demand | Exception]:
        found = {place: self._look(self._world.queues[place.queue]) for place in sorted(places)}
        self._world.looked(found)
        self._world.between()
        return found

    def _look(self, queue: TrueQueue) -> Demand | Exception:
        if queue.fault == "group":
            return GroupMissingError("the stream 0 of this queue has lost its consumer group")
        if queue.fault:
            return TimeoutError("no answer within 2 s")
        return queue.demand(self._world.now_s)
