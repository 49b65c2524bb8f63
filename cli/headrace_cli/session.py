"""One namespace of one Redis, for commands that ask it or tell it something, by the same rules as the API."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_api.services import Namespace, Services

R = TypeVar("R")


@dataclass(frozen=True)
class Session:
    """What a command works with."""

    namespace: Namespace
    settings: ApiSettings
    services: Services


@asynccontextmanager
async def _open(url: str | None, namespace: str | None) -> AsyncIterator[Session]:
    # The address is of no interest here, but settings of an API that lets in everyone would be refused.
    settings = ApiSettings.from_env(os.environ, host="127.0.0.1", namespace=namespace)
    services = Services(settings, RedisSettings.from_env(os.environ, url))
    try:
        # Its errors name the server and the setting that it came from, and do not wait for a deadline.
        await services.store.connection()
        yield Session(services.namespace(settings.namespace), settings, services)
    finally:
        await services.aclose()


def run(work: Callable[[Session], Awaitable[R]]) -> R:
    """Carry out a command's work with what its options say."""
    options = click.get_current_context().params
    url, namespace = options.get("url"), options.get("namespace")

    async def main() -> R:
        async with _open(url, namespace) as session:
            return await work(session)

    return asyncio.run(main())
