"""`headrace bench`: how many tasks a second this machine and its Redis carry, in a namespace of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Command
from .options import output_option, redis_option

if TYPE_CHECKING:
    from headrace.redis_settings import RedisSettings

    from .bench_run import Figure


@click.command(
    "bench",
    cls=Command,
    examples="""
        headrace bench
        headrace bench --tasks 100000 --payload 1024 --concurrency 50
        headrace bench --redis redis://redis.example.org:6379/0 --yes -o json
    """,
)
@click.option("--tasks", metavar="N", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True)
@click.option("--payload", metavar="BYTES", type=click.IntRange(0, 60_000), default=100, show_default=True)
@click.option("--concurrency", metavar="N", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask before a Redis on another machine is put under load.")
@redis_option
@output_option
def command(tasks: int, payload: int, concurrency: int, yes: bool, url: str | None, output: str) -> None:
    """Submit tasks that do nothing, run them in this process, and say how many a second went through.

    Works in a namespace of its own, which is deleted at the end: your queues are not touched, but share the server.
    """
    import os

    from headrace.redis_settings import RedisSettings

    from .bench_run import Plan, measure

    redis = RedisSettings.from_env(os.environ, url)
    if not yes and not _is_local(redis):
        _ask(redis)
    from .worker import run_loop

    _show(run_loop(measure(Plan(redis, tasks, payload, concurrency))), output)


def _is_local(redis: RedisSettings) -> bool:
    if redis.kind == "unix":
        return True
    hosts = [host for host, _ in redis.sentinels] if redis.kind == "sentinel" else [redis.host]
    return all(host in {"localhost", "::1"} or host.startswith("127.") for host in hosts)


def _ask(redis: RedisSettings) -> None:
    import sys

    if not sys.stdin.isatty():
        raise click.UsageError(f"Redis is on another machine, {redis}: add --yes to put it under load.")
    click.confirm(f"Put {redis} under load?", abort=True, err=True)


def _show(found: list[Figure], output: str) -> None:
    from .records import Column, Listing, show_all

    columns: list[Column[Figure]] = [
        Column("STEP", lambda each: each.step),
        Column("TASKS", lambda each: each.tasks),
        Column("SECONDS", lambda each: each.seconds),
        Column("TASKS_PER_S", lambda each: each.tasks_per_s),
    ]
    show_all(found, Listing(columns, lambda each: each.step, "Nothing was measured."), output)
