"""A worker process, put together: connections, claim loops, slots, beats, passes, health, and the way out."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.broker.broker import Beat, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connection import Connection, connect
from headrace.errors import HeadraceError
from headrace.redis_settings import RedisSettings
from headrace.runtime.claims import QueueClaims
from headrace.runtime.executor import WATCH_S, Executor
from headrace.runtime.heartbeat import Heartbeat
from headrace.runtime.policy import late_order
from headrace.runtime.processes import ProcessSlots
from headrace.runtime.promoter import promote
from headrace.runtime.reclaimer import Watch, reclaim_pass
from headrace.runtime.retention import purge_pass
from headrace.runtime.server import Health, WorkerServer
from headrace.runtime.stats import WorkerStats
from headrace.runtime.threads import ThreadSlots
from headrace.settings import WorkerSettings
from headrace.task import ENVELOPE_VERSION

if TYPE_CHECKING:
    from headrace.app import App

logger = logging.getLogger("headrace.worker")

RECONNECT_S: Final = (0.05, 0.1, 0.25, 0.5, 0.5, 1.0)
REPORT_S: Final = 5.0
"""How long a stopping worker waits for Redis to take its last reports."""
PURGE_S: Final = 60.0
STALL_S: Final = 30.0


class Worker:
    """Serves the queues of its settings until `stop` is called. One per process."""

    def __init__(self, app: App[Any], settings: WorkerSettings, redis: RedisSettings) -> None:
        self.app = app
        self.settings = settings
        self.redis = redis
        # A container that restarts under the same pod name is another consumer.
        self.name = f"{settings.worker_id}:{secrets.token_hex(4)}"
        self.stats = WorkerStats(app.registry, settings.concurrency)
        self.failed = False
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self.executor = Executor(app, settings, self.name, self.stats)
        self.executor.idle = self._idle.set
        self._registry = self.executor.registry
        self._claims = {
            share.name: QueueClaims(
                Queue(share.name, app.namespace or settings.namespace, journal_cap=settings.journal_length),
                share.weight,
                settings,
                self.name,
                self.executor,
            )
            for share in settings.queues
        }
        self.executor.shares = list(self._claims.values())
        self._client = AsyncClient(redis, "headrace-passes")
        self._connection: Connection | None = None
        self._promotions: dict[str, asyncio.TimerHandle] = {}
        self._clock_ms = time.time() * 1000 - self._loop_ms()
        """Redis' time minus the loop's, learnt from every beat."""
        self._tasks: set[asyncio.Task[None]] = set()

    # life

    def stop(self) -> None:
        """Begin to drain; `run` returns when that is done."""
        self._stopping.set()

    async def run(self, on_ready: Any = None) -> bool:
        """Serve until stopped. Returns False if handlers that never end forced the stop."""
        async with AsyncExitStack() as stack:
            await self._open(stack)
            if on_ready is not None:
                on_ready(self)
            await self._stopping.wait()
            await self._drain()
        return not self.failed

    async def _open(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        executor = self.executor
        executor.deps = await stack.enter_async_context(self.app.lifespan())
        executor.threads = ThreadSlots(loop, self.settings.concurrency)
        stack.callback(executor.threads.close)
        if any(definition.kind == "process" for definition in self._registry.values()):
            executor.processes = ProcessSlots(self.settings.app, self._process_count())
            stack.push_async_callback(executor.processes.close)
        stack.push_async_callback(executor.close)
        stack.push_async_callback(self._client.aclose)
        stack.push_async_callback(self._end_tasks)
        self._server = WorkerServer(self.settings.host, self.settings.metrics_port, self.health, self.stats)
        await self._server.start()
        stack.push_async_callback(self._server.stop)
        self._beats = Heartbeat(
            self.redis,
            [claims.queue for claims in self._claims.values()],
            self.name,
            self._info(),
            self.settings.beat_s,
            self._on_beat,
            self._on_beat_error,
        )
        self._start_duties()

    def _start_duties(self) -> None:
        for claims in self._claims.values():
            claims.next_due = lambda due_ms, claims=claims: self._promote_at(claims, due_ms)  # type: ignore[misc]
            claims.on_missing = lambda claims=claims: self._spawn(self._prepare(claims))  # type: ignore[misc]
            self._spawn(self._keep_waiting(claims))
            self._spawn(self._reclaim(claims))
            self._spawn(self._purge(claims))
        self._spawn(self._keep_connected())
        self._spawn(self._watch())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for handle in self._promotions.values():
            handle.cancel()
        for claims in self._claims.values():
            claims.waiter.stop()
            await claims.waiter.wait_closed()
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()

    def _process_count(self) -> int:
        import os

        return min(self.settings.processes or os.cpu_count() or 1, self.settings.concurrency)

    def _info(self) -> bytes:
        import os

        facts = {
            "worker_id": self.settings.worker_id,
            "pid": os.getpid(),
            "concurrency": self.settings.concurrency,
            "started_ms": int(time.time() * 1000),
            "metrics_port": self._server.port,
            "types": sorted(self._registry)[:1000],
        }
        return msgspec.json.encode(facts)

    # connections

    async def _keep_connected(self) -> None:
        """The one supervised loop that brings the claim connection back."""
        failures = 0
        while True:
            try:
                self._connection = connection = await connect(self.redis, "headrace-claims")
                for claims in self._claims.values():
                    await self._prepare(claims, connection)
                if not self._beats.started:
                    await self._beats.start()
                self.stats.redis_up = True
                for claims in self._claims.values():
                    claims.connected(connection)
                if failures:
                    logger.info("Redis is back at %s", self.redis)
                failures = 0
                await connection.wait_closed()
                reason: Exception | None = connection.lost
            except HeadraceError as error:
                reason = error
            self.stats.redis_up = False
            self.stats.redis_errors += 1
            for claims in self._claims.values():
                claims.disconnected()
            if failures in {0, 20}:
                logger.warning("%s", reason)
            await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])
            failures += 1

    async def _prepare(self, claims: QueueClaims, connection: Connection | None = None) -> None:
        """The queue exists and is listed, its epoch is known, and what was parked for our types is released."""
        connection = connection or self._connection
        if connection is None or connection.lost is not None:
            return
        queue = claims.queue
        claims.epoch, _ = await connection.call(queue.init(connection.run_id))
        types = {name: msgspec.json.encode(definition.describe()) for name, definition in self._registry.items()}
        await connection.call(queue.enlist(max_queues=self.settings.max_queues, types=types))
        await self._release(queue, connection)

    async def _release(self, queue: Queue, connection: Connection) -> None:
        keys = [*self._registry, *(f"!v{version}" for version in range(1, ENVELOPE_VERSION + 1))]
        for start in range(0, len(keys), 100):
            while await connection.call(queue.release(keys[start : start + 100])):
                continue

    async def _keep_waiting(self, claims: QueueClaims) -> None:
        failures = 0
        while True:
            try:
                connection = await connect(self.redis, "headrace-wait")
                claims.waiter.connected(connection)
                failures = 0
                await connection.wait_closed()
            except HeadraceError:
                failures += 1
            await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])

    # duties

    def _loop_ms(self) -> float:
        return asyncio.get_running_loop().time() * 1000

    def _on_beat(self, queue: str, beat: Beat) -> None:
        claims = self._claims[queue]
        self._clock_ms = beat.now_ms - self._loop_ms()
        self.stats.heartbeat_s = time.time()
        claims.late_order = late_order(beat.oldest, beat.now_ms, self.settings.age_bound_s)
        if beat.asked:
            self.executor.cancel(set(beat.asked))
        if beat.next_due_ms is not None:
            self._promote_at(claims, beat.next_due_ms)
        claims.reconcile()

    def _on_beat_error(self, error: Exception) -> None:
        self.stats.redis_errors += 1

    def _promote_at(self, claims: QueueClaims, due_ms: int) -> None:
        """A promotion at that time of Redis' clock, unless an earlier one is planned."""
        loop = asyncio.get_running_loop()
        when = max(loop.time(), (due_ms - self._clock_ms) / 1000 + 0.001)
        planned = self._promotions.get(claims.queue.name)
        if planned is not None and not planned.cancelled() and loop.time() <= planned.when() <= when:
            return
        if planned is not None:
            planned.cancel()
        handle = loop.call_at(when, lambda: self._spawn(self._promote(claims)))
        self._promotions[claims.queue.name] = handle

    async def _promote(self, claims: QueueClaims) -> None:
        self._promotions.pop(claims.queue.name, None)
        try:
            next_due = await promote(self._client, claims.queue)
        except HeadraceError:
            return  # the next beat tells the due time again
        if next_due is not None:
            self._promote_at(claims, next_due)

    async def _reclaim(self, claims: QueueClaims) -> None:
        settings = self.settings
        watch = Watch(
            settings.dead_after_s,
            own=self.name,
            max_crashes=settings.max_crashes,
            backoff_ms=round(settings.backoff_base_s * 5_000),
        )
        while True:
            await asyncio.sleep(max(self.settings.beat_s, self.settings.dead_after_s / 4))
            try:
                self.stats.redelivered += await reclaim_pass(
                    self._client, claims.queue, watch, time.monotonic(), retention_s=int(settings.retention_s)
                )
                # A worker beside us may not know a type that we know (a rollout): it parks, we release.
                await self._release(claims.queue, await self._client.connection())
            except HeadraceError:
                watch.reset(time.monotonic())

    async def _purge(self, claims: QueueClaims) -> None:
        while True:
            await asyncio.sleep(PURGE_S)
            try:
                now_ms = int(self._clock_ms + self._loop_ms())
                self.stats.purged += sum(await purge_pass(self._client, claims.queue, self.settings, now_ms))
            except HeadraceError as error:
                logger.debug("dead letters were not purged: %s", error)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + WATCH_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self.stats.loop_lag(loop.time() - due)
            self.stats.busy = len(self.executor.running)
            self.executor.watch()
            for claims in self._claims.values():
                claims.look(loop.time())
            if self.executor.leaked >= self.settings.max_leaks and not self._stopping.is_set():
                logger.error("%d handlers do not end although they are over their timeout", self.executor.leaked)
                self.failed = True
                self.stop()

    def health(self) -> Health:
        """Alive unless its own round trips stand still although Redis answers others."""
        connection = self._connection
        stalled = connection is not None and connection.stalled_s() > STALL_S and self._beats.answered_within(STALL_S)
        reason = "a request to Redis has no answer although its heartbeats are answered" if stalled else ""
        return Health(alive=not stalled, ready=not self._stopping.is_set(), reason=reason)

    # the way out

    async def _drain(self) -> None:
        """Claim no more, let what runs end within the grace, hand the rest back, report all, sign off."""
        executor, grace = self.executor, self.settings.grace_s
        logger.info("draining: %d running", len(executor.running))
        for claims in self._claims.values():
            claims.draining = True
            claims.waiter.stop()
        self._idle.clear()
        if executor.running:
            try:
                async with asyncio.timeout(grace):
                    await self._idle.wait()
            except TimeoutError:
                await self._interrupt()
        try:
            async with asyncio.timeout(REPORT_S):
                await self._sign_off()
        except (HeadraceError, TimeoutError) as error:
            logger.warning("could not sign off: %s; other workers take over what is left", error)
            await self._beats.stop()

    async def _interrupt(self) -> None:
        left = list(self.executor.running.values())
        logger.warning("%d tasks outlast the grace of %g s and are handed back", len(left), self.settings.grace_s)
        for run in left:
            self.executor.stop(run, "drained")
        await asyncio.sleep(0)

    async def _sign_off(self) -> None:
        while any(claims.unreported for claims in self._claims.values()):
            for claims in self._claims.values():
                claims.wake()
            await asyncio.sleep(0.01)
        # A beat after the sign-off would make this worker look alive again.
        await self._beats.stop()
        for claims in self._claims.values():
            more = True
            while more:
                _, more = await self._client.call(claims.queue.hand_back(self.name, leave=True))


async def serve(app: App[Any], settings: WorkerSettings, redis: RedisSettings) -> int:
    """Run a worker until SIGTERM or SIGINT. Returns the exit code."""
    worker = Worker(app, settings, redis)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    return 0 if await worker.run() else 1
