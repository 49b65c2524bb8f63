"""How an application talks to Redis: submitting, looking, waiting; the same steps for sync and async callers.

What is done is a generator of steps (carry out this call; wait so long), which knows nothing of sockets or loops. Two
small drivers carry the steps out. So there is one text of the rules: a request whose answer was lost is sent again with
the same id, until a deadline; a queue is made known when this process first meets it.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from headrace.broker import durability as durable
from headrace.broker.broker import Call, NewTask, Queue, Submitted, TaskView, view
from headrace.broker.shared import secret_call
from headrace.errors import (
    DurabilityUnconfirmed,
    FieldError,
    HeadraceError,
    InvalidTask,
    QueueFull,
    ResultTimeout,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    TaskConflict,
    UnknownTask,
)
from headrace.settings import ClientSettings, Durability, Local
from headrace.submission import Submission
from headrace.task import TERMINAL

if TYPE_CHECKING:
    from headrace.broker.sync_client import SyncClient

R = TypeVar("R")

LOCAL: Final = Local()

FIRST_LOOK_S: Final = 0.005
LAST_LOOK_S: Final = 0.25
"""Pauses of a caller that nobody tells when its task ended; each is half as long again as the one before."""


class Run(msgspec.Struct, frozen=True):
    """Carry out this call."""

    call: Call[Any]
    durability: Durability = LOCAL
    shared: bool = False
    """Whether all who ask this meanwhile may have one answer."""


class Enter(msgspec.Struct, frozen=True):
    """Submit these tasks, all or none; others may go in the same call."""

    queue: Queue
    tasks: Sequence[NewTask]
    max_depth: int
    durability: Durability

    def alone(self) -> Run:
        """A call of its own."""
        touch = durable.touches(self.durability)
        return Run(self.queue.submit(self.tasks, self.max_depth, touch=touch), self.durability)


class Pause(msgspec.Struct, frozen=True):
    seconds: float


Steps = Generator[Run | Enter | Pause, Any, R]


class Client:
    """The rules of one application in one namespace, and what it has learnt about Redis."""

    def __init__(self, settings: ClientSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._ready: set[str] = set()
        self._reached = False
        self._secrets: dict[Durability, bytes] = {}
        """The namespace's one, by how it was confirmed."""
        self._proposal: bytes | str = secrets.token_hex(32)

    def queue(self, name: str) -> Queue:
        """The transitions of this queue."""
        if name not in self._queues:
            self._queues[name] = Queue(name, self.settings.namespace)
        return self._queues[name]

    def submit(self, sent: Submission) -> Steps[str]:
        """Send a submission; returns the id of the task that stands for it (another one's under a held unique key).

        Raises QueueFull, TaskConflict, InvalidTask, StoreUnavailable, StoreFull, DurabilityUnconfirmed.
        """
        [task_id] = yield from self.submit_together([sent])
        return task_id

    def submit_together(self, sent: Sequence[Submission]) -> Steps[list[str]]:
        """Send submissions of one queue in one call: all are stored, or none. Returns the ids in their order.

        At most `MAX_SUBMIT`. Raises as `submit` does.
        """
        if any(one.named is not None for one in sent):
            sent = yield from self.insist(partial(self._named, sent))
        answers = yield from self.insist(lambda: self._submit_once(sent))
        ids = []
        for one, answer in zip(sent, answers, strict=True):
            if answer.status == "full":
                raise QueueFull(one.queue, answer.limit)
            if answer.status in {"known", "finished"} and one.fingerprint is not None:
                yield from self.insist(partial(self._compare, one))
            ids.append(answer.holder or one.id)
        return ids

    def _named(self, sent: Sequence[Submission]) -> Steps[Sequence[Submission]]:
        """The same, with the ids that their idempotency keys make."""
        durability = self.settings.durability[sent[0].queue]
        secret = self._secrets.get(durability)
        if secret is None:
            call = secret_call(self.settings.namespace, self._proposal, durability)
            secret = yield Run(call, durability, shared=True)
            # A Redis that lost it gets the same one back, so that keys keep their meaning.
            self._proposal = self._secrets[durability] = secret
        return [one if one.named is None else one.named(secret) for one in sent]

    def _submit_once(self, sent: Sequence[Submission]) -> Steps[list[Submitted]]:
        queue, durability = self.queue(sent[0].queue), self.settings.durability[sent[0].queue]
        yield from self._make_known(queue)
        new = [one.new for one in sent]
        try:
            answers: list[Submitted] = yield Enter(queue, new, self.settings.max_depth, durability)
        except DurabilityUnconfirmed as error:
            raise DurabilityUnconfirmed([one.id for one in sent], error.durability) from None
        return answers

    def _make_known(self, queue: Queue) -> Steps[None]:
        if queue.name in self._ready:
            return
        listed = yield Run(queue.enlist(max_queues=self.settings.max_queues))
        if not listed:
            limit = f"the namespace has its {self.settings.max_queues} queues"
            raise InvalidTask(
                queue.name, [FieldError("/queue", limit, "use one of them, or raise HEADRACE_MAX_QUEUES")]
            )
        yield Run(queue.init())
        self._ready.add(queue.name)

    def _compare(self, sent: Submission) -> Steps[None]:
        seen = yield from self._look(sent.queue, sent.id)
        if seen and seen.envelope and seen.envelope.fingerprint != sent.fingerprint:
            raise TaskConflict(sent.id)

    def insist(self, attempt: Callable[[], Steps[R]], until: float | None = None) -> Steps[R]:
        """Repeat what Redis did not answer, for `submit_timeout_s`, but not longer than `until` (by this client's
        clock); not at all as long as it was never reached.
        """
        give_up = self._clock() + self.settings.submit_timeout_s
        if until is not None:
            give_up = min(give_up, until)
        pause = 0.05
        while True:
            try:
                result = yield from attempt()
                self._reached = True
                return result
            except (StoreUnavailable, DurabilityUnconfirmed) as error:
                # Redis may come back empty, or be another server; then nothing is known of our queues there.
                self._ready.clear()
                self._secrets.clear()
                self._reached |= isinstance(error, DurabilityUnconfirmed | StoreTimeout)
                if isinstance(error, StoreFull) or not self._reached or self._clock() + pause > give_up:
                    raise
            yield Pause(random.uniform(pause / 2, pause))
            pause = min(1.0, pause * 2)

    def _look(self, queue: str, task_id: str) -> Steps[TaskView | None]:
        found = yield Run(self.queue(queue).get(task_id))
        return found and view(task_id, queue, found)

    def look(self, queue: str, task_id: str, until: float | None = None) -> Steps[TaskView]:
        """The task as it is now; `until` as in `insist`. Raises UnknownTask, StoreUnavailable."""
        seen = yield from self.find(queue, task_id, until)
        if seen is None:
            raise UnknownTask(task_id)
        return seen

    def find(self, queue: str, task_id: str, until: float | None = None) -> Steps[TaskView | None]:
        """The task as it is now, None if it is unknown; `until` as in `insist`. Raises StoreUnavailable."""
        seen: TaskView | None = yield from self.insist(lambda: self._look(queue, task_id), until)
        return seen

    def find_all(
        self, queue: str, task_ids: Sequence[str], until: float | None = None
    ) -> Steps[dict[str, TaskView | None]]:
        """As `find`, for up to MAX_ITEMS tasks of a queue in one round trip."""
        return (yield from self.insist(lambda: self._look_at(queue, task_ids), until))

    def _look_at(self, queue: str, task_ids: Sequence[str]) -> Steps[dict[str, TaskView | None]]:
        found = yield Run(self.queue(queue).find(task_ids))
        return {id_: each and view(id_, queue, each) for id_, each in zip(task_ids, found, strict=True)}

    def wait(
        self,
        queue: str,
        task_id: str,
        timeout_s: float | None,
        *,
        first_look_s: float = FIRST_LOOK_S,
        last_look_s: float = LAST_LOOK_S,
    ) -> Steps[TaskView]:
        """The task once it has ended. Raises ResultTimeout, UnknownTask, StoreUnavailable."""
        give_up = None if timeout_s is None else self._clock() + timeout_s
        pause = first_look_s
        while True:
            seen = yield from self.look(queue, task_id, give_up)
            if seen.state in TERMINAL:
                return seen
            left = pause if give_up is None else min(pause, give_up - self._clock())
            if left <= 0:
                raise ResultTimeout(task_id, timeout_s or 0.0, seen.state)
            yield Pause(left)
            pause = min(last_look_s, pause * 1.5)


def drive(steps: Steps[R], client: SyncClient, settings: ClientSettings) -> R:
    """Carry out steps from synchronous code."""
    try:
        step = next(steps)
        while True:
            try:
                result = None
                if isinstance(step, Enter):
                    step = step.alone()
                if isinstance(step, Run):
                    result = client.call(step.call, step.durability, timeout_s=settings.durability_timeout_s)
                else:
                    time.sleep(step.seconds)
            except HeadraceError as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        value: R = done.value
        return value


class AsyncWay(Protocol):
    """How one event loop reaches Redis."""

    async def run(self, step: Run) -> Any: ...

    async def enter(self, step: Enter) -> list[Submitted]: ...


async def drive_async(steps: Steps[R], way: AsyncWay, pause: Callable[[float], Awaitable[object]]) -> R:
    """Carry out steps from asyncio; `pause` waits so many seconds, or until there is news."""
    try:
        step = next(steps)
        while True:
            try:
                result: Any = None
                if isinstance(step, Enter):
                    result = await way.enter(step)
                elif isinstance(step, Run):
                    result = await way.run(step)
                else:
                    await pause(step.seconds)
            except HeadraceError as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        value: R = done.value
        return value
