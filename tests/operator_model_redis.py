"""The queues of the operator's model test in a real Redis, by the scripts and the look that the operator uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.broker.broker import Claim, NewTask, Queue, Report, WorkerSeen
from headrace.broker.client import AsyncClient
from headrace.broker.demand import Demand, WorkerBeat
from headrace.redis_settings import RedisSettings
from headrace.task import Envelope, decode_envelope, encode_envelope, new_id, record
from headrace_operator.looker import Looker, Place
from model_redis import Wire
from operator_model_api import Asked, Client, Lookers
from operator_model_queue import TrueQueue, Worker

if TYPE_CHECKING:
    from operator_model_world import World

FAR_MS: Final = 10_000_000_000
"""Delayed tasks come when the world's clock says so, never by Redis' clock."""


class WireQueue(TrueQueue):
    """One queue in Redis. What its workers run, they know themselves."""

    def __init__(self, wire: Wire, queue: Queue) -> None:
        super().__init__()
        self._wire, self.real = wire, queue
        self._claims: dict[str, list[Claim]] = defaultdict(list)
        self._ids: list[str] = []
        self._due: dict[str, float] = {}
        wire.run(queue.init())

    @property
    def pending(self) -> int:
        return self._wire.run(self.real.demand(0)).waiting

    @property
    def delayed(self) -> list[float]:
        return [self._due.get(each, 0.0) for each in self._later()]

    @delayed.setter
    def delayed(self, value: list[float]) -> None:
        assert not value, "none to begin with"

    def _later(self) -> list[str]:
        """Those whose last worker died wait there too, and are due by any clock."""
        return [each.decode() for each in self._wire.command("ZRANGE", self.real.keys["later"], 0, -1)]

    def running(self, worker: str) -> int:
        return len(self._claims[worker]) if worker in self._claims else 0

    def seen(self) -> list[WorkerSeen]:
        found = self._wire.run(self.real.workers())
        return sorted(found, key=lambda each: each.name)

    def beats(self, worker: str) -> bool:
        return bool(self._wire.command("HEXISTS", self.real.keys["w"], worker))

    def asked(self) -> set[str]:
        return {each.decode() for each in self._wire.command("HKEYS", self.real.keys["drain"])}

    # what users do

    def submit(self, count: int) -> None:
        self._enter([new_id() for _ in range(count)])

    def delay(self, at_s: float) -> None:
        id_ = new_id()
        self._due[id_] = at_s
        self._enter([id_], FAR_MS)

    def _enter(self, ids: list[str], delay_ms: int = 0) -> None:
        news = [NewTask(each, encode_envelope(Envelope(1, 1, each, type="t")), 1, delay_ms) for each in ids]
        if news:
            self._wire.run(self.real.submit(news))
        self._ids += ids

    def cancel(self) -> None:
        for each in self._ids:
            self._wire.run(self.real.cancel(each, if_waiting=True))
        held = {id_ for claims in self._claims.values() for id_ in map(_id_of, claims)}
        self._ids = [each for each in self._ids if each in held]

    def park(self, most: int) -> None:
        """Left to the queues in memory: a worker parks, and here no worker claims what it does not know."""

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self._wire.run(self.real.pause(paused))

    # what workers do

    def beat(self, worker: Worker) -> bool:
        worker.counter += 1
        told = WorkerBeat(worker.counter, self.running(worker.name), worker.draining, None)
        return self._wire.run(self.real.beat(worker.name, told.text(), b'{"started_ms":%d}' % worker.began_ms)).drain

    def claim(self, worker: str, slots: int, now_s: float) -> None:
        self.promote(now_s)
        free = slots - self.running(worker)
        if free > 0:
            self._claims[worker] += self._wire.run(self.real.cycle(worker, free)).claims

    def finish(self, worker: str, most: int) -> None:
        done, self._claims[worker] = self._claims[worker][:most], self._claims[worker][most:]
        reports = [
            Report(place, _id_of((place, envelope, n)), "completed", "", "t", record("completed", envelope, n))
            for place, envelope, n in done
        ]
        if reports:
            verdicts = self._wire.run(self.real.cycle(worker, 0, reports)).verdicts
            assert not verdicts, "what a living worker runs is its own"

    def promote(self, now_s: float) -> None:
        due = [each for each in self._later() if self._due.get(each, 0.0) <= now_s]
        for start in range(0, len(due), 100):
            self._wire.run(self.real.promote(due[start : start + 100]))

    def hand_on(self, worker: str) -> int:
        self._claims.pop(worker, None)
        taken, more = 0, True
        while more:
            moved, more = self._wire.run(self.real.hand_back(worker, leave=True))
            taken += moved
        return taken

    def is_gone(self, worker: str) -> None:
        """What it held was handed on by the operator."""
        self._claims.pop(worker, None)

    def lose_beats(self) -> None:
        self._wire.command("DEL", self.real.keys["w"], self.real.keys["drain"])


def _id_of(claim: Claim) -> str:
    return decode_envelope(claim[1]).id


class RealClient(Client):
    """Sends what the operator asks for."""

    def __init__(self, world: World, life: int, client: AsyncClient) -> None:
        super().__init__(world, life)
        self._client = client

    async def _do(self, asked: Asked) -> Any:
        queue = asked.queue
        assert isinstance(queue, WireQueue)
        answer = await self._client.call(getattr(queue.real, asked.name)(*asked.given, **asked.more))
        if asked.name in {"hand_back", "reclaim"}:
            queue.is_gone(asked.names[0])
        return answer


class RealLookers(Lookers):
    """The operator's own look."""

    def __init__(self, world: World, life: int, client: AsyncClient, looker: Looker) -> None:
        super().__init__(world, life)
        self._client = RealClient(world, life, client)
        self._looker = looker

    async def _demand(self, place: Place, queue: TrueQueue) -> Demand | Exception:
        assert isinstance(queue, WireQueue)
        queue.promote(self._world.now_s)
        real = Place("default", "default", queue.real.name)
        return (await self._looker.look([real]))[real]


class InRedis:
    """Every world has queues of its own in it."""

    def __init__(self, wire: Wire, client: AsyncClient, looker: Looker) -> None:
        self._wire, self._client, self._looker = wire, client, looker
        self._numbers = count()

    def queue(self, name: str) -> TrueQueue:
        return WireQueue(self._wire, Queue(f"{name}-{next(self._numbers)}"))

    def lookers(self, world: World, life: int) -> Any:
        return RealLookers(world, life, self._client, self._looker)


@asynccontextmanager
async def in_redis(socket: Path, url: str) -> AsyncIterator[InRedis]:
    settings = RedisSettings.parse(url, "the test")
    client, looker = AsyncClient(settings), Looker({"default": settings})
    try:
        with Wire(socket) as wire:
            yield InRedis(wire, client, looker)
    finally:
        await client.aclose()
        await looker.aclose()
