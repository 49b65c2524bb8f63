"""APIs, workers and clients on one Redis, in one world. What ends is started again, until all is to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.ledger import Ledger
from headrace.broker.broker import Queue
from headrace.redis_settings import RedisSettings
from headrace.runtime.worker import Worker
from headrace.settings import ApiSettings, QueueShare, WorkerSettings
from headrace_api.server import serving
from model_dump import look

from . import app, jobs
from .clients import HOST, ByLibrary, Canceller, Heard, Order, OverHttp, Submitter
from .loop import Loop, start
from .observer import Observer
from .redis_double import RedisDouble, Tap
from .world import Process, World

DEAD_AFTER_S: Final = 3.0
"""Without a sign of life for so long a worker of this system is dead."""
FIRST_PORT: Final = 8_080


class Place:
    """Where one API or worker runs, one process after another."""

    def __init__(self, system: System, name: str, main: Callable[[Place], Any]) -> None:
        self.name = name
        self.worker: Worker | None = None
        self.process: Process
        self.loop: Loop
        self._system = system
        self._main = main
        self._starts = 0
        self.start()

    def start(self) -> None:
        self._starts += 1
        self.worker = None
        self.process = self._system.world.process(f"{self.name}.{self._starts}")
        self.process.on_exit = self._again
        self.loop = start(self.process, lambda: self._main(self))

    def _again(self) -> None:
        system = self._system
        if system.kept:
            system.world.after(system.dice.uniform(0.05, 3.0), lambda: self.start() if system.kept else None)

    def stop(self) -> None:
        """SIGTERM."""
        if self.worker is None:
            self.process.kill()
        elif self.process.alive:
            self.loop.call_soon(self.worker.stop)


@dataclass(frozen=True)
class Rules:
    """What is set alike for all parts of a system."""

    durability: str = "local"
    queues: tuple[QueueShare, ...] = (QueueShare("default"),)
    retention_s: float = 86_400.0


@dataclass
class System:
    """Everything of one run."""

    world: World
    tap: Tap
    rules: Rules = Rules()
    kept: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    heard: Heard = field(default_factory=Heard)
    workers: list[Place] = field(default_factory=list)
    apis: list[Place] = field(default_factory=list)
    clients: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queues = [Queue(share.name) for share in self.rules.queues]
        self.observer = Observer(self.world, self.tap, self.queues, DEAD_AFTER_S)
        self.redis = RedisDouble(self.world, self.tap, self.observer, has_replica=self.rules.durability != "local")
        self.dice = self.world.dice_of("system")
        self.settings = RedisSettings.parse(app.REDIS, "the model")

    @property
    def places(self) -> list[Place]:
        return [*self.workers, *self.apis]

    def add_worker(self) -> None:
        self.workers.append(Place(self, f"worker-{len(self.workers)}", self._work))

    async def _work(self, place: Place) -> None:
        settings = WorkerSettings.from_env(
            {}, worker_id=place.name, host=HOST, metrics_port=0, durability=self.rules.durability, concurrency=4,
            queues=self.rules.queues, retention_s=self.rules.retention_s,
            grace_s=2.0, beat_s=0.5, dead_after_s=DEAD_AFTER_S, backoff_base_s=0.1, backoff_cap_s=1.0,
        )  # fmt: skip
        made = app.make(place.process, self.ledger)
        place.worker = Worker(made.app, settings, self.settings)
        assert await place.worker.run(), "no handler of ours outlives its timeout"

    def add_api(self) -> None:
        port = FIRST_PORT + len(self.apis)

        async def serve(place: Place) -> None:
            rules = self.rules
            settings = ApiSettings.from_env(
                {}, host=HOST, port=port, durability=rules.durability, retention_s=rules.retention_s
            )
            async with serving(settings, self.settings):
                await asyncio.Event().wait()

        self.apis.append(Place(self, f"api-{len(self.apis)}", serve))

    def add_client(self, order: Order, *, by_library: bool) -> None:
        def made(process: Process) -> Submitter:
            if by_library:
                return ByLibrary(process, self.heard, order, self.rules.durability)
            return OverHttp(process, self.heard, order, self._ports)

        self._add(made)

    def add_canceller(self, within_s: float) -> None:
        """Whoever cancels many tasks at once."""
        self._add(lambda process: Canceller(process, self.heard, self._ports, within_s))

    @property
    def _ports(self) -> list[int]:
        return [FIRST_PORT + number for number in range(len(self.apis))]

    def _add(self, made: Callable[[Process], Submitter | Canceller]) -> None:
        process = self.world.process(f"client-{len(self.clients)}")

        async def run() -> None:
            await made(process).run()

        self.clients.append(process)
        start(process, run)

    def is_served(self) -> bool:
        """Whether all clients have their answers, and no task and no bulk job lives any more."""
        lives = any(self.tap.command("HLEN", queue.keys["loc"]) for queue in self.queues)
        return not lives and not any(client.alive for client in self.clients) and jobs.are_over(self.tap)

    def is_tidy(self) -> bool:
        """Whether the dead are cleared away and the living can sign off."""
        living = {place.worker.name for place in self.workers if place.worker and place.process.alive}
        return self.redis.is_up and all(self._remembers_only(living, queue) for queue in self.queues)

    def _remembers_only(self, workers: set[str], queue: Queue) -> bool:
        dump = look(self.tap, queue)
        consumers = set[str]().union(*(stream.consumers for stream in dump.streams.values()))
        return consumers <= workers and dump.hashes["w"].keys() <= workers

    def stop_workers(self) -> None:
        """SIGTERM to all of them; nobody takes their places."""
        self.kept = False
        for place in self.workers:
            place.stop()

    def has_left(self) -> bool:
        """Whether all workers have ended."""
        return not any(place.process.alive for place in self.workers)
