"""Each change that is asked for over HTTP is written down with what came of it, before its answer is sent.

An entry that Redis does not take is logged as an error with the same words, and the answer stays as it is: the change
is made by then, and to call it refused would be a lie.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from headrace import audit
from headrace.errors import HeadraceError
from headrace.task import queue_of

from .problems import problem_of

if TYPE_CHECKING:
    from .endpoint import Route
    from .services import Request, Services
    from .store import Store

    Action = Callable[[Services, Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)

_DETAIL: Final = web.RequestKey("headrace_audit_detail", dict[str, str | int | bool | None])
_TARGET: Final = web.RequestKey("headrace_audit_target", str)
GONE: Final = ("gone", 499)
"""The client went away before the answer: what was asked for may have been done."""


class Auditor:
    """Writes the entries of one API process."""

    def __init__(self, store: Store, length: int) -> None:
        self._store = store
        self._length = length
        self._writing: set[asyncio.Task[None]] = set()

    async def write(self, namespace: str, entry: audit.Entry) -> None:
        """Write it, also when the one who waits for it is cancelled."""
        task = asyncio.create_task(self._write(namespace, entry), name="headrace-audit")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    async def _write(self, namespace: str, entry: audit.Entry) -> None:
        try:
            await audit.record(self._store, namespace, entry, self._length)
        except HeadraceError as error:
            fields = {"namespace": namespace, **msgspec.to_builtins(entry)}
            logger.error("The audit log could not be written. %s", error, extra={"fields": fields})

    async def aclose(self) -> None:
        """Finish what is on its way."""
        await asyncio.gather(*self._writing)


def note(http: web.Request, target: str | None = None, **detail: str | int | bool | None) -> None:
    """What an action adds to its entry: what was asked for, and nothing of a task's content."""
    http[_DETAIL] = http.get(_DETAIL, {}) | detail
    if target is not None:
        http[_TARGET] = target


def audited(route: Route) -> Action:
    """The route's action, written down if it changes something."""
    if not route.audit:
        return route.action
    action = route.action

    async def act(services: Services, request: Request) -> web.StreamResponse:
        outcome = GONE
        try:
            answer = await action(services, request)
            outcome = (audit.OK, answer.status)
            return answer
        except HeadraceError as error:
            problem = problem_of(error)
            outcome = (problem.code, problem.status)
            raise
        except Exception:
            outcome = ("internal", 500)
            raise
        finally:
            services.namespace(request.caller.namespace).lookout.forget()
            await services.auditor.write(request.caller.namespace, _entry(route.audit, request, outcome))

    return act


def _entry(action: str, request: Request, outcome: tuple[str, int]) -> audit.Entry:
    found, detail = request.http.match_info, request.http.get(_DETAIL, {})
    target = request.http.get(_TARGET) or found.get("id") or found.get("job") or found.get("queue") or ""
    queue = found.get("queue") or queue_of(target) or ""
    return audit.Entry(request.caller.subject, action, target, queue, *outcome, request.id, detail)
