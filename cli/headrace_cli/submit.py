"""`headrace submit`: one task into its queue, straight into Redis."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.broker.broker import TaskView

    from .session import Session


@click.command(
    "submit",
    cls=Command,
    examples="""
        headrace submit send_email '{"recipient": "user@example.com", "subject": "Hi", "body": "…"}'
        headrace submit export_data @filters.json --priority low --delay 60
        echo '{"name": "world"}' | headrace submit hello - --wait
        headrace submit hello --id 550e8400-e29b-41d4-a716-446655440000      # sent twice, it is one task
    """,
)
@click.argument("type", metavar="TYPE")
@click.argument("payload", metavar="[JSON|@FILE|-]", default="{}")
@click.option("--priority", metavar="NAME", help="critical, high, medium, low, or 3 to 0. [as the type says]")
@click.option("--queue", metavar="NAME", help="[as the type says]")
@click.option("--delay", metavar="SECONDS", type=float, help="Wait so long before it may run.")
@click.option("--max-retries", metavar="N", type=int, help="[as the type says]")
@click.option("--id", "task_id", metavar="UUID", help="Its id; repeated with the same id, it stays one task.")
@click.option("--wait", is_flag=True, help="Wait until it has ended, and print its result.")
@click.option("--timeout", metavar="SECONDS", type=float, default=60.0, show_default=True, help="For --wait.")
@session_options
@output_option
def command(**options: Any) -> int:
    """Submit one task; prints its id, or with --wait its result.

    The payload is a JSON object: as an argument, in a file (@FILE), or from standard input (-). It is checked as the
    API checks it.
    """
    from .session import run

    return run(lambda session: _submit(session, options))


async def _submit(session: Session, options: dict[str, Any]) -> int:
    from headrace_api.task_body import task_body

    from .output import note, print_json

    task_id, warning = await _send(session, options)
    if warning:
        note(warning)
    if not options["wait"]:
        if options["output"] == "json":
            print_json({"task_id": task_id, "status": "submitted"})
        else:
            click.echo(task_id)
        return 0
    note(task_id)
    seen = await _end_of(session, task_id, options["timeout"])
    if options["output"] == "json":
        print_json(task_body(seen, session.settings.max_retries))
        return 0 if seen.state == "completed" else 1
    click.echo(_result(seen))
    return 0


async def _send(session: Session, options: dict[str, Any]) -> tuple[str, str | None]:
    """The id, and what the sender should know. Raises what the API would answer with."""
    from headrace.errors import QueueFull, TaskConflict

    accepted = await session.desk.read(_body(options), _origin(options["task_id"]))
    [answer] = await session.door(accepted.queue).submit((accepted.new,))
    if answer.status == "full":
        raise QueueFull(accepted.queue, session.settings.max_depth)
    if answer.status != "new":
        seen = await session.look(accepted.new.id)
        if seen.envelope is None or seen.envelope.fingerprint != accepted.fingerprint:
            raise TaskConflict(accepted.new.id)
        return accepted.new.id, f"This task was submitted before; it is {seen.state}."
    return accepted.new.id, accepted.warning


def _body(options: dict[str, Any]) -> bytes:
    import msgspec

    from headrace.task import queue_of
    from headrace_api import strict_json

    payload = _payload(options["payload"])
    strict_json.load(payload)
    queue = options["queue"] or (queue_of(options["task_id"]) if options["task_id"] else None)
    priority = options["priority"]
    if priority is not None and priority.isdigit():
        priority = int(priority)
    said = {"queue": queue, "priority": priority, "delay": options["delay"], "max_retries": options["max_retries"]}
    body = {"type": options["type"], "payload": msgspec.Raw(payload)}
    return msgspec.json.encode(body | {name: value for name, value in said.items() if value is not None})


def _payload(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode("utf-8", "surrogateescape")
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"The payload's file cannot be read ({error}).") from None


def _origin(task_id: str | None) -> Any:
    from headrace.errors import FieldError, InvalidTask
    from headrace.task import queue_of
    from headrace_api.submissions import Origin, fingerprint

    if task_id is None:
        return Origin()

    def given(queue: str) -> str:
        if queue_of(task_id) != queue:
            form = "a UUID in lower case" if queue == "default" else f"{queue}. and a UUID in lower case"
            raise InvalidTask(task_id, [FieldError("/id", f"is no id of queue {queue!r}", f"it is {form}")])
        return task_id

    return Origin(given, fingerprint)


async def _end_of(session: Session, task_id: str, timeout_s: float) -> TaskView:
    """The task when it has ended. Raises ResultTimeout."""
    import asyncio

    from headrace.errors import ResultTimeout
    from headrace.journal import news
    from headrace.task import TERMINAL, queue_of

    watch = session.watch(queue_of(task_id) or "")
    try:
        async with asyncio.timeout(timeout_s), watch.of(task_id) as event:
            while (seen := await session.look(task_id)).state not in TERMINAL:
                await news(event)
            return seen
    except TimeoutError:
        seen = await session.look(task_id)
        raise ResultTimeout(task_id, timeout_s, seen.state) from None
    finally:
        await watch.aclose()


def _result(seen: TaskView) -> str:
    """The result as JSON. Raises TaskFailed, TaskCancelled."""
    from headrace.errors import TaskCancelled, TaskFailed

    if seen.state == "completed":
        return "null" if seen.result is None else bytes(seen.result).decode()
    if seen.state == "cancelled":
        raise TaskCancelled(seen.id)
    last = seen.attempts[-1] if seen.attempts else None
    if last is not None and last.error is not None:
        raise TaskFailed(seen.id, last.error.type, last.error.message)
    raise TaskFailed(seen.id, last.outcome if last else "unknown", (last and last.cause) or "no error was recorded")
