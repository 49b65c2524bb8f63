"""What `headrace dev` asks of Redis about its worker processes, whose names begin with the id it gave them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.broker.broker import Queue, Reclaim, Reclaimed, WorkerSeen
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.runtime.reclaimer import NOTHING, crash_backoff_ms, new_nonce, reclaim
from headrace.settings import WorkerSettings

PREFIX = "dev-"
"""Of the ids of all workers that a `headrace dev` starts."""


def session_name() -> str:
    """A prefix for the ids of one run: no other run, on whatever machine, takes its workers for its own."""
    return f"{PREFIX}{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Seen:
    """A worker as a queue knows it."""

    queue: Queue
    worker: WorkerSeen

    @property
    def id(self) -> str:
        """The WORKER_ID that it was started with."""
        return self.worker.name.rpartition(":")[0]

    @property
    def facts(self) -> dict[str, Any]:
        """What it tells of itself: pid, metrics_port, …; empty before its first beat."""
        try:
            facts = msgspec.json.decode(self.worker.info)
        except msgspec.DecodeError:
            return {}
        return facts if isinstance(facts, dict) else {}


class Store:
    """The queues that the workers serve. For one event loop."""

    def __init__(self, redis: RedisSettings, namespace: str, queues: Iterable[str]) -> None:
        self.redis = redis
        self.namespace = namespace
        self.queues = {name: Queue(name, namespace) for name in queues}
        self.client = AsyncClient(redis, "headrace-dev")
        self._limits = WorkerSettings.from_env(os.environ)

    def serve(self, queues: Iterable[str]) -> None:
        """The application has these queues too; those it had before stay in sight."""
        for name in queues:
            self.queues.setdefault(name, Queue(name, self.namespace))

    async def check(self) -> None:
        """Raises StoreUnavailable or RedisError if it cannot be used."""
        await self.client.connection()

    async def workers(self) -> list[Seen]:
        """Whoever beats or holds something, in every queue."""
        return [
            Seen(queue, worker)
            for queue in list(self.queues.values())
            for worker in await self.client.call(queue.workers())
        ]

    async def hand_on(self, worker_id: str, cause: str) -> Reclaimed:
        """A process is dead: its tasks go on, and their records tell the cause. Returns what became of them."""
        done = NOTHING
        for seen in await self._of(worker_id):
            backoff_ms = crash_backoff_ms(self._limits)
            order = Reclaim(seen.worker.name, "*", new_nonce(), cause, self._limits.max_crashes, backoff_ms)
            done += await reclaim(self.client, seen.queue, order, retention_s=int(self._limits.retention_s))
        return done

    async def hand_back(self, worker_id: str) -> int:
        """A process that we stopped is gone: what it held goes on, free of charge. Returns how many there were."""
        moved = 0
        for seen in await self._of(worker_id):
            more = True
            while more:
                some, more = await self.client.call(seen.queue.hand_back(seen.worker.name, leave=True))
                moved += some
        return moved

    async def _of(self, worker_id: str) -> list[Seen]:
        return [seen for seen in await self.workers() if seen.id == worker_id]

    async def hand_on_orphans(self, cause: str) -> int:
        """What the workers of an earlier `headrace dev` on this machine held when they died with it."""
        dead = {seen.id for seen in await self.workers() if _is_orphan(seen)}
        return sum([len((await self.hand_on(worker_id, cause)).handed_on) for worker_id in dead])

    async def aclose(self) -> None:
        """Close the connection."""
        await self.client.aclose()


def _is_orphan(seen: Seen) -> bool:
    pid = seen.facts.get("pid")
    return seen.id.startswith(PREFIX) and isinstance(pid, int) and pid > 0 and not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
