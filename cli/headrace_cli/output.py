"""What commands print: data on standard output, all else on standard error; colour in a terminal, none in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["coloured", "complain", "console", "more_about", "note", "print_json", "print_yaml"]


def coloured(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: in a terminal, unless NO_COLOR or TERM=dumb asks for none."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def console(stream: TextIO | None = None) -> Console:
    """A console of rich on this stream (default: standard output)."""
    from rich.console import Console

    target = stream or sys.stdout
    return Console(file=target, no_color=not coloured(target), highlight=False, soft_wrap=not target.isatty())


def complain(sentence: str) -> None:
    """An error, on standard error."""
    click.echo(click.style("Error: ", fg="red", bold=True) + sentence, err=True, color=coloured(sys.stderr))


def note(sentence: str) -> None:
    """Something a person should know, on standard error, so that it is in no pipe."""
    click.echo(click.style(sentence, dim=True), err=True, color=coloured(sys.stderr))


def more_about(code: str) -> str:
    """Where more about an error stands."""
    return f"headrace explain {code} says more."


def print_json(value: Any, *, lines: bool = True) -> None:
    """JSON, indented or in one line. Texts of strangers in it stay escaped where they could deceive a terminal."""
    import msgspec

    _print_data(msgspec.json.format(msgspec.json.encode(value), indent=2 if lines else -1).decode())


def print_yaml(value: Any) -> None:
    """YAML of the same as `print_json`, in the same order."""
    import msgspec

    # By way of JSON, for it has to read the parts that are JSON as they came (payloads and results).
    _print_data(msgspec.yaml.encode(msgspec.json.decode(msgspec.json.encode(value))).decode().rstrip("\n"))


def _print_data(text: str) -> None:
    click.echo(text if not sys.stdout.isatty() else _visible(text))


def _visible(text: str) -> str:
    from headrace.logs import clean

    return "\n".join(clean(line, 1 << 20) for line in text.split("\n"))
