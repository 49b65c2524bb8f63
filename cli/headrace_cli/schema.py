"""`headrace schema dump | diff`: what an application's types take, and what a new version of it takes no longer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import Command, LazyGroup
from .options import output_option

if TYPE_CHECKING:
    from .schema_compare import Change

_TIMEOUT_S = 60.0


@click.group(
    "schema",
    cls=LazyGroup,
    examples="""
        headrace schema dump shop.tasks > types.json
        headrace schema diff types.json shop.tasks
    """,
)
def command() -> None:
    """Save and compare what an application's types take."""


@command.command(
    "dump",
    cls=Command,
    examples="""
        headrace schema dump shop.tasks > types.json
        headrace schema dump shop.tasks:app | jq '.types | keys'
    """,
)
@click.argument("app", metavar="APP")
def dump(app: str) -> None:
    """Print what the types of APP (module or module:attribute) take, as JSON.

    It is what its workers will publish: the JSON Schema of each payload, queue, priority and the like.
    """
    from .load import load_app
    from .output import print_json

    with redirect_stdout(sys.stderr):  # what the application prints while it is imported
        registry = load_app(app).registry
    types = {name: definition.describe() for name, definition in registry.items()}
    print_json({"headrace_schema": 1, "types": dict(sorted(types.items()))})


@command.command(
    "diff",
    cls=Command,
    examples="""
        headrace schema diff types.json shop.tasks
        headrace schema diff types.json shop.tasks -o json | jq '.[] | select(.kind == "breaking")'
        headrace schema diff types.json shop.tasks -o name    # the types that changed
        git show main:types.json | headrace schema diff - shop.tasks
    """,
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@output_option
def diff(old: str, new: str, output: str) -> int:
    """Name what NEW takes no longer of what OLD took. The exit code is 1 if anything is breaking.

    Each is an application (module or module:attribute), or a file that `headrace schema dump` wrote; - is standard
    input.
    Breaking is what makes workers of NEW refuse a task that was submitted for OLD and still waits.
    """
    from .records import show_one
    from .schema_compare import compare

    changes = sorted(compare(_types(old), _types(new)), key=lambda each: each.kind != "breaking")
    if output == "name":
        click.echo("".join(f"{each}\n" for each in dict.fromkeys(each.type for each in changes)), nl=False)
    else:
        show_one(changes, "", _lines(changes), output)
    from . import main

    return main.FAILED if any(each.kind == "breaking" for each in changes) else main.OK


def _lines(changes: Sequence[Change]) -> Iterator[str]:
    """For people: what is breaking stands first."""
    from headrace.logs import clean

    for each in changes:
        place = f"{each.type} {each.pointer}" if each.pointer else each.type
        yield clean(f"{each.kind + ':':<11} {place} {each.what}", 2_000)
    breaking = sum(each.kind == "breaking" for each in changes)
    if not changes:
        yield "Nothing changed."
    elif not breaking:
        yield "Nothing is breaking."
    else:
        yield (
            f"{breaking} breaking: let the workers of both versions run side by side until what was submitted for "
            "the old one is done, or give the changed type a new name."
        )


def _types(given: str) -> dict[str, Any]:
    """The types of an application or a file. Raises ConfigError, AppLoadError."""
    if given == "-":
        return _read(sys.stdin.buffer.read(), "standard input")
    path = Path(given)
    if path.suffix == ".json" or path.is_file():
        from headrace.errors import ConfigError

        try:
            return _read(path.read_bytes(), given)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"{given} cannot be read: {reason}", "Make it by `headrace schema dump APP`") from None
    return _of_app(given)


def _of_app(app: str) -> dict[str, Any]:
    """In a process of its own: old and new may be two modules of one name."""
    from .load import AppLoadError
    from .progress import Waiting

    try:
        with Waiting(f"importing {app}"):
            done = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-P", "-m", "headrace_cli", "schema", "dump", app],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        problem = f"Importing {app} took longer than {_TIMEOUT_S:g} s"
        raise AppLoadError(problem, "Move slow work from its modules into its tasks") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        problem, _, remedy = said.partition("\n")[0].removeprefix("Error: ").rstrip(".").partition(". ")
        raise AppLoadError(problem or f"{app} cannot be imported", remedy or "Correct it", said[-4_000:])
    return _read(done.stdout, app)


def _read(text: bytes, source: str) -> dict[str, Any]:
    import msgspec

    from headrace.errors import ConfigError

    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, dict) or found.get("headrace_schema") != 1 or not isinstance(found.get("types"), dict):
        raise ConfigError(f"{source} has no types", "Make it by `headrace schema dump APP`")
    types: dict[str, Any] = found["types"]
    return types
