"""APIs, workers and clients on one Redis, in one world. What ends is started again, until all is to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.ledger import Ledger
from chaos.look import QUEUE
from headrace.redis_settings import RedisSettings
from headrace.runtime.worker import Worker
from headrace.settings import ApiSettings, WorkerSettings
from headrace_api.server import serving
from model_dump import look

from . import app
from .clients import HOST, ByLibrary, Client, Heard, Order, OverHttp
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


@dataclass
class System:
    """Everything of one run."""

    world: World
    tap: Tap
    durability: str = "local"
    kept: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    heard: Heard = field(default_factory=Heard)
    workers: list[Place] = field(default_factory=list)
    apis: list[Place] = field(default_factory=list)
    clients: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.observer = Observer(self.world, self.tap, DEAD_AFTER_S)
        self.redis = RedisDouble(self.world, self.tap, self.observer.saw, has_replica=self.durability != "local")
        self.dice = self.world.dice_of("system")
        self.settings = RedisSettings.parse(app.REDIS, "the model")

    @property
    def places(self) -> list[Place]:
        return [*self.workers, *self.apis]

    def add_worker(self) -> None:
        self.workers.append(Place(self, f"worker-{len(self.workers)}", self._work))

    async def _work(self, place: Place) -> None:
        settings = WorkerSettings.from_env(
            {}, worker_id=place.name, host=HOST, metrics_port=0, durability=self.durability, concurrency=4,
            grace_s=2.0, beat_s=0.5, dead_after_s=DEAD_AFTER_S, backoff_base_s=0.1, backoff_cap_s=1.0,
        )  # fmt: skip
        made = app.make(place.process, self.ledger)
        place.worker = Worker(made.app, settings, self.settings)
        assert await place.worker.run(), "no handler of ours outlives its timeout"

    def add_api(self) -> None:
        port = FIRST_PORT + len(self.apis)

        async def serve(place: Place) -> None:
            settings = ApiSettings.from_env({}, host=HOST, port=port, durability=self.durability)
            async with serving(settings, self.settings):
                await asyncio.Event().wait()

        self.apis.append(Place(self, f"api-{len(self.apis)}", serve))

    def add_client(self, order: Order, *, by_library: bool) -> None:
        process = self.world.process(f"client-{len(self.clients)}")
        ports = [FIRST_PORT + number for number in range(len(self.apis))]

        async def run() -> None:
            client: Client
            if by_library:
                client = ByLibrary(process, self.heard, order, self.durability)
            else:
                client = OverHttp(process, self.heard, order, ports)
            await client.run()

        self.clients.append(process)
        start(process, run)

    def is_served(self) -> bool:
        """Whether all clients have their answers, and no task lives any more."""
        return not any(client.alive for client in self.clients) and not self.tap.command("HLEN", QUEUE.keys["loc"])

    def is_tidy(self) -> bool:
        """Whether the dead are cleared away and the living can sign off: Redis is there, no connection swallows all."""
        deaf = any(link.is_deaf for place in self.workers for link in place.process.links)
        if deaf or not self.redis.is_up:
            return False
        dump = look(self.tap, QUEUE)
        living = {place.worker.name for place in self.workers if place.worker and place.process.alive}
        return all(stream.consumers <= living for stream in dump.streams.values()) and dump.hashes["w"].keys() <= living

    def stop_workers(self) -> None:
        """SIGTERM to all of them; nobody takes their places."""
        self.kept = False
        for place in self.workers:
            place.stop()

    def has_left(self) -> bool:
        """Whether all workers have ended."""
        return not any(place.process.alive for place in self.workers)
