"""`headrace task get|cancel|retry`: tasks, by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Command, LazyGroup
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.broker.broker import TaskView
    from headrace_api.task_body import TaskBody

    from .many import Outcome
    from .session import Session

_ID = "550e8400-e29b-41d4-a716-446655440000"
ids_argument = click.argument("ids", metavar="ID…", nargs=-1, required=True)


@click.group(
    "task",
    cls=LazyGroup,
    lazy={"ls": ("task_ls", "List tasks: by state, type, queue, tag, error, argument or time.")},
    examples=f"""
        headrace task get {_ID}
        headrace task ls state:failed type:send_email since:2h
        headrace task cancel {_ID}
        headrace task ls state:failed -o name | headrace task retry -
    """,
)
def command() -> None:
    """Look at tasks, list, cancel and retry them."""


@command.command(
    "get",
    cls=Command,
    examples=f"""
        headrace task get {_ID}
        headrace task get {_ID} -o json | jq .status
        headrace task get {_ID} --watch
        headrace task get - --wait < ids            # as `headrace submit --batch FILE > ids` printed them
    """,
)
@ids_argument
@click.option("--wait", is_flag=True, help="Wait until they have ended.")
@click.option("--watch", is_flag=True, help="Show them anew whenever something changed, until they have ended.")
@click.option("--timeout", metavar="SECONDS", type=float, default=3600.0, show_default=True, help="For --wait.")
@session_options
@output_option
def get(ids: tuple[str, ...], output: str, wait: bool, watch: bool, timeout: float, **_: Any) -> int:
    """Show a task: where it is, its attempts, its result or error. Several are listed in a table.

    `-` reads ids from standard input. With --wait and --watch the exit code is 1 if any failed or was cancelled; with
    --wait it is 4 if any takes longer than the timeout.
    """
    from .many import ids_of
    from .records import show_all, show_one
    from .session import run
    from .task_text import LISTING, task_lines
    from .watch import keep_showing

    names = ids_of(ids)
    alone = len(ids) == 1 and "-" not in ids

    def show(bodies: list[TaskBody]) -> None:
        if alone:
            show_one(bodies[0], bodies[0].id, task_lines(bodies[0]), output)
        else:
            show_all(bodies, LISTING, output)

    async def work(session: Session) -> list[TaskBody]:
        if wait:
            await _wait_for(session, names, timeout)
        return await keep_showing(lambda: _bodies(session, names, alone), show, watch, _all_ended)

    bodies = run(work)
    bad = (wait or watch) and any(each.status != "completed" for each in bodies)
    return int(bad or len(bodies) < len(names))


async def _bodies(session: Session, names: list[str], alone: bool) -> list[TaskBody]:
    """The tasks. An unknown one is an error if it is `alone`; of several it is only said."""
    from headrace.errors import UnknownTask

    from .output import complain

    found = []
    for name in names:
        try:
            found.append(await _body(session, await session.look(name)))
        except UnknownTask as error:
            if alone:
                raise
            complain(str(error))
    return found


def _all_ended(bodies: list[TaskBody]) -> bool:
    from headrace.task import TERMINAL

    return all(each.status in TERMINAL for each in bodies)


async def _wait_for(session: Session, names: list[str], timeout_s: float) -> None:
    from headrace.errors import ResultTimeout

    from .progress import Bar
    from .waiting import end_of, ends_of

    if len(names) == 1:
        await end_of(session, names[0], timeout_s)
        return
    with Bar("ended", len(names)) as bar:
        left = await ends_of(session, names, timeout_s, lambda name, seen: bar.to(bar.done + 1), bar)
    if left:
        raise ResultTimeout(left[0], timeout_s, (await session.look(left[0])).state)


async def _body(session: Session, seen: TaskView) -> TaskBody:
    from headrace_api.task_body import task_body

    known = await session.types.find(seen.envelope.type) if seen.envelope else None
    default = known.described.max_retries if known else None
    return task_body(seen, session.settings.max_retries if default is None else default)


@command.command(
    "cancel",
    cls=Command,
    examples=f"""
        headrace task cancel {_ID}
        headrace task cancel {_ID} --force
        headrace task ls state:pending type:send_email -o name | headrace task cancel -
    """,
)
@ids_argument
@click.option("--force", is_flag=True, help="End a running task under its worker, whose report then counts nothing.")
@session_options
@output_option
def cancel(ids: tuple[str, ...], force: bool, output: str, **_: Any) -> int:
    """Cancel tasks; the workers of running ones are asked to end them. `-` reads ids from standard input."""
    from .many import on_each

    return on_each(ids, lambda session, name: _cancel(session, name, force), output)


async def _cancel(session: Session, task_id: str, force: bool) -> Outcome:
    from headrace import actions

    from .many import Outcome

    queue = _queue_of(task_id)
    state = await session.connections.arun(lambda client: actions.cancel(client, queue, task_id, force))
    await session.record("task.cancel", task_id, queue, force=force)
    return Outcome(task_id, state, "its worker was asked to end it" if state == "processing" else "cancelled")


def _queue_of(task_id: str) -> str:
    """Raises UnknownTask for a text that is no id."""
    from headrace.errors import UnknownTask
    from headrace.task import queue_of

    queue = queue_of(task_id)
    if queue is None:
        raise UnknownTask(task_id)
    return queue


@command.command(
    "retry",
    cls=Command,
    examples=f"""
        headrace task retry {_ID}
        headrace task ls state:failed error:Timeout -o name | headrace task retry -
    """,
)
@ids_argument
@session_options
@output_option
def retry(ids: tuple[str, ...], output: str, **_: Any) -> int:
    """Start failed tasks over; make those that wait for their time due now. `-` reads ids from standard input."""
    from .many import on_each

    return on_each(ids, _retry, output)


async def _retry(session: Session, task_id: str) -> Outcome:
    from headrace import actions

    from .many import Outcome

    queue = _queue_of(task_id)
    state = await session.connections.arun(lambda client: actions.retry(client, queue, task_id))
    await session.record("task.retry", task_id, queue)
    return Outcome(task_id, state, state)
