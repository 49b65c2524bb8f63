"""What the Tab key offers beside commands and options: names of queues and types, asked of Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from .session import Session

__all__ = ["queue_names", "type_names"]

PATIENCE_S: Final = 1.0
"""Seconds that a shell may hang after the Tab key."""


def queue_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The queues of the namespace."""
    return _names(ctx, "queues", "SMEMBERS", incomplete)


def type_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The types that workers published."""
    return [name for name in _names(ctx, "types", "HKEYS", incomplete) if "#" not in name]


def _names(ctx: click.Context, key: str, command: str, incomplete: str) -> list[str]:
    from headrace.broker.keys import NamespaceKeys
    from headrace.errors import HeadraceError

    from .session import run

    async def work(session: Session) -> list[bytes]:
        found: list[bytes] = await session.store.command(command, NamespaceKeys(session.settings.namespace)[key])
        return found

    try:
        with ctx.scope(cleanup=False):
            names = sorted(name.decode(errors="replace") for name in run(work, PATIENCE_S))
    except HeadraceError:  # nobody who presses Tab wants to read about a Redis that is away
        return []
    return [name for name in names if name.startswith(incomplete)]
