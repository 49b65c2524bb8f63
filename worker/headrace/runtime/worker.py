"""A worker process, put together: connections, claim loops, slots, beats, passes, health, and the way out."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

import headrace
from headrace.broker.broker import Beat, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.connection import Connection
from headrace.broker.publishing import RENEW_S
from headrace.broker.safety import LOOK_S, Safety
from headrace.context import progress_listeners
from headrace.errors import HeadraceError
from headrace.redis_settings import RedisSettings
from headrace.runtime.claims import QueueClaims
from headrace.runtime.drain import Drain
from headrace.runtime.due import Promotions
from headrace.runtime.executor import Executor
from headrace.runtime.handshake import Handshake
from headrace.runtime.heartbeat import Heartbeat
from headrace.runtime.policy import late_order
from headrace.runtime.processes import ProcessSlots
from headrace.runtime.progress import KEEP_S, Rows
from headrace.runtime.reclaimer import Watch, crash_backoff_ms, reclaim_pass
from headrace.runtime.reconnect import Voice, keep_connected
from headrace.runtime.retention import purge_pass
from headrace.runtime.server import Health, WorkerServer
from headrace.runtime.stats import WorkerStats
from headrace.runtime.stops import WATCH_S
from headrace.runtime.threads import ThreadSlots
from headrace.runtime.upkeep import Upkeep
from headrace.settings import WorkerSettings

if TYPE_CHECKING:
    from headrace.app import App

logger = logging.getLogger("headrace.worker")

PURGE_S: Final = 60.0
STALL_S: Final = 30.0
LAST_BEAT_S: Final = 0.3
"""After the sign-off: a beat that still hangs then would keep children, hooks and the lifespan from their end."""
EXIT_S: Final = 5.0
"""A process whose worker has ended is gone after so many seconds, whatever handlers left running in it."""


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
        self._opening: asyncio.Timeout | None = None
        self._served = False
        self.executor = Executor(app, settings, self.name, self.stats)
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
        self.executor.shares.serve(list(self._claims.values()))
        self._client = AsyncClient(redis, "headrace-passes")
        self._connection: Connection | None = None
        self._safety = Safety(self._client.command)
        self._handshake = Handshake(self._claims)
        self._drain = Drain(self.name, self.executor, list(self._claims.values()), self._client, settings)
        self._promotions = Promotions(self._client, self._spawn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._waits: list[asyncio.Task[None]] = []
        self._upkeep = Upkeep(self.executor.registry, settings.max_queues)
        self._late = False

    # life

    def stop(self) -> None:
        """Begin to drain; `run` returns when that is done, or at once while what its handlers share still opens."""
        self._stopping.set()
        if self._opening is not None:
            self._opening.reschedule(asyncio.get_running_loop().time())
            self._opening = None

    def hurry(self) -> None:
        """Stop without the grace: what still runs is handed back now."""
        self._drain.hurry()
        self.stop()

    async def run(self, on_ready: Any = None) -> bool:
        """Serve until stopped. Returns False if handlers that never end forced the stop."""
        async with AsyncExitStack() as stack:
            if await self._opened(stack):
                if on_ready is not None:
                    on_ready(self)
                await self._stopping.wait()
                for wait in self._waits:
                    wait.cancel()
                await self._drain.run(self._beats)
        return not self.failed

    async def _opened(self, stack: AsyncExitStack) -> bool:
        """Open all; False if it is stopped before that is done, as where the lifespan waits for what is away."""
        try:
            async with asyncio.timeout(None) as self._opening:
                await self._open(stack)
        except TimeoutError:
            if not self._stopping.is_set():
                raise
            logger.info("stopped before it was ready")
            return False
        finally:
            self._opening = None
        return True

    async def _open(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        executor = self.executor
        executor.deps = await stack.enter_async_context(self.app.lifespan())
        executor.hooks.deps = executor.deps
        progress_listeners.append(executor.progress.note)
        stack.callback(progress_listeners.remove, executor.progress.note)
        stack.push_async_callback(executor.hooks.close)
        executor.threads = ThreadSlots(loop, self.settings.concurrency)
        stack.callback(executor.threads.close)
        if any(definition.kind == "process" for definition in self.executor.registry.values()):
            executor.processes = ProcessSlots(self.settings.app, self._process_count())
            stack.push_async_callback(executor.processes.close)
        executor.start()
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
        stack.push_async_callback(self._beats.stop, LAST_BEAT_S)
        self._start_duties()

    def _start_duties(self) -> None:
        voice = Voice()
        for claims in self._claims.values():
            claims.next_due = partial(self._promotions.plan, claims.queue)
            claims.on_missing = partial(self._on_missing, claims)
            waiting = keep_connected(self.redis, "headrace-wait", claims.waiter.connected, voice=voice)
            self._waits.append(self._spawn(waiting))
            self._spawn(self._reclaim(claims))
            self._spawn(self._purge(claims))
        self._spawn(keep_connected(self.redis, "headrace-claims", self._connected, self._disconnected, voice))
        self._spawn(self._watch())
        self._spawn(self._renew())
        self._spawn(self._look_at_redis())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A duty that ends by an error is a bug, and a worker without it would only look as if it worked."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.critical("the worker stops, because one of its duties failed", exc_info=error)
            self.failed = True
            self.stop()

    async def _end_tasks(self) -> None:
        self._promotions.close()
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for claims in self._claims.values():
            claims.disconnected()

    def _process_count(self) -> int:
        return min(self.settings.processes or os.cpu_count() or 1, self.settings.concurrency)

    def _info(self) -> bytes:
        facts = {
            "worker_id": self.settings.worker_id,
            "version": headrace.__version__,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "concurrency": self.settings.concurrency,
            "started_ms": int(time.time() * 1000),
            "metrics_port": self._server.port,
            "types": sorted(self.executor.registry)[:1000],
        }
        return msgspec.json.encode(facts)

    # connections

    async def _connected(self, connection: Connection) -> None:
        """A new connection for claims: nothing is claimed on it before a beat, and before what was lost is known."""
        for claims in self._claims.values():
            await self._upkeep.prepare(claims, connection)
        if not self._beats.started:
            await self._beats.start()
        self._connection = connection
        self.stats.redis_up = self._served = True
        for claims in self._claims.values():
            claims.connected(connection)

    def _disconnected(self, reason: Exception) -> None:
        self.stats.redis_up = False
        self.stats.redis_errors += 1
        for claims in self._claims.values():
            claims.disconnected()

    def _on_missing(self, claims: QueueClaims) -> None:
        if self._connection is not None and self._upkeep.starts_mending(claims):
            self.stats.redis_errors += 1
            self._spawn(self._upkeep.mend(claims, self._connection))

    # duties

    def _on_beat(self, queue: str, beat: Beat) -> None:
        claims = self._claims[queue]
        self._promotions.learn(beat.now_ms)
        self.stats.heartbeat_s = time.time()
        self._handshake.look(queue)
        claims.late_order = late_order(beat.oldest, beat.now_ms, self.settings.age_bound_s, claims.order)
        if not self._stopping.is_set() and self._handshake.heard(queue, beat.drain):
            self._beats.loads = self._handshake.loads(len(self.executor.running))
            self._spawn(self._beat_soon())
        if beat.asked:
            self.executor.stops.cancel(set(beat.asked))
        if beat.next_due_ms is not None:
            self._promotions.plan(claims.queue, beat.next_due_ms)
        claims.reconcile()

    async def _beat_soon(self) -> None:
        with suppress(HeadraceError):  # the next beat in turn tells it, too
            await self._beats.beat_now()

    def _on_beat_error(self, error: Exception) -> None:
        self.stats.redis_errors += 1

    async def _reclaim(self, claims: QueueClaims) -> None:
        settings = self.settings
        watch = Watch(
            settings.dead_after_s,
            own=self.name,
            max_crashes=settings.max_crashes,
            backoff_ms=crash_backoff_ms(settings),
        )
        while True:
            await asyncio.sleep(max(self.settings.beat_s, self.settings.dead_after_s / 4))
            try:
                done = await reclaim_pass(
                    self._client, claims.queue, watch, time.monotonic(), retention_s=int(settings.retention_s)
                )
                self.stats.reclaimed(done)
                # A worker beside us may not know a type that we know (a rollout): it parks, we release.
                await self._upkeep.release(claims.queue, await self._client.connection())
            except HeadraceError:
                watch.reset(time.monotonic())

    async def _purge(self, claims: QueueClaims) -> None:
        while True:
            await asyncio.sleep(PURGE_S)
            try:
                now_ms = self._promotions.now_ms()
                self.stats.purged += sum(await purge_pass(self._client, claims.queue, self.settings, now_ms))
            except HeadraceError as error:
                logger.debug("dead letters were not purged: %s", error)

    async def _renew(self) -> None:
        namespace = next(iter(self._claims.values())).queue.namespace
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._upkeep.renew(namespace, await self._client.connection())
            except HeadraceError as error:
                logger.debug("the types were not renewed: %s", error)

    async def _look_at_redis(self) -> None:
        while True:
            with suppress(HeadraceError):
                self.stats.risks = await self._safety.look()
            await asyncio.sleep(LOOK_S)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + WATCH_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self.stats.loop_lag(loop.time() - due)
            self.stats.busy = len(self.executor.running)
            self._beats.loads = self._handshake.loads(self.stats.busy)
            self.executor.look_at_clock()
            self.executor.stops.watch()
            for queue, rows in self.executor.progress.due(loop.time(), self.executor.running.values()).items():
                self._spawn(self._tell_progress(self._claims[queue].queue, rows))
            for claims in self._claims.values():
                claims.look(loop.time())
            self._watch_connection()
            leaks = min(self.settings.max_leaks, self.settings.concurrency)
            if self.executor.leaked >= leaks and not self._stopping.is_set():
                logger.error("%d handlers do not end although they are over their timeout", self.executor.leaked)
                self.failed = True
                self.stop()

    async def _tell_progress(self, queue: Queue, rows: Rows) -> None:
        try:
            await self._client.call(queue.progress(self.name, rows, ttl_s=KEEP_S))
        except HeadraceError as error:
            logger.debug("progress was not told: %s", error)

    def _watch_connection(self) -> None:
        """A half-open connection is told by nobody. Two looks, since the first may come before the loop has read."""
        connection = self._connection
        limit = self.redis.timeout_s + self.settings.durability_timeout_s
        late = connection is not None and connection.lost is None and connection.stalled_s() > limit
        if late and self._late and connection is not None:
            connection.close(f"no answer within {limit:g} s")
        self._late = late

    def health(self) -> Health:
        """Alive unless its own round trips stand still although Redis answers others."""
        limit = max(STALL_S, 3 * self.settings.beat_s)
        connection = self._connection
        stalled = connection is not None and connection.silent_s() > limit and self._beats.answered_within(limit)
        reason = "its requests to Redis have no answer although its heartbeats have" if stalled else ""
        ready = self._served and not self._stopping.is_set()
        return Health(not stalled, ready, reason, warnings=tuple(self.stats.risks.values()))


async def serve(app: App[Any], settings: WorkerSettings, redis: RedisSettings) -> int:
    """Run a worker until SIGTERM or SIGINT; the second one ends the grace, the third one the process.

    Returns the exit code; the process should end then, and is ended after EXIT_S.
    """
    worker = Worker(app, settings, redis)
    loop = asyncio.get_running_loop()
    signals = iter((worker.stop, worker.hurry))

    def signalled() -> None:
        next(signals, partial(os._exit, 1))()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    code = 1
    try:
        code = 0 if await worker.run() else 1
    finally:
        _leave_within(EXIT_S, code, sys.exception())
    return code


def _leave_within(seconds: float, code: int, error: BaseException | None) -> None:
    """End the process even if a handler's thread, or a coroutine that cannot be cancelled, would keep it; and say what
    `error` ended the worker, since nobody else comes to that."""

    def leave() -> None:
        text = "handlers still run %g s after the worker has ended; the process ends without them"
        logger.warning(text, seconds, exc_info=error)
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
