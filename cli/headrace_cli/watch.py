"""`--watch`: what is shown is looked at again each second, and shown again when it changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import click

__all__ = ["keep_showing"]

T = TypeVar("T")

EVERY_S: Final = 1.0
_TOP_OF_AN_EMPTY_SCREEN: Final = "\x1b[2J\x1b[H"


async def keep_showing(
    look: Callable[[], Awaitable[T]],
    show: Callable[[T], None],
    watch: bool,
    ended: Callable[[T], bool] = lambda seen: False,
) -> T:
    """Look and show; with `watch` again and again, until it `ended`. Returns what was shown last."""
    seen = await look()
    while True:
        if watch and sys.stdout.isatty():
            click.echo(_TOP_OF_AN_EMPTY_SCREEN, nl=False)
        show(seen)
        sys.stdout.flush()
        last = seen
        while seen == last:
            if not watch or ended(seen):
                return seen
            await asyncio.sleep(EVERY_S)
            seen = await look()
