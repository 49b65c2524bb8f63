"""The audit log over HTTP."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from headrace import audit
from headrace.queues import at

from .created import JSON
from .endpoint import Doc, Route
from .examples import AUDITED
from .problems import HttpProblem
from .reading import read_query
from .services import Request, Services

MAX_PAGE: Final = 200
_CURSOR: Final = r"[1-9][0-9]{0,18}-[0-9]{1,19}"


class AuditQuery(msgspec.Struct, frozen=True):
    """Which entries."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="entries of a page")] = 50
    cursor: Annotated[
        str | None,
        Meta(description="`next` of the page before", extra_json_schema={"pattern": f"^{_CURSOR}$"}),
    ] = None


class AuditEntry(msgspec.Struct, frozen=True):
    """One change, or a refused attempt at one."""

    id: str
    at: str
    who: Annotated[
        str, Meta(description="subject of the token; `NAME (command)` for a command, `NAME (app APP)` for a program")
    ]
    action: Annotated[str, Meta(description="such as queue.pause")]
    target: Annotated[str, Meta(description="the task, queue or bulk job")]
    outcome: Annotated[str, Meta(description="ok, or the code of the error")]
    status: Annotated[int | None, Meta(description="of the HTTP answer; null: it was a command or a job")]
    request_id: str | None
    detail: Annotated[
        dict[str, str | int | bool | None], Meta(description="what was asked for; nothing of a task's content")
    ]


class AuditList(msgspec.Struct, frozen=True):
    """Entries of the caller's namespace, newest first; a token limited to queues sees those of its queues."""

    entries: list[AuditEntry]
    next: Annotated[str | None, Meta(description="cursor of the next page; null: there is none")]


def _shown(recorded: audit.Recorded) -> AuditEntry:
    entry = recorded.entry
    return AuditEntry(
        id=recorded.id,
        at=at(recorded.at_ms) or "",
        who=entry.who,
        action=entry.action,
        target=entry.target,
        outcome=entry.outcome,
        status=entry.status or None,
        request_id=entry.request_id or None,
        detail=entry.detail,
    )


async def show_audit(services: Services, request: Request) -> web.Response:
    """Show who changed what, newest first."""
    query = read_query(request.http.query, AuditQuery)
    if query.cursor is not None and not re.fullmatch(_CURSOR, query.cursor):
        detail = "The cursor is none of the audit log: it was cut or changed, or is of another list."
        raise HttpProblem(400, "bad_cursor", detail, "Send `next` as it was answered, or begin without a cursor.")
    found = await audit.page(services.store, request.caller.namespace, query.limit, query.cursor)
    covered = [
        _shown(each)
        for each in found.entries
        if request.sees_all or (each.entry.queue and request.may(each.entry.queue))
    ]
    headers = {"Content-Type": JSON, "Cache-Control": "no-store"}
    return web.Response(body=msgspec.json.encode(AuditList(covered, found.next)), headers=headers)


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/audit",
        show_audit,
        "admin",
        query=AuditQuery,
        answer=AuditList,
        doc=Doc(answer=AUDITED, problems=("bad_cursor",)),
    ),
)
