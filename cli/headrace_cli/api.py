"""`headrace api`: serve the HTTP API in this process."""

from __future__ import annotations

import os

import click

from .command import Command
from .options import redis_option


@click.command(
    "api",
    cls=Command,
    examples="""
        headrace api
        PORT=9000 headrace api
        HEADRACE_TOKENS=shop:s3cret-of-32-characters-or-more headrace api --host 0.0.0.0
    """,
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on; or HEADRACE_HOST. [127.0.0.1]")
@click.option("--port", metavar="PORT", help="Port to listen on, 0 takes a free one; or PORT. [8080]")
@click.option("--auth", metavar="tokens|none", help="`none` lets everyone in; or HEADRACE_AUTH. [tokens]")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error. [info]")
@click.option("--log-format", metavar="FORMAT", help="json, text, or auto: text in a terminal. [auto]")
@redis_option
def command(url: str | None, **flags: str | None) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C, which let requests end.

    On a loopback address everyone on the machine is let in; elsewhere it needs HEADRACE_TOKENS or --auth none.
    """
    from headrace.logs import setup_logging
    from headrace.redis_settings import RedisSettings
    from headrace.settings import ApiSettings

    settings = ApiSettings.from_env(os.environ, **flags)
    setup_logging(settings.log_level, None if settings.log_format == "auto" else settings.log_format == "json")
    redis = RedisSettings.from_env(os.environ, url)

    from headrace_api.server import run

    run(settings, redis)
