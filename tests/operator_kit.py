"""A cluster in memory and workers that only beat: for tests of the control loop on a real Redis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.demand import TypeTime, WorkerBeat
from headrace.redis_settings import RedisSettings
from headrace.task import Envelope, encode_envelope, new_id
from headrace_operator.caps import Caps
from headrace_operator.cluster import ClusterError
from headrace_operator.fleet import Fleet, Key, Pod
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.manifests import Pool, Ref, deployment
from headrace_operator.news import News
from headrace_operator.observed import Moment

KEY = Key("shop", "emails")
START = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@dataclass
class MemoryCluster:
    """Pods are there as soon as they are asked for; the cheap and newest go first."""

    fleets: dict[Key, Fleet] = field(default_factory=dict)
    writes: list[tuple[str, Any]] = field(default_factory=list)
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    news: list[News] = field(default_factory=list)
    broken: ClusterError | None = None
    _numbers: count[int] = field(default_factory=count)
    _made: count[int] = field(default_factory=count)

    def fleet(self, key: Key) -> Fleet:
        return self.fleets.get(key, Fleet(exists=False))

    async def apply(self, pool: Pool) -> None:
        self._check()
        deployment(pool)
        key = Key(pool.namespace, pool.name)
        self.fleets.setdefault(key, Fleet(uid=f"made-{next(self._made)}"))
        self.writes.append(("apply", key))

    async def scale(self, key: Key, replicas: int, fleet: Fleet) -> None:
        self._check()
        self.writes.append(("scale", replicas))
        pods = sorted(self.fleets[key].pods, key=lambda pod: (pod.cheap, pod.born_s))[:replicas]
        while len(pods) < replicas:
            number = next(self._numbers)
            pods.append(Pod(f"{key.name}-{number}", float(number), ready=True))
        self.fleets[key] = replace(fleet, asked_for=replicas, pods=tuple(pods))

    async def look_again(self, key: Key) -> None:
        self._check()

    async def mark(self, key: Key, pods: Sequence[str], *, cheap: bool) -> None:
        self._check()
        fleet = self.fleets[key]
        marked = tuple(replace(pod, cheap=cheap) if pod.name in pods else pod for pod in fleet.pods)
        self.fleets[key] = replace(fleet, pods=marked)

    async def guard(self, key: Key, pods: Sequence[str], *, busy: bool) -> None:
        self._check()
        self.writes.append(("guard" if busy else "unguard", tuple(pods)))
        fleet = self.fleets[key]
        guarded = tuple(replace(pod, guarded=busy) if pod.name in pods else pod for pod in fleet.pods)
        self.fleets[key] = replace(fleet, pods=guarded)

    async def show(self, pool: Ref, status: dict[str, Any]) -> None:
        self._check()
        self.statuses[pool.name] = status

    async def tell(self, pool: Ref, news: News) -> None:
        self.news.append(news)

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    @property
    def scalings(self) -> list[int]:
        """The numbers that were written."""
        return [value for what, value in self.writes if what == "scale"]


class Scene:
    """One pool on one queue, and a clock that only the test moves."""

    def __init__(self, url: str, **spec: Any) -> None:
        self.redis = RedisSettings.parse(url, "the test")
        self.client = AsyncClient(self.redis)
        self.queue = Queue("default")
        self.cluster = MemoryCluster()
        self.looker = Looker({"default": self.redis})
        self.now = Moment(1_000.0, START)
        self.loop = self._loop(Caps())
        self.generation = 0
        self.beats: dict[str, int] = defaultdict(int)
        self.change(**spec)

    def change(self, **spec: Any) -> None:
        """The resource as somebody applies it."""
        self.generation += 1
        self.applied = resource(self.generation, **spec)
        self.loop.saw_pool(self.applied)

    def restart(self, caps: Caps) -> None:
        """Another process takes over; it knows nothing but what is there."""
        self.loop = self._loop(caps)
        self.loop.saw_pool({**self.applied, "status": self.cluster.statuses.get("emails", {})})

    def _loop(self, caps: Caps) -> ControlLoop:
        return ControlLoop(self.cluster, self.looker, tick_s=1, caps=caps, clock=lambda: self.now)

    async def tick(self, seconds: float = 1.0) -> None:
        """Time passes, then the loop looks and acts; a Redis that is slow today is waited for."""
        self.now = Moment(self.now.s + seconds, self.now.wall + timedelta(seconds=seconds))
        await self.loop.tick()
        await self.loop.settled()

    async def ticks(self, number: int) -> None:
        for _ in range(number):
            await self.tick()

    async def submit(self, number: int = 1) -> list[str]:
        return await submit_to(self.client, self.queue, number)

    async def empty(self, ids: Sequence[str]) -> None:
        """These leave the queue unless somebody runs them."""
        for each in ids:
            await self.client.call(self.queue.cancel(each))

    async def work(self, **running: int) -> None:
        """Every pod beats; `emails_3=2` says that emails-3 runs two tasks. Who is asked to drain says that it does."""
        for pod in self.cluster.fleet(KEY).pods:
            await self.beat(pod.name, running.get(pod.name.replace("-", "_"), 0))

    async def beat(
        self, pod: str, running: int = 0, mean_s: float | None = None, types: Sequence[TypeTime] = ()
    ) -> None:
        name = f"{pod}:1"
        asked = (await self.client.call(self.queue.demand(1))).asked
        self.beats[name] += 1
        beat = WorkerBeat(self.beats[name], running, name in asked, mean_s, tuple(types))
        await self.client.call(self.queue.beat(name, beat.text()))

    async def claim(self, pod: str, number: int = 1) -> None:
        await self.client.call(self.queue.cycle(f"{pod}:1", number))

    @property
    def replicas(self) -> int:
        return self.cluster.fleet(KEY).asked_for

    @property
    def told(self) -> list[str]:
        """Reasons of the Events so far."""
        return [str(each.reason) for each in self.cluster.news]

    def condition(self, type: str) -> dict[str, Any]:
        found = [each for each in self.cluster.statuses["emails"]["conditions"] if each["type"] == type]
        return found[0] if found else {}

    async def aclose(self) -> None:
        await self.loop.aclose()
        await self.looker.aclose()
        await self.client.aclose()


async def submit_to(client: AsyncClient, queue: Queue, number: int, type: str = "t") -> list[str]:
    """Tasks that wait. Returns their ids."""
    ids = [new_id(queue.name) for _ in range(number)]
    news = [NewTask(each, encode_envelope(Envelope(1, 1, each, type=type)), 1) for each in ids]
    for start in range(0, number, 1_000):
        await client.call(queue.submit(news[start : start + 1_000]))
    return ids


Opener = Callable[..., Scene]
"""Opens a scene with these fields of a pool's spec; the fixture `scene` closes it."""
AT_ONCE = {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": []}}, "idleSeconds": 0}
"""`scaling` of a pool that shrinks without waiting."""


FIFTY_EACH = {"targetQueueWaitSeconds": 10}
"""`scaling` of a pool with a replica for each 50 tasks of a second, whatever the default is."""


def resource(generation: int = 1, **spec: Any) -> dict[str, Any]:
    """A WorkerPool object as the API server shows it."""
    scaling = {"maxReplicas": 20, **FIFTY_EACH, **spec.pop("scaling", {})}
    template = {"spec": {"containers": [{"name": "worker", "image": "shop:1.4"}]}}
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": "emails", "namespace": "shop", "uid": "uid-1", "generation": generation},
        "spec": {"queues": [{"name": "default"}], "template": template, "scaling": scaling, **spec},
    }
