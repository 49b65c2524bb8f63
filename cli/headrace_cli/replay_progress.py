"""How far a replay is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import click

from .output import console
from .replay_run import State

LINE_S: Final = 5.0
"""Seconds between two lines where there is no terminal."""
_FRAME_S: Final = 0.1


@asynccontextmanager
async def progress(state: State, *, quiet: bool) -> AsyncIterator[None]:
    """Show the state until the block ends; when `quiet`, show nothing."""
    if quiet:
        yield
        return
    show = _bar if sys.stdout.isatty() else _lines
    shown = asyncio.create_task(show(state))
    try:
        yield
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)


async def _lines(state: State) -> None:
    while True:
        await asyncio.sleep(LINE_S)
        click.echo(sentence(state))


def sentence(state: State) -> str:
    """One line of progress."""
    killed = f", {state.kills} workers killed" if state.kills else ""
    refused = f", {state.refused} refused" if state.refused else ""
    return f"{len(state.accepted):,} of {state.total:,} submitted, {state.completed:,} completed{refused}{killed}"


async def _bar(state: State) -> None:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=40, complete_style="cyan", finished_style="green"),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(), auto_refresh=False) as bars:
        sent = bars.add_task("submitted", total=state.total, note="")
        done = bars.add_task("completed", total=state.total, note="")

        def draw() -> None:
            killed = f"   {state.kills} killed" if state.kills else ""
            bars.update(sent, completed=len(state.accepted), note=f"{len(state.accepted):,} of {state.total:,}")
            bars.update(done, completed=state.completed, note=f"{state.completed:,} of {state.total:,}{killed}")
            bars.refresh()

        try:
            while True:
                draw()
                await asyncio.sleep(_FRAME_S)
        finally:
            draw()
