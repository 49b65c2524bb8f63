"""Many submissions in one round trip, and the wait for all of their results.

A batch is first planned (checked, made into submissions, cut into calls), then sent, then handed out as a `Batch`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, overload

from headrace.broker.broker import MAX_SUBMIT
from headrace.client import Client, Steps
from headrace.errors import FieldError, HeadraceError, InvalidTask, ResultTimeout, UnknownTask
from headrace.handle import Handle, forbid_running_loop
from headrace.submission import Submission, TaskCall
from headrace.task import TERMINAL

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.connections import Connections, Views

R = TypeVar("R")

MAX_CALL_BYTES: Final = 4 * 1024**2
"""Bytes of envelopes a call takes, unless one alone has more: Redis does nothing else while it reads them."""


class Batch(Sequence[Handle[R]], Generic[R]):
    """The tasks of one batch, in the order in which they were given: a sequence of their handles."""

    def __init__(self, handles: Sequence[Handle[R]], connections: Connections) -> None:
        self.handles = tuple(handles)
        self._connections = connections

    def __repr__(self) -> str:
        return f"<Batch of {len(self.handles)} tasks>"

    def __len__(self) -> int:
        return len(self.handles)

    @overload
    def __getitem__(self, index: int) -> Handle[R]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Handle[R], ...]: ...
    def __getitem__(self, index: int | slice) -> Handle[R] | tuple[Handle[R], ...]:
        return self.handles[index]

    def __iter__(self) -> Iterator[Handle[R]]:
        return iter(self.handles)

    def results(self, timeout: float | None = None) -> list[R]:
        """Wait until all have ended, `timeout` seconds at most (None: as long as it takes); the results, in order.

        If some gave no result, raises what `Handle.get` of the first of them would raise: TaskFailed,
        TaskCancelled, ResultTimeout, InvalidResult or UnknownTask, with a note of how many they are. Also
        StoreUnavailable, and WrongCaller in a running event loop.
        """
        forbid_running_loop("Batch.results()", "await batch.aresults()")
        return _all_or_raise(self.outcomes(timeout))

    async def aresults(self, timeout: float | None = None) -> list[R]:
        """As `results`, from asyncio."""
        return _all_or_raise(await self.aoutcomes(timeout))

    def outcomes(self, timeout: float | None = None) -> list[R | HeadraceError]:
        """As `results`, but with the error in place of the result for each task that gave none.

        Raises StoreUnavailable, and WrongCaller in a running event loop.
        """
        forbid_running_loop("Batch.outcomes()", "await batch.aoutcomes()")
        return self._read(self._connections.wait_all_blocking(self._ids(), timeout), timeout)

    async def aoutcomes(self, timeout: float | None = None) -> list[R | HeadraceError]:
        """As `outcomes`, from asyncio."""
        return self._read(await self._connections.wait_all(self._ids(), timeout), timeout)

    def _ids(self) -> list[str]:
        return [handle.id for handle in self.handles]

    def _read(self, views: Views, timeout: float | None) -> list[R | HeadraceError]:
        return [_outcome(handle, views, timeout) for handle in self.handles]


def _outcome(handle: Handle[Any], views: Views, timeout: float | None) -> Any:
    seen = views[handle.id]
    if seen is None:
        return UnknownTask(handle.id)
    if seen.state not in TERMINAL:
        return ResultTimeout(handle.id, math.inf if timeout is None else timeout, seen.state)
    try:
        return handle._result_of(seen)
    except HeadraceError as error:
        return error


def _all_or_raise(outcomes: Sequence[R | HeadraceError]) -> list[R]:
    results: list[R] = []
    for outcome in outcomes:
        if isinstance(outcome, HeadraceError):
            _raise_first(outcome, outcomes)
        results.append(outcome)
    return results


def _raise_first(error: HeadraceError, outcomes: Sequence[object]) -> NoReturn:
    wrong = sum(isinstance(outcome, HeadraceError) for outcome in outcomes)
    error.add_note(f"{wrong} of {len(outcomes)} tasks of the batch gave no result; outcomes() tells of each.")
    raise error


@dataclass(frozen=True)
class Plan(Generic[R]):
    """A batch that is not sent yet."""

    app: App[Any]
    calls: Sequence[TaskCall[R]]
    submissions: Sequence[Submission]

    @classmethod
    def of(cls, app: App[Any], calls: Iterable[TaskCall[R]]) -> Plan[R]:
        """Check every call. Raises InvalidTask, TooLarge, ConfigError, TypeError; nothing is sent then."""
        given = tuple(calls)
        for call in given:
            if not isinstance(call, TaskCall):
                raise TypeError(f"A batch takes calls, as task.call(…) makes them, not {call!r}.")
            if app.registry.get(call.definition.name) is not call.definition:
                wrong = FieldError("/type", f"is not of {app!r}", "submit it in a batch of its own App")
                raise InvalidTask(call.definition.name, [wrong])
        return cls(app, given, [app.prepare(call) for call in given])

    def submit(self, client: Client) -> Steps[list[str]]:
        """Send all; returns the ids in the order of the calls. Raises as Client.submit does."""
        ids = [""] * len(self.submissions)
        stored = 0
        for part in parts(self.submissions):
            try:
                told = yield from client.submit_together([self.submissions[index] for index in part])
            except HeadraceError as error:
                if stored:
                    error.add_note(f"{stored:,} of the batch's {len(ids):,} tasks were stored before that.")
                raise
            for index, task_id in zip(part, told, strict=True):
                ids[index] = task_id
            stored += len(part)
        return ids

    def batch(self, ids: Sequence[str]) -> Batch[R]:
        """The batch that was stored under these ids."""
        connections = self.app.connections
        handles: list[Handle[R]] = [
            Handle(task_id, connections, call.definition.decode_result)
            for task_id, call in zip(ids, self.calls, strict=True)
        ]
        return Batch(handles, connections)


def parts(submissions: Sequence[Submission]) -> Iterator[list[int]]:
    """The calls that a batch makes, as positions in it: by queue, as many as a call takes, the most urgent first."""
    queues: dict[str, list[int]] = {}
    for index, one in enumerate(submissions):
        queues.setdefault(one.queue, []).append(index)
    for indexes in queues.values():
        part: list[int] = []
        size = 0
        for index in sorted(indexes, key=lambda index: -submissions[index].new.priority):
            length = len(submissions[index].new.envelope)
            if part and (len(part) == MAX_SUBMIT or size + length > MAX_CALL_BYTES):
                yield part
                part, size = [], 0
            part.append(index)
            size += length
        yield part
