"""`headrace queue ls|pause|resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Command, LazyGroup
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.broker.broker import Depth

    from .session import Session


@click.group(
    "queue",
    cls=LazyGroup,
    examples="""
        headrace queue ls
        headrace queue pause orders
        headrace queue resume orders
    """,
)
def command() -> None:
    """List queues, pause and resume them."""


@command.command(
    "ls",
    cls=Command,
    examples="""
        headrace queue ls
        headrace queue ls -o json | jq '.[] | select(.pending > 1000)'
    """,
)
@session_options
@output_option
def ls(output: str, **_: Any) -> None:
    """List the queues: what waits, runs, is due later, and failed."""
    from .output import print_json, print_table
    from .session import run

    async def work(session: Session) -> dict[str, Depth]:
        return dict((await session.lookout.look()).depths)

    rows = [_facts(name, depth) for name, depth in sorted(run(work).items())]
    if output == "json":
        print_json(rows)
    elif not rows:
        click.echo("There are no queues yet: the first task or worker makes one.")
    else:
        print_table([name.upper() for name in rows[0]], [[_cell(value) for value in row.values()] for row in rows])


def _facts(name: str, depth: Depth) -> dict[str, str | int | float | bool | None]:
    waiting = [stream.oldest_ms for stream in depth.streams.values() if stream.oldest_ms is not None]
    return {
        "queue": name,
        "pending": depth.waiting,
        "processing": depth.processing,
        "scheduled": depth.delayed,
        "parked": depth.parked,
        "failed": depth.dead,
        "workers": depth.workers,
        "oldest_s": round(max(0, depth.now_ms - min(waiting)) / 1000, 1) if waiting else None,
        "paused": depth.paused,
    }


def _cell(value: str | float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


@command.command(
    "pause",
    cls=Command,
    examples="""
        headrace queue pause orders
    """,
)
@click.argument("name", metavar="QUEUE")
@session_options
def pause(name: str, **_: Any) -> None:
    """Claim nothing more from a queue. Running tasks go on, and submissions are accepted."""
    _set_paused(name, True)


@command.command(
    "resume",
    cls=Command,
    examples="""
        headrace queue resume orders
    """,
)
@click.argument("name", metavar="QUEUE")
@session_options
def resume(name: str, **_: Any) -> None:
    """Claim from a paused queue again."""
    _set_paused(name, False)


def _set_paused(name: str, paused: bool) -> None:
    from headrace.errors import ConfigError, nearest

    from .session import run

    async def work(session: Session) -> bool:
        known = (await session.lookout.look()).depths
        if name not in known:
            meant = nearest(name, known)
            hint = f"Did you mean {meant!r}?" if meant else "`headrace queue ls` lists those there are"
            raise ConfigError(f"There is no queue {name!r}", hint)
        return await session.store.read(session.queue(name).pause(paused))

    changed = run(work)
    state = "paused" if paused else "not paused"
    click.echo(f"{name}: {state}" if changed else f"{name}: {state} already")
