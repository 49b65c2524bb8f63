"""`app.inspect`: what programs ask about tasks, failures and workers; each question for async and for sync callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from headrace import failures, known_types, roster
from headrace.broker.broker import Queue, TaskView
from headrace.broker.shared import shared_call
from headrace.client import Client, Run, Steps
from headrace.connections import Connections
from headrace.errors import UnknownTask
from headrace.failures import FailureGroup, Failures
from headrace.filters import Filter
from headrace.handle import forbid_running_loop
from headrace.known_types import TypeView
from headrace.listing import BUDGET, LIMIT, Ask, Page, Position, look_through
from headrace.roster import LOOK_AGAIN_S, WorkerInfo
from headrace.task import queue_of

__all__ = ["FailureGroup", "Failures", "Inspector", "Page", "Position", "TaskView", "TypeView", "WorkerInfo"]

R = TypeVar("R")
Asked = Callable[[Sequence[Queue]], Steps[R]]


class Inspector:
    """Looks at all queues of an App's namespace, or at those that the filter names.

    A filter is a text (`state:failed type:resize since:2h`) or a `Filter`. Everything here raises InvalidFilter,
    StoreUnavailable and RedisError, and the sync methods WrongCaller in a running event loop.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def task(self, task_id: str) -> TaskView:
        """The task with this id as it is now: whole, with its attempts and its result. Raises UnknownTask."""
        return await self._connections.arun(lambda client: client.look(_queue_of(task_id), task_id))

    def task_sync(self, task_id: str) -> TaskView:
        """As `task`."""
        forbid_running_loop("inspect.task_sync()", "await inspect.task()")
        return self._connections.run(lambda client: client.look(_queue_of(task_id), task_id))

    async def tasks(self, filter: str | Filter = "", *, payloads: bool = False) -> AsyncIterator[TaskView]:
        """All tasks that match, read page by page; without their results, and payloads only if they are asked for."""
        ask = Ask(_filter(filter), limit=PAGE, payloads=payloads)
        while True:
            page = await self._aask(_page(ask))
            for seen in page.items:
                yield seen
            if page.next is None:
                return
            ask = replace(ask, cursor=page.next)

    def tasks_sync(self, filter: str | Filter = "", *, payloads: bool = False) -> Iterator[TaskView]:
        """As `tasks`."""
        ask = Ask(_filter(filter), limit=PAGE, payloads=payloads)
        while True:
            page = self._ask("inspect.tasks_sync()", "async for task in inspect.tasks()", _page(ask))
            yield from page.items
            if page.next is None:
                return
            ask = replace(ask, cursor=page.next)

    async def page(
        self,
        filter: str | Filter = "",
        *,
        cursor: Position | None = None,
        limit: int = LIMIT,
        budget: int = BUDGET,
        payloads: bool = False,
    ) -> Page:
        """One page of tasks, and where the next one begins; it looks at `budget` tasks at most and says so."""
        return await self._aask(_page(Ask(_filter(filter), cursor, limit, budget, payloads)))

    async def errors(self, filter: str | Filter = "", *, budget: int = BUDGET) -> Failures:
        """What failed or is retrying, by type, exception and place; the most frequent first."""
        asked = _filter(filter)
        return await self._aask(lambda queues: failures.group(queues, asked, budget))

    def errors_sync(self, filter: str | Filter = "", *, budget: int = BUDGET) -> Failures:
        """As `errors`."""
        asked = _filter(filter)
        return self._ask(
            "inspect.errors_sync()", "await inspect.errors()", lambda queues: failures.group(queues, asked, budget)
        )

    async def workers(self, *, again_s: float = LOOK_AGAIN_S) -> list[WorkerInfo]:
        """Who works, by name. It looks twice, `again_s` seconds apart, to see who is alive; 0 looks once."""
        return await self._aask(lambda queues: roster.look(queues, again_s=again_s))

    def workers_sync(self, *, again_s: float = LOOK_AGAIN_S) -> list[WorkerInfo]:
        """As `workers`."""
        return self._ask(
            "inspect.workers_sync()", "await inspect.workers()", lambda queues: roster.look(queues, again_s=again_s)
        )

    async def types(self) -> list[TypeView]:
        """The types that workers know, by name, with their schemas and how many know each. Raises StoreUnavailable."""
        return await self._connections.arun(lambda client: known_types.look(client.settings.namespace))

    def types_sync(self) -> list[TypeView]:
        """As `types`."""
        forbid_running_loop("inspect.types_sync()", "await inspect.types()")
        return self._connections.run(lambda client: known_types.look(client.settings.namespace))

    async def _aask(self, asked: Asked[R]) -> R:
        return await self._connections.arun(lambda client: _of_all(client, asked))

    def _ask(self, name: str, instead: str, asked: Asked[R]) -> R:
        forbid_running_loop(name, instead)
        return self._connections.run(lambda client: _of_all(client, asked))


def _queue_of(task_id: str) -> str:
    """Raises UnknownTask for a text that is no id."""
    queue = queue_of(task_id)
    if queue is None:
        raise UnknownTask(task_id)
    return queue


PAGE: Final = 200


def _page(ask: Ask) -> Asked[Page]:
    return lambda queues: look_through(queues, ask)


def _of_all(client: Client, asked: Asked[R]) -> Steps[R]:
    names: list[bytes] = yield Run(shared_call("queues", client.settings.namespace, (), lambda reply: reply))
    return (yield from asked([client.queue(each.decode()) for each in names]))


def _filter(given: str | Filter) -> Filter:
    return Filter.parse(given) if isinstance(given, str) else given
