"""The whole system in one place: Redis, the API in this process, workers in theirs. `dev` and `replay` stand on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from headrace.errors import BadSetting, HeadraceError
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings, WorkerSettings

from .dev_lines import Screen, shown_logs
from .dev_probe import Found
from .dev_process import WorkerCommand, describe_exit
from .dev_store import Store
from .dev_workers import Crew, Workers
from .embedded import EmbeddedRedis

GRACE_S: Final = 2.0
"""What running tasks have to end when the code changes or everything stops, unless HEADRACE_GRACE_S says otherwise."""
_API_STOP_S: Final = 2.0
_LOOK_S: Final = 0.2
_AGAIN_S: Final = 5.0
_ALSO_THE_APIS: Final = ("headrace_build", "process_", "python_", "headrace_redis_")
"""Metrics that API and workers have in common; the API's are shown."""


@dataclass(frozen=True)
class Plan:
    """What shall run. `environ` is for the workers, above that of this process."""

    app: str
    processes: int = 1
    concurrency: str | None = None
    port: int | None = None
    """None: PORT, else 8080, else a free one."""
    environ: Mapping[str, str] | None = None
    raw_logs: bool = False
    others: tuple[str, ...] = ()
    """Applications of pools beside `app`."""
    files: tuple[Path, ...] = ()
    """Of WorkerPools."""


@dataclass(frozen=True)
class FoundRedis:
    """The Redis that is used; `embedded` if it is ours."""

    settings: RedisSettings
    embedded: EmbeddedRedis | None = None

    def __str__(self) -> str:
        if self.embedded is None:
            return str(self.settings)
        binary, home = self.embedded.choice.binary, _short(self.embedded.folder.home)
        if binary is None:
            return f"{self.settings.safe_url}   {self.embedded.choice}: nothing survives a restart"
        version = ".".join(map(str, binary.version))
        return f"{self.settings.safe_url}   {binary.product} {version}, data in {home}/"


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@contextmanager
def find_redis(folder: Path, url: str | None = None) -> Iterator[FoundRedis]:
    """The Redis that was named (`url`, HEADRACE_URL, REDIS_ADDR), else one of our own in this folder."""
    if url or os.environ.get("HEADRACE_URL") or os.environ.get("REDIS_ADDR"):
        yield FoundRedis(RedisSettings.from_env(os.environ, url))
        return
    with EmbeddedRedis(folder) as embedded:
        yield FoundRedis(RedisSettings.parse(embedded.url, "headrace dev"), embedded)


class Stack:
    """API and workers on a Redis. Made by `running`."""

    def __init__(self, redis: FoundRedis, plan: Plan, found: Found, screen: Screen) -> None:
        self.crew = _crew(redis, plan, found)
        self.redis = redis
        self.plan = plan
        self.screen = screen
        self.url = ""
        self.api_settings = _api_settings(plan, found)
        self.store = Store(redis.settings, self.api_settings.namespace, found.queues)
        self.workers = Workers(self.store, screen)
        self.guests: set[str] = set()
        """Names of workers that somebody else keeps running here: those of pools."""

    @property
    def worker_ids(self) -> set[str]:
        """Names of all workers that run here."""
        return {process.worker_id for process in self.workers.processes} | self.guests

    async def reload(self, found: Found) -> bool:
        """Go over to this version of the application. Returns False, and goes on as before, if it does not start."""
        from .dev_http import listen

        self.store.serve(found.queues)
        await listen(self)
        crew = _crew(self.redis, self.plan, found)
        works = await self.workers.replace(crew)
        self.crew = crew if works else self.crew
        return works


def _crew(redis: FoundRedis, plan: Plan, found: Found) -> Crew:
    """Workers for this version of the application."""
    environ = worker_environ(redis, plan)
    settings = WorkerSettings.from_env(environ, concurrency=plan.concurrency)
    arguments = ["--app", plan.app, "--metrics-port", "0", "--concurrency", str(settings.concurrency)]
    if not environ.get("HEADRACE_QUEUES"):
        arguments += ["--queues", ",".join(found.queues)]
    return Crew(WorkerCommand(tuple(arguments), environ), plan.processes, settings.concurrency, settings.grace_s)


def worker_environ(redis: FoundRedis, plan: Plan) -> dict[str, str]:
    """What every worker process is told."""
    environ = {"HEADRACE_GRACE_S": str(GRACE_S), **os.environ, **(plan.environ or {})}
    if redis.embedded is not None:
        environ["HEADRACE_URL"] = redis.settings.url
        for name in ("REDIS_ADDR", "REDIS_PASSWORD"):
            environ.pop(name, None)
    log_format = {} if plan.raw_logs else {"HEADRACE_LOG_FORMAT": "json"}
    return environ | {"HEADRACE_HOST": "127.0.0.1"} | log_format


def _api_settings(plan: Plan, found: Found) -> ApiSettings:
    given = None if plan.port is None else str(plan.port)
    own = {"host": "127.0.0.1", "auth": "none", "namespace": found.namespace}
    settings = ApiSettings.from_env(os.environ, port=given, **own)
    # No tokens: whoever reaches a loopback address can read this process' environment anyway.
    return replace(settings, tokens=(), tokens_file="")


class _WorkerMetrics(Collector):
    """The workers' metrics on the API's own page."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        for family in self._workers.sums.families():
            if not family.name.startswith(_ALSO_THE_APIS):
                yield family


@asynccontextmanager
async def running(
    redis: FoundRedis, plan: Plan, found: Found, screen: Screen, at_once: asyncio.Event
) -> AsyncIterator[Stack]:
    """Start API and workers. At the end the workers drain, or, once `at_once` is set, are ended."""
    stack = Stack(redis, plan, found, screen)
    async with AsyncExitStack() as life:
        life.enter_context(shown_logs(screen, plan.app.partition(".")[0].partition(":")[0]))
        life.push_async_callback(stack.store.aclose)
        await stack.store.check()
        if redis.embedded is not None:
            await stack.store.hand_on_orphans("headrace dev ended")
        # Workers take longest, so they start first. They stop before the API, which tells of the last results.
        starting = asyncio.create_task(stack.workers.start(stack.crew))
        api = AsyncExitStack()
        life.push_async_exit(api)
        life.push_async_callback(stack.workers.stop, at_once)
        life.push_async_callback(_end, [starting])
        for module in ("headrace_api.server", "headrace_cli.dev_http"):
            await asyncio.to_thread(import_module, module)
        stack.url = await api.enter_async_context(_serving(stack))
        life.push_async_callback(_end, [asyncio.create_task(duty) for duty in _duties(stack)])
        if not await starting:
            screen.say("the workers have not started yet", level="warning")
        yield stack


def _duties(stack: Stack) -> list[Coroutine[Any, Any, None]]:
    """What goes on as long as the stack runs."""
    from .dev_http import keep_listening

    embedded = stack.redis.embedded
    watching = [] if embedded is None else [_watch_redis(embedded, stack.screen)]
    return [keep_listening(stack), *watching]


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _serving(stack: Stack) -> AsyncIterator[str]:
    from headrace_api.server import serving

    collectors = [_WorkerMetrics(stack.workers)]
    settings = stack.api_settings
    chosen = stack.plan.port is not None or "PORT" in os.environ
    try:
        async with serving(settings, stack.redis.settings, collectors, stop_s=_API_STOP_S) as url:
            yield url
            return
    except BadSetting:
        if chosen or stack.url:
            raise
    stack.screen.say(f"port {settings.port} is taken, so the API takes another", level="warning")
    async with serving(replace(settings, port=0), stack.redis.settings, collectors, stop_s=_API_STOP_S) as url:
        yield url


async def _watch_redis(embedded: EmbeddedRedis, screen: Screen) -> None:
    """Bring our Redis back when it ends by itself; its data is in its files."""
    while True:
        await asyncio.sleep(_LOOK_S)
        code = embedded.exit_code()
        if code is None:
            continue
        screen.say(f"Redis ended ({describe_exit(code)}); it is started again", level="error")
        try:
            await asyncio.to_thread(embedded.restart)
        except HeadraceError as error:
            screen.say(str(error), level="error")
            await asyncio.sleep(_AGAIN_S)
