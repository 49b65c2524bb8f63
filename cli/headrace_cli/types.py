"""`headrace types`: the task types that workers published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .complete import type_names
from .options import output_option, session_options

if TYPE_CHECKING:
    from .session import Session

Described = dict[str, Any]


@click.command(
    "types",
    cls=Command,
    examples="""
        headrace types
        headrace types send_email
        headrace types send_email -o json | jq .schema
    """,
)
@click.argument("name", metavar="[TYPE]", required=False, shell_complete=type_names)
@session_options
@output_option
def command(name: str | None, output: str, **_: Any) -> None:
    """List the task types that workers know, with their arguments; `?` marks those that may be left out.

    With TYPE, show that one with the schema of its payload.
    """
    from .records import show_all, show_one
    from .session import run

    found = run(_described)
    if name is None:
        show_all(found, _listing(), output)
        return
    one = _named(name, found)
    show_one(one, name, _lines(one), output)


async def _described(session: Session) -> list[Described]:
    import msgspec

    from headrace.known_types import look
    from headrace.listing import carry_out

    found = await carry_out(look(session.settings.namespace), session.store)
    return [{key: value for key, value in msgspec.to_builtins(each).items() if value is not None} for each in found]


def _named(name: str, found: list[Described]) -> Described:
    from headrace.errors import UnknownType, nearest

    for each in found:
        if each["type"] == name:
            return each
    raise UnknownType(name, nearest(name, (each["type"] for each in found)))


def _listing() -> Any:
    from headrace.task import Priority

    from .records import Column, Listing, span

    return Listing(
        (
            Column("TYPE", lambda each: each["type"]),
            Column("QUEUE", lambda each: each.get("queue")),
            Column("PRIORITY", lambda each: Priority(each.get("priority", 1)).name.lower()),
            Column("RETRIES", lambda each: each.get("max_retries"), wide=True),
            Column("TIMEOUT", lambda each: span(each.get("timeout_s")), wide=True),
            Column("WORKERS", lambda each: each.get("workers"), wide=True),
            Column("HASH", lambda each: each.get("hash"), wide=True),
            Column("ARGUMENTS", _arguments),
            Column("DOES", lambda each: each.get("doc", "").partition("\n")[0], wide=True),
        ),
        name=lambda each: each["type"],
        none="No worker has published a type yet: start one with `headrace worker`, or `headrace dev`.",
    )


def _arguments(each: Described) -> str:
    schema = each.get("schema", {})
    if "$ref" in schema:
        schema = schema.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
    needed = schema.get("required", ())
    return ", ".join(name if name in needed else f"{name}?" for name in schema.get("properties", {}))


def _lines(each: Described) -> Iterator[str]:
    import msgspec

    from headrace.logs import clean
    from headrace.task import Priority

    facts = {
        "type": each["type"],
        "queue": f"{each.get('queue')}, priority {Priority(each.get('priority', 1)).name.lower()}",
        "retries": each.get("max_retries"),
        "timeout": f"{each['timeout_s']:g} s" if each.get("timeout_s") else None,
        "hash": each.get("hash"),
    }
    yield from (f"{title:<10} {clean(str(value), 2_000)}" for title, value in facts.items() if value is not None)
    yield from ("", *(clean(line, 2_000) for line in each.get("doc", "").splitlines()), "")
    yield msgspec.json.format(msgspec.json.encode(each.get("schema", {})), indent=2).decode()
