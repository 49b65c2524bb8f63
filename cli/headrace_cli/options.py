"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .records import FORMS

redis_option = click.option(
    "--redis",
    "url",
    metavar="URL",
    help="Where Redis is; else HEADRACE_URL, REDIS_ADDR, the Redis of `headrace dev`, localhost:6379.",
)
namespace_option = click.option("--namespace", metavar="NAME", help="The tenant; else HEADRACE_NAMESPACE. [default]")
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(FORMS),
    default="table",
    show_default=True,
    help="For people (wide: all columns), for programs, or names alone.",
)
report_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where Redis is, and which tenant: for commands that `headrace_cli.session` carries out."""
    return redis_option(namespace_option(command))
