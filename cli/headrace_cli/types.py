"""`headrace types`: the task types that workers published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .complete import type_names
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.known_types import TypeView


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
    from headrace.known_types import look, named

    from .records import Column, Listing, show_all, show_one, span
    from .session import run

    found = run(lambda session: session.connections.arun(lambda client: look(session.settings.namespace)))
    if name is not None:
        one = named(name, found)
        show_one(one, name, _lines(one), output)
        return
    columns: list[Column[TypeView]] = [
        Column("TYPE", lambda each: each.type),
        Column("QUEUE", lambda each: each.queue),
        Column("PRIORITY", _priority),
        Column("RETRIES", lambda each: each.max_retries, wide=True),
        Column("TIMEOUT", lambda each: span(each.timeout_s), wide=True),
        Column("WORKERS", lambda each: each.workers),
        Column("VERSIONS", lambda each: ",".join(each.versions), wide=True),
        Column("ARGUMENTS", _arguments),
        Column("DOES", lambda each: each.doc.partition("\n")[0], wide=True),
    ]
    none = "No worker has published a type yet: start one with `headrace worker`, or `headrace dev`."
    show_all(found, Listing(columns, lambda each: each.type, none), output)


def _priority(each: TypeView) -> str | None:
    from headrace.task import Priority

    return None if each.priority is None else Priority(each.priority).name.lower()


def _arguments(each: TypeView) -> str:
    schema = each.schema
    if "$ref" in schema:
        schema = schema.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
    needed = schema.get("required", ())
    return ", ".join(name if name in needed else f"{name}?" for name in schema.get("properties", {}))


def _lines(each: TypeView) -> Iterator[str]:
    import msgspec

    from headrace.logs import clean

    facts = {
        "type": each.type,
        "queue": f"{each.queue or 'default'}, priority {_priority(each) or 'medium'}",
        "retries": each.max_retries,
        "timeout": f"{each.timeout_s:g} s" if each.timeout_s else None,
        "workers": each.workers,
        "versions": ", ".join(each.versions),
    }
    yield from (f"{title:<10} {clean(str(value), 2_000)}" for title, value in facts.items() if value is not None)
    yield from ("", *(clean(line, 2_000) for line in each.doc.splitlines()), "")
    yield msgspec.json.format(msgspec.json.encode(each.schema), indent=2).decode()
