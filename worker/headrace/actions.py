"""What may be done to a submitted task besides waiting for it: cancel it, retry it, ask how far it is."""

from __future__ import annotations

from headrace.broker import durability as durable
from headrace.broker.broker import Call, TaskView
from headrace.client import LOCAL, Client, Run, Steps
from headrace.errors import UnknownTask, WrongState
from headrace.settings import Durability
from headrace.task import State

DUE_LATER = frozenset({State.SCHEDULED, State.RETRYING})


def cancel(client: Client, queue: str, task_id: str, force: bool = False) -> Steps[State]:
    """End a task that waits: CANCELLED. Ask the worker of one that runs: PROCESSING. `force` ends that under its
    worker: CANCELLED. Raises UnknownTask, WrongState for one that has ended otherwise, StoreUnavailable.
    """
    call = client.queue(queue).cancel(task_id, force=force, retention_s=client.settings.retention_s)
    found = yield from client.insist(lambda: _run(call))
    return cancelled(task_id, found)


def cancelled(task_id: str, found: str) -> State:
    """What the answer to a cancellation means: CANCELLED, or PROCESSING until its worker ends it.

    Raises UnknownTask, WrongState.
    """
    if found == "unknown":
        raise UnknownTask(task_id)
    if found == "asked":
        return State.PROCESSING
    if found != State.CANCELLED:
        raise WrongState(task_id, found, "cancelled")
    return State.CANCELLED


def retry(client: Client, queue: str, task_id: str) -> Steps[State]:
    """A failed task starts over, one that is due later is due now; one that is pending stays so. Returns PENDING.

    Raises UnknownTask, WrongState, StoreUnavailable, DurabilityUnconfirmed.
    """
    seen: TaskView = yield from client.look(queue, task_id)
    if seen.state in {State.FAILED, State.PENDING}:  # one that is pending may be so by a retry that was not confirmed
        yield from _replay(client, seen)
    elif seen.state in DUE_LATER:
        call = client.queue(queue).promote([task_id])
        yield from client.insist(lambda: _run(call))
    else:
        raise WrongState(task_id, seen.state, "retried")
    return State.PENDING


def _replay(client: Client, seen: TaskView) -> Steps[None]:
    durability = client.settings.durability[seen.queue]
    # With the place of its last attempt, so that a repetition of this does not replay its next death.
    call = client.queue(seen.queue).replay(seen.id, seen.last_place, touch=durable.touches(durability))
    found = yield from client.insist(lambda: _run(call, durability))
    check_replayed(seen.id, found)


def check_replayed(task_id: str, found: str) -> None:
    """Raises UnknownTask or WrongState if the answer to a replay means that the task does not start over."""
    if found == "unknown":
        raise UnknownTask(task_id)
    if found not in {"replayed", "pending"}:
        raise WrongState(task_id, REFUSED.get(found, found), "retried")


REFUSED = {"unique": "failed, and its unique key is held by another", "other": "failed again since"}
"""What a replay says instead of a state."""


def _run(call: Call[str] | Call[tuple[int, int | None]], durability: Durability = LOCAL) -> Steps[str]:
    answer: str = yield Run(call, durability)
    return answer
