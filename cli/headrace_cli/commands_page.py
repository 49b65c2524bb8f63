"""The page of all commands, made from the commands themselves. `make docs` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from headrace.errors import FieldError, HeadraceError, InvalidPayload, StoreUnavailable, UnknownQueue

from .command import Command, LazyGroup
from .main import cli
from .markdown import table
from .output import more_about

__all__ = ["every_command", "page"]

HEAD: Final = """\
# Commands

Made from the code by `make docs`; change it there. `headrace COMMAND --help` says the same.

**Output.** Data goes to standard output and nothing else does; notes, progress and errors go to standard error. `-o`
chooses the form: `table` for people, `wide` with all columns, `json` and `yaml` whole and with the names of the HTTP
API, `name` for `xargs` and for commands that read ids from `-`. Colour is for terminals, and `NO_COLOR=1` turns it off.
What takes more than a second shows a bar in a terminal and a line every ten seconds elsewhere.

**Exit codes**: 0 all is well, 1 it failed, 2 the command or a setting is wrong, 3 Redis or the API cannot be reached,
4 it took too long, 130 Ctrl-C. `headrace worker`: 0 after SIGTERM, 1 if handlers that do not end forced it to stop.

**Errors** are sentences; `headrace explain CODE` says more ([errors.md](errors.md)). `--debug` shows the traceback.

**Tab key**: `headrace completion --help` says how.
"""


def page() -> str:
    """The whole page."""
    commands = list(every_command(cli, "headrace"))
    looks = [f"```text\n$ headrace --help\n{_help()}\n```\n", f"```text\n{_errors()}```\n"]
    rows = ((f"[`{path}`](#{_anchor(path)})", _summary(each)) for path, each in commands)
    return "\n".join([HEAD, *looks, table(("command", "does"), rows), *(_part(*each) for each in commands)])


def _help() -> str:
    return cli.get_help(_context(cli, "headrace", terminal_width=80))


def _errors() -> str:
    """Three errors, as they look in a terminal."""
    unknown = FieldError("/payload/to", "is not a field of this type", "did you mean 'recipient'?")
    shown: tuple[tuple[str, HeadraceError], ...] = (
        ("queue ls", StoreUnavailable("redis://:***@localhost:6379/0 (from HEADRACE_URL)", "Connection refused")),
        ("""submit send_email '{"to": "x"}'""", InvalidPayload("send_email", [unknown])),
        ("queue pause mial", UnknownQueue("mial", "mail")),
    )
    return "\n".join(f"$ headrace {typed}\nError: {error}\n{more_about(error.code)}\n" for typed, error in shown)


def every_command(command: click.Command, path: str) -> Iterator[tuple[str, Command]]:
    """Each command that is not a group, by the words that are typed."""
    if not isinstance(command, LazyGroup):
        assert isinstance(command, Command)
        yield path, command
        return
    ctx = _context(command, path)
    for name in command.list_commands(ctx):
        found = command.get_command(ctx, name)
        assert found is not None
        yield from every_command(found, f"{path} {name}")


def _context(command: click.Command, path: str, **more: Any) -> click.Context:
    """As main.py makes it. A command keeps the help option that it had first, so another one would stay."""
    return click.Context(command, info_name=path, **{**cli.context_settings, **more})


def _anchor(path: str) -> str:
    return path.replace(" ", "-")


def _summary(command: Command) -> str:
    return _paragraphs(command)[0].split(". ")[0].removesuffix(".")


def _paragraphs(command: Command) -> list[str]:
    text = (command.help or "").replace("\b\n", "").strip()
    return [" ".join(each.split()) for each in text.split("\n\n")]


def _part(path: str, command: Command) -> str:
    ctx = _context(command, path)
    usage = " ".join([path, *command.collect_usage_pieces(ctx)])
    told = "\n\n".join(_paragraphs(command))
    options = [each for each in command.params if isinstance(each, click.Option) and each.expose_value]
    options_table = table(("option", "meaning"), (_row(ctx, each) for each in options))
    parts = [
        f"## {path}\n",
        f"```text\n{usage}\n```\n",
        f"{told}\n",
        options_table,
        f"```sh\n{command.examples}\n```\n",
    ]
    return "\n".join(part for part in parts if part)


def _row(ctx: click.Context, option: click.Option) -> tuple[str, str]:
    names, meaning = option.get_help_record(ctx) or ("", "")
    return f"`{names}`", meaning
