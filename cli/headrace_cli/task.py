"""`headrace task get|cancel|retry`: one task, by its id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .command import Command, LazyGroup
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.broker.broker import TaskView
    from headrace_api.task_body import AttemptBody, TaskBody

    from .session import Session

_ID = "550e8400-e29b-41d4-a716-446655440000"


@click.group(
    "task",
    cls=LazyGroup,
    examples=f"""
        headrace task get {_ID}
        headrace task cancel {_ID}
        headrace task retry {_ID}
    """,
)
def command() -> None:
    """Look at a task, cancel it, or retry it."""


@command.command(
    "get",
    cls=Command,
    examples=f"""
        headrace task get {_ID}
        headrace task get {_ID} -o json | jq .status
    """,
)
@click.argument("task_id", metavar="ID")
@session_options
@output_option
def get(task_id: str, output: str, **_: Any) -> None:
    """Show a task: where it is, its attempts, its result or error."""
    from headrace_api.task_body import task_body

    from .output import print_json
    from .session import run

    async def work(session: Session) -> TaskBody:
        seen = await session.look(task_id)
        return task_body(seen, await _default_retries(session, seen))

    body = run(work)
    if output == "json":
        print_json(body)
        return
    for line in _lines(body):
        click.echo(line)


async def _default_retries(session: Session, seen: TaskView) -> int:
    known = await session.types.find(seen.envelope.type) if seen.envelope else None
    default = known.described.max_retries if known else None
    return session.settings.max_retries if default is None else default


def _lines(body: TaskBody) -> Iterator[str]:
    from headrace.logs import clean
    from headrace.task import Priority

    counts = f"{body.attempts} attempts, {body.retry_count} failures, {body.crashes} crashes"
    facts = {
        "id": body.id,
        "type": body.type,
        "status": body.status,
        "queue": f"{body.queue}, priority {Priority(body.priority & 3).name.lower()}",
        "created": body.created_at,
        "due": body.due_at,
        "started": body.started_at,
        "completed": body.completed_at,
        "worker": body.worker_id,
        "attempts": f"{counts}, {body.interruptions} interruptions; {body.max_retries} retries allowed",
        "payload": bytes(body.payload).decode(errors="replace"),
        "result": None if body.result is None else bytes(body.result).decode(errors="replace"),
    }
    for name, value in facts.items():
        if value:
            yield f"{name:<10} {clean(str(value), 2_000)}"
    for attempt in body.log:
        yield f"{'':<10} {clean(_attempt(attempt), 2_000)}"
    if body.error is not None and body.error.trace:
        yield from (clean(line, 2_000) for line in body.error.trace.splitlines())


def _attempt(attempt: AttemptBody) -> str:
    why = f": {attempt.error.type}: {attempt.error.message}" if attempt.error else ""
    cause = f" ({attempt.cause})" if attempt.cause else ""
    return f"{attempt.ended_at or '-'} {attempt.outcome}{cause} on {attempt.worker_id or '-'}{why}"


@command.command(
    "cancel",
    cls=Command,
    examples=f"""
        headrace task cancel {_ID}
        headrace task cancel {_ID} --force
    """,
)
@click.argument("task_id", metavar="ID")
@click.option("--force", is_flag=True, help="End a running task under its worker, whose report then counts nothing.")
@session_options
@output_option
def cancel(task_id: str, force: bool, output: str, **_: Any) -> None:
    """Cancel a task that waits, or ask the worker of a running one to end it."""
    from headrace.errors import UnknownTask, WrongState

    from .session import run

    async def work(session: Session) -> str:
        seen = await session.look(task_id)
        call = session.queue(seen.queue).cancel(
            seen.id, force=force, retention_s=max(1, int(session.settings.retention_s))
        )
        return await session.store.read(call)

    found = run(work)
    if found == "unknown":
        raise UnknownTask(task_id)
    if found not in {"asked", "cancelled"}:
        raise WrongState(task_id, found, "cancelled")
    status = "processing" if found == "asked" else "cancelled"
    _say(output, task_id, status, "its worker was asked to end it" if found == "asked" else "cancelled")


@command.command(
    "retry",
    cls=Command,
    examples=f"""
        headrace task retry {_ID}
    """,
)
@click.argument("task_id", metavar="ID")
@session_options
@output_option
def retry(task_id: str, output: str, **_: Any) -> None:
    """Start a failed task over; make one that waits for its time due now."""
    from .session import run

    run(lambda session: _retry(session, task_id))
    _say(output, task_id, "pending", "pending")


async def _retry(session: Session, task_id: str) -> None:
    from headrace.errors import WrongState
    from headrace.task import State

    seen = await session.look(task_id)
    queue = session.queue(seen.queue)
    if seen.state is State.FAILED:
        found = await session.store.read(queue.replay(seen.id, seen.last_place))
        if found not in {"replayed", "pending"}:
            raise WrongState(task_id, found, "retried")
    elif seen.state in {State.SCHEDULED, State.RETRYING}:
        await session.store.read(queue.promote([seen.id]))
    elif seen.state is not State.PENDING:
        raise WrongState(task_id, seen.state, "retried")


def _say(output: str, task_id: str, status: str, words: str) -> None:
    from .output import print_json

    if output == "json":
        print_json({"task_id": task_id, "status": status})
    else:
        click.echo(f"{task_id}: {words}")
