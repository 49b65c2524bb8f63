"""Options of commands that change many tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["sure_options"]


def sure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dry-run` and `--yes`."""
    dry = click.option("--dry-run", is_flag=True, help="Only say how many tasks it is about.")
    yes = click.option("--yes", is_flag=True, help="Do not ask.")
    return dry(yes(command))
