"""The audit log: who changed what, when, and what came of it. Never payloads, never secrets.

One capped stream a namespace. Submissions are not in it: there may be thousands a second, they would push all else out,
and each is a task that can be looked up.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from headrace.broker.keys import NamespaceKeys
from headrace.broker.shared import shared_call
from headrace.filters import Filter
from headrace.queues import Caller

LENGTH: Final = 50_000
"""Entries that are kept, about."""
MAX_TEXT: Final = 500
"""Characters of any one text."""
OK: Final = "ok"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change, or a refused attempt at one."""

    who: str
    """The subject of a token, or `person()`."""
    action: str
    """Such as `queue.pause`."""
    target: str = ""
    """The task, queue or bulk job."""
    queue: str = ""
    """The queue, if it is about one."""
    outcome: str = OK
    """`ok`, or the code of the error."""
    status: int = 0
    """Of the HTTP answer; 0 = it was no request."""
    request_id: str = ""
    detail: dict[str, str | int | bool | None] = {}
    """What was asked for, as far as it holds nothing of a task's content."""


class Recorded(msgspec.Struct, frozen=True):
    """An entry as it is kept."""

    id: str
    """Grows with time; pages go on from it."""
    at_ms: int
    entry: Entry


@dataclass(frozen=True)
class AuditPage:
    """Some entries, newest first."""

    entries: list[Recorded]
    next: str | None
    """Where older ones go on; None = there are none."""


_decode: Final = msgspec.json.Decoder(Entry).decode


def person(by: str = "command") -> str:
    """Who runs this command or program: the user of the operating system, who had the password of Redis."""
    try:
        return f"{getpass.getuser()} ({by})"
    except (OSError, KeyError):  # in a container the user may have no name
        return f"unknown ({by})"


def filter_text(filter: Filter) -> str:
    """The filter without the values of arguments, which are a task's content."""
    hidden = tuple(each._replace(value="…") for each in filter.args)
    return replace(filter, args=hidden).text()


async def record(client: Caller, namespace: str, entry: Entry, length: int = LENGTH) -> None:
    """Write an entry. Raises StoreUnavailable, RedisError."""
    text = msgspec.json.encode(_bounded(entry))
    await client.call(shared_call("audit", namespace, (length, text), lambda reply: None))


def _bounded(entry: Entry) -> Entry:
    detail = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in entry.detail.items()}
    return msgspec.structs.replace(entry, target=entry.target[:MAX_TEXT], detail=detail)


async def page(client: Caller, namespace: str, limit: int = 100, before: str | None = None) -> AuditPage:
    """The newest entries, or those older than the id `before`. Raises StoreUnavailable, RedisError."""
    newest = f"({before}" if before else "+"
    rows = await client.command("XREVRANGE", NamespaceKeys(namespace)["audit"], newest, "-", "COUNT", limit + 1)
    entries = [Recorded(id_.decode(), int(id_.partition(b"-")[0]), _decode(fields[1])) for id_, fields in rows[:limit]]
    return AuditPage(entries, entries[-1].id if len(rows) > limit else None)
