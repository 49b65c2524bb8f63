"""`headrace worker`: run the tasks of an application in this process."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .command import Command
from .options import redis_option

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Coroutine

    from headrace.app import App
    from headrace.redis_settings import RedisSettings
    from headrace.settings import WorkerSettings

R = TypeVar("R")
START: Final = "headrace.worker.start"
"""The logger of that one line: `headrace dev` has a screen of its own for it."""
MAX_NAMED: Final = 8
"""Types that a worker names at its start."""


@click.command(
    "worker",
    cls=Command,
    examples="""
        headrace worker --app examples.tasks
        headrace worker --app shop.tasks:app --queues orders=3,default=1 --concurrency 50
        HEADRACE_URL=rediss://:secret@redis.example.org:6380/0 HEADRACE_APP=shop.tasks headrace worker
    """,
)
@click.option(
    "--app", metavar="MODULE[:ATTR]", help="The application, imported from the current folder; or HEADRACE_APP."
)
@redis_option
@click.option(
    "--queues", metavar="NAME[=WEIGHT],…", help="Queues to serve; by default those of the application's tasks."
)
@click.option("--concurrency", metavar="N", help="Tasks that run at once. [10]")
@click.option("--grace-s", metavar="SECONDS", help="What running tasks have to end after SIGTERM. [30]")
@click.option("--metrics-port", metavar="PORT", help="Port for health and metrics; 0 takes a free one. [9464]")
@click.option("--worker-id", metavar="NAME", help="Its name in records and logs; or WORKER_ID. [the host's name]")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error. [info]")
@click.option("--log-format", metavar="FORMAT", help="json, text, or auto: text in a terminal. [auto]")
def command(url: str | None, **flags: str | None) -> int:
    """Run the tasks of an application until SIGTERM or Ctrl-C, which let running tasks end.

    Every option is also a setting: HEADRACE_CONCURRENCY is --concurrency. Options win.
    """
    from headrace.logs import setup_logging
    from headrace.redis_settings import RedisSettings
    from headrace.settings import WorkerSettings

    settings = WorkerSettings.from_env(os.environ, **flags)
    json = None if settings.log_format == "auto" else settings.log_format == "json"
    setup_logging(settings.log_level, json)
    app = _load(settings)
    settings = _fitted(settings, app, flags)
    redis = RedisSettings.from_env(os.environ, url or app.connections._url)

    _announce(app, settings, redis)
    # Last, because it takes longest: what is wrong in the application is said at once.
    from headrace.runtime.worker import serve

    from .load import start_error

    try:
        return run_loop(serve(app, settings, redis), settings.event_loop)
    except Exception as error:
        raise start_error(settings.app, error) or error from error


def _load(settings: WorkerSettings) -> App[Any]:
    from .load import AppLoadError, load_app

    if not settings.app:
        raise AppLoadError(
            "No application was named", "Write --app MODULE, or set HEADRACE_APP; in a checkout: --app examples.tasks"
        )
    return load_app(settings.app)


def _announce(app: App[Any], settings: WorkerSettings, redis: RedisSettings) -> None:
    """A worker that has nothing to do says nothing further, so this is how one sees what it waits for, and where."""
    queues = f"queue{'s' if len(settings.queues) > 1 else ''} {', '.join(each.name for each in settings.queues)}"
    names = sorted(app.registry)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    known = f"{', '.join(names[:MAX_NAMED])}{more}" or "no type yet, write a function under @app.task()"
    logging.getLogger(START).info(
        "The worker serves %s with %s, %d tasks at once: %s", queues, redis, settings.concurrency, known
    )


def _fitted(settings: WorkerSettings, app: App[Any], flags: dict[str, str | None]) -> WorkerSettings:
    """The settings with what only the application knows: its namespace, and its queues where none were named."""
    from dataclasses import replace

    from headrace.settings import QueueShare

    if app.namespace is not None:
        settings = replace(settings, namespace=app.namespace)
    if flags["queues"] is None and not os.environ.get("HEADRACE_QUEUES"):
        names = sorted({definition.queue for definition in app.registry.values()} or {app.queue})
        settings = replace(settings, queues=tuple(QueueShare(name) for name in names))
    return settings


def run_loop(main: Coroutine[Any, Any, R], event_loop: str = "auto") -> R:
    """Run it in the quickest event loop there is, or in that of `asyncio`."""
    import asyncio

    factory = asyncio.new_event_loop if event_loop == "asyncio" else _quickest
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _quickest() -> AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        import asyncio

        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
