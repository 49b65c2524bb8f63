"""Options of commands that change many tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["order_options", "sure_options"]


def sure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dry-run`, `--expected-count` and `--yes`."""
    dry = click.option("--dry-run", is_flag=True, help="Only say how many tasks it is about.")
    expected = click.option(
        "--expected-count",
        metavar="N",
        type=click.IntRange(0),
        help="Do nothing if it is about another number of tasks.",
    )
    yes = click.option("--yes", is_flag=True, help="Do not ask.")
    return dry(expected(yes(command)))


def order_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which tasks: a filter, or `--id`; and those of `sure_options`."""
    words = click.argument("words", metavar="[FILTER]…", nargs=-1)
    ids = click.option(
        "--id",
        "ids",
        metavar="ID",
        multiple=True,
        help="In place of a filter, up to 1,000; may be given several times, and - reads them from standard input.",
    )
    return words(ids(sure_options(command)))
