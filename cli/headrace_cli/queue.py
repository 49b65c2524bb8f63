"""`headrace queue ls|get|pause|resume|limit`; purge is in queue_purge.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Command, LazyGroup
from .complete import queue_names
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.queues import QueueState, QueueView

    from .records import Cell, Column
    from .session import Session

queue_argument = click.argument("name", metavar="QUEUE", shell_complete=queue_names)


@click.group(
    "queue",
    cls=LazyGroup,
    lazy={"purge": ("queue_purge", "Cancel all that waits in a queue, or delete its dead letters.")},
    examples="""
        headrace queue ls
        headrace queue get orders
        headrace queue pause orders
        headrace queue resume orders
    """,
)
def command() -> None:
    """List queues; pause, resume, limit and empty them."""


@command.command(
    "ls",
    cls=Command,
    examples="""
        headrace queue ls
        headrace queue ls --watch
        headrace queue ls -o json | jq '.[] | select(.pending > 1000)'
    """,
)
@click.option("--watch", is_flag=True, help="Show them anew whenever something changed, until Ctrl-C.")
@session_options
@output_option
def ls(output: str, watch: bool, **_: Any) -> None:
    """List the queues: how much waits, runs, is due later or dead."""
    from .records import Column, Listing, show_all, span
    from .session import run
    from .watch import keep_showing

    columns: list[Column[QueueView]] = [
        _column("queue"),
        *map(_column, ("pending", "processing", "scheduled", "parked", "dead_letters")),
        Column("WORKERS", lambda each: len(each.workers)),
        Column("OLDEST", lambda each: span(each.oldest_s)),
        _column("paused"),
        *(_column(name, wide=True) for name in ("completed", "failed", "cancelled", "live")),
        Column("MAX_DEPTH", lambda each: each.limits.max_depth, wide=True),
        Column("RATE", lambda each: each.limits.rate, wide=True),
    ]
    listing = Listing(columns, lambda each: each.queue, "There are no queues yet: the first task or worker makes one.")
    run(lambda session: keep_showing(lambda: _all(session), lambda found: show_all(found, listing, output), watch))


def _column(name: str, *, wide: bool = False) -> Column[QueueView]:
    from .records import Column

    def cell(each: QueueView) -> Cell:
        value: Cell = getattr(each, name)
        return value

    return Column(name.upper(), cell, wide)


async def _all(session: Session) -> list[QueueView]:
    from headrace.queues import describe, serving

    depths = sorted((await session.lookout.look()).depths.items())
    return [describe(name, depth, await serving(session.client, session.queue(name))) for name, depth in depths]


@command.command(
    "get",
    cls=Command,
    examples="""
        headrace queue get orders
        headrace queue get orders -o json | jq .priorities.high.pending
    """,
)
@queue_argument
@session_options
@output_option
def get(name: str, output: str, **_: Any) -> None:
    """Show a queue: how much is where, workers and limits."""
    from headrace.queues import look, serving

    from .records import show_one
    from .session import run

    async def work(session: Session) -> QueueView:
        queue = session.queue(name)
        return await look(session.client, queue, await serving(session.client, queue))

    found = run(work)
    show_one(found, found.queue, _lines(found), output)


def _lines(found: QueueView) -> list[str]:
    from .records import span

    facts = {
        "queue": found.queue + (" (paused)" if found.paused else ""),
        "live": f"{found.live:,}: {found.pending:,} pending, {found.processing:,} processing, "
        f"{found.scheduled:,} scheduled, {found.parked:,} parked",
        "ended": f"{found.completed:,} completed, {found.failed:,} failed, {found.cancelled:,} cancelled",
        "dead": f"{found.dead_letters:,} dead letters kept",
        "workers": ", ".join(found.workers),
        "limits": f"{found.limits.max_depth or 'HEADRACE_MAX_DEPTH'} live tasks"
        + (f", {found.limits.rate} submissions" if found.limits.rate else ""),
    }
    lines = [f"{title:<10} {text}" for title, text in facts.items() if text]
    for priority, each in found.priorities.items():
        if each.pending or each.processing:
            oldest = f", the oldest for {span(each.oldest_s)}" if each.oldest_s is not None else ""
            lines.append(f"{'':<10} {priority}: {each.pending:,} pending{oldest}; {each.processing:,} processing")
    return lines


@command.command(
    "pause",
    cls=Command,
    examples="""
        headrace queue pause orders
    """,
)
@queue_argument
@session_options
@output_option
def pause(name: str, output: str, **_: Any) -> None:
    """Claim nothing more from a queue. Running tasks go on, and submissions are accepted."""
    _set_paused(name, True, output)


@command.command(
    "resume",
    cls=Command,
    examples="""
        headrace queue resume orders
    """,
)
@queue_argument
@session_options
@output_option
def resume(name: str, output: str, **_: Any) -> None:
    """Claim from a paused queue again."""
    _set_paused(name, False, output)


def _set_paused(name: str, paused: bool, output: str) -> None:
    from headrace import queues

    from .records import say
    from .session import run

    async def work(session: Session) -> QueueState:
        change = queues.pause if paused else queues.resume
        changed = await change(session.client, session.queue(name))
        await session.record("queue.pause" if paused else "queue.resume", name, name)
        return queues.QueueState(name, paused, changed)

    made = run(work)
    state = "paused" if paused else "not paused"
    say(made, name, state if made.changed else f"{state} already", output)


@command.command(
    "limit",
    cls=Command,
    examples="""
        headrace queue limit orders --max-depth 10000
        headrace queue limit orders --rate 100/s
        headrace queue limit orders --rate none
    """,
)
@queue_argument
@click.option("--max-depth", metavar="N|none", help="Live tasks it may hold.")
@click.option("--rate", metavar="N/UNIT|none", help="Submissions over HTTP, as 100/s, 6000/min or 10000/h.")
@session_options
@output_option
def limit(name: str, max_depth: str | None, rate: str | None, output: str, **_: Any) -> None:
    """Set limits of one queue; `none` removes one. What is not named stays."""
    from headrace import queues

    from .records import say
    from .session import run

    given = {"max_depth": max_depth, "rate": rate}
    limits = {key: _limit(text) for key, text in given.items() if text is not None}
    if not limits:
        raise click.UsageError("Say which limit: --max-depth N or --rate N/s.")

    async def work(session: Session) -> QueueView:
        queue = session.queue(name)
        await queues.limit(session.client, queue, **limits)
        await session.record("queue.limit", name, name, **limits)
        return await queues.look(session.client, queue, await queues.serving(session.client, queue))

    seen = run(work)
    without = {"max_depth": "as HEADRACE_MAX_DEPTH", "rate": "none"}
    words = ", ".join(f"{key.replace('_', ' ')} {value or without[key]}" for key, value in limits.items())
    say(seen, name, words, output)


def _limit(text: str) -> int | str | None:
    if text == "none":
        return None
    return int(text) if text.isdecimal() else text
