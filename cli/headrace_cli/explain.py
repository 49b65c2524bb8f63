"""`headrace explain`: what an error code means."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from .command import Command
from .options import output_option


def _codes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from .error_codes import known_codes

    return [code for code in known_codes() if code.startswith(incomplete)]


@click.command(
    "explain",
    cls=Command,
    examples="""
        headrace explain queue_full
        headrace explain                     # lists all codes
    """,
)
@click.argument("code", metavar="[CODE]", required=False, shell_complete=_codes)
@output_option
def command(code: str | None, output: str) -> None:
    """Say what an error code means and what to do, over HTTP and in Python. docs/errors.md has all of them."""
    from .records import Column, Listing, show_all, show_one

    if code is not None:
        found = _meanings(code)
        show_one(found, code, _lines(code, found), output)
        return
    from .error_codes import known_codes

    every = [_most_likely(_meanings(each)) | {"code": each} for each in known_codes()]
    columns: list[Column[dict[str, str]]] = [
        Column("CODE", lambda each: each["code"]),
        Column("WHAT_HAPPENED", lambda each: each["happened"]),
    ]
    show_all(every, Listing(columns, lambda each: each["code"], "There are none."), output)


def _most_likely(meanings: list[dict[str, str]]) -> dict[str, str]:
    """What a setting does to a start is met more often than what it does to a request."""
    by_start = (each for each in meanings if each["where"] in {"headrace.BadSetting", "headrace.ConfigError"})
    return next(by_start, meanings[0])


def _meanings(code: str) -> list[dict[str, str]]:
    """What it means where. Raises UsageError for a code that there is not."""
    from headrace.errors import nearest

    from .error_codes import COMMANDS, HTTP, PYTHON, known_codes

    told = [(f"HTTP {each.status}", each.happened, each.remedy) for each in HTTP if each.code == code]
    raised = [(f"headrace.{each.name}", each.happened, each.remedy) for each in PYTHON if each.code == code]
    commands = [("commands", each.happened, each.remedy) for each in COMMANDS if each.code == code]
    found = [
        {"where": where, "happened": _plain(happened), "remedy": _plain(remedy)}
        for where, happened, remedy in (*told, *raised, *commands)
    ]
    if not found:
        meant = nearest(code, known_codes())
        hint = f"Did you mean {meant!r}?" if meant else "`headrace explain` lists those there are."
        raise click.UsageError(f"There is no error code {code!r}. {hint}")
    return found


def _plain(text: str) -> str:
    """Without the marks of Markdown, and without what leads to the table's next row; a link becomes its page."""
    alone = re.sub(r"[;.] its subclass(es)?:$", "", text, flags=re.IGNORECASE)
    return re.sub(r"\[[^\]]*\]\(([^)]*)\)", r"docs/\1", alone).replace("`", "")


def _lines(code: str, found: list[dict[str, str]]) -> Iterator[str]:
    from headrace.error_base import page_of

    yield code
    for each in found:
        yield ""
        yield each["where"]
        yield f"  what happened  {each['happened']}"
        yield f"  what to do     {each['remedy']}"
    yield ""
    yield page_of(code)
