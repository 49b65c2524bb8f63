"""`headrace submit`: one task into its queue, straight into Redis."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .complete import type_names
from .options import output_option, session_options
from .skip import parse as parse_skip

if TYPE_CHECKING:
    from headrace_api.submissions import Origin

    from .session import Session


@click.command(
    "submit",
    cls=Command,
    examples="""
        headrace submit send_email '{"recipient": "user@example.com", "subject": "Hi", "body": "…"}'
        headrace submit export_data @filters.json --priority low --delay 60
        echo '{"name": "world"}' | headrace submit hello - --wait
        headrace submit report --id 550e8400-e29b-41d4-a716-446655440000     # sent twice, it is one task
        headrace submit report --key 2026-11-29                              # the same by any text
        headrace submit hello --batch names.ndjson > ids                     # one payload a line
        generate | headrace submit --batch - --wait                          # {"type": …, "payload": …} a line
    """,
)
@click.argument("type", metavar="TYPE", required=False, shell_complete=type_names)
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@click.option("--batch", metavar="FILE", type=click.File("rb"), help="A task a line, as JSON; - is standard input.")
@click.option(
    "--skip",
    metavar="N[,LINES]",
    default="0",
    callback=parse_skip,
    help="With --batch: leave out the first N lines, and those named behind them, as 500,503,507-509.",
)
@click.option("--priority", metavar="NAME", help="critical, high, medium, low, or 3 to 0. [as the type says]")
@click.option("--queue", metavar="NAME", help="[as the type says]")
@click.option("--delay", metavar="SECONDS", type=float, help="Wait so long before it may run.")
@click.option("--eta", metavar="TIME", help="Instead of --delay: when it may run, as 2026-01-15T10:30:00Z.")
@click.option("--expires", metavar="SECONDS|TIME", help="Cancel it if nobody has begun it by then.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A word to find it by; may be given several times.")
@click.option("--unique", metavar="KEY", help="Refuse it while another task of the queue holds this key.")
@click.option("--unique-for", metavar="SECONDS", type=float, help="Hold the key so long. [until it has ended]")
@click.option("--max-retries", metavar="N", type=int, help="[as the type says]")
@click.option("--id", "task_id", metavar="UUID", help="Its id; repeated with the same id, it stays one task.")
@click.option("--key", metavar="KEY", help="Instead of --id, any text: repeated with the same key, it stays one task.")
@click.option("--wait", is_flag=True, help="Wait until it has ended, and print its result.")
@click.option("--timeout", metavar="SECONDS", type=float, default=60.0, show_default=True, help="For --wait.")
@session_options
@output_option
def command(**options: Any) -> int:
    """Submit a task and print its id, or with --wait its result; or many tasks at once.

    The payload is a JSON object: as an argument, in a file (@FILE), or from standard input (-). It is checked as the
    API checks it. With --batch each line is a payload of TYPE or, without TYPE, a whole submission as the API takes
    it; the ids are printed, and lines that are refused make the exit code 1.
    """
    if options["batch"] is not None:
        from .submit_batch import submit_batch

        return submit_batch(options)
    if options["type"] is None:
        raise click.UsageError("Name the type of the task, or give --batch FILE.")
    from .session import run

    return run(lambda session: _submit(session, options))


async def _submit(session: Session, options: dict[str, Any]) -> int:
    from .output import note
    from .records import show_one

    task_id, warning = await _send(session, options)
    if warning:
        note(warning)
    if not options["wait"]:
        show_one({"task_id": task_id, "status": "submitted"}, task_id, [task_id], options["output"])
        return 0
    note(task_id)
    return await _follow(session, task_id, options)


async def _follow(session: Session, task_id: str, options: dict[str, Any]) -> int:
    import asyncio

    from headrace_api.task_body import task_body

    from .output import note
    from .records import show_one
    from .waiting import end_of, result_of

    try:
        seen = await end_of(session, task_id, options["timeout"])
    except asyncio.CancelledError:  # Ctrl-C
        note(f"Detached; the task goes on. Wait again: headrace task get {task_id} --wait")
        raise
    if options["output"] in {"json", "yaml"}:
        show_one(task_body(seen, session.settings.max_retries), task_id, (), options["output"])
        return 0 if seen.state == "completed" else 1
    result = result_of(seen)
    show_one(seen, task_id, [result], options["output"])
    return 0


async def _send(session: Session, options: dict[str, Any]) -> tuple[str, str | None]:
    """The id, and what the sender should know. Raises what the API would answer with."""
    from headrace.errors import QueueFull, TaskConflict

    origin = await _origin(session, options)
    accepted = await session.desk.read(_only_body(options), origin)
    [answer] = await session.door(accepted.queue).submit((accepted.new,))
    if answer.status == "full":
        raise QueueFull(accepted.queue, answer.limit)
    if answer.holder is not None:
        from headrace_api.problems import UniqueHeld  # rarely: it brings the HTTP library

        raise UniqueHeld(accepted.queue, answer.holder)
    if answer.status != "new":
        seen = await session.look(accepted.new.id)
        if seen.envelope is None or seen.envelope.fingerprint != accepted.fingerprint:
            raise TaskConflict(accepted.new.id)
        return accepted.new.id, f"This task was submitted before; it is {seen.state}."
    return accepted.new.id, accepted.warning


def _only_body(options: dict[str, Any]) -> bytes:
    from headrace_api.strict_json import MalformedJson

    try:
        return body_of(options, _payload(options["payload"] or "{}"))
    except MalformedJson as error:
        example = """'{"name": "you"}'"""
        raise click.UsageError(
            f"The payload cannot be read as JSON: {error.errors[0]}. Give the arguments by name, as in {example}."
        ) from None


def body_of(options: dict[str, Any], payload: bytes) -> bytes:
    """A submission as the API takes it. Raises MalformedJson."""
    import msgspec

    from headrace_api import strict_json

    strict_json.load(payload)
    body = {"type": options["type"], "payload": msgspec.Raw(payload)}
    return msgspec.json.encode(body | said_in(options))


def said_in(options: dict[str, Any]) -> dict[str, Any]:
    """What the options say about a task beside its type and payload, as the fields of a submission."""
    from headrace.task import queue_of

    queue = options["queue"] or (queue_of(options["task_id"]) if options["task_id"] else None)
    key, seconds = options["unique"], options["unique_for"]
    if key is None and seconds is not None:
        raise click.UsageError("--unique-for says how long a key is held; --unique says which.")
    for name in ("delay", "unique_for"):
        if options[name] is not None and not math.isfinite(options[name]):
            raise click.UsageError(f"--{name.replace('_', '-')} is {options[name]}: give a number of seconds.")
    said = {
        "queue": queue,
        "priority": _number(options["priority"]),
        "delay": options["delay"],
        "eta": options["eta"],
        "expires": _number(options["expires"]),
        "tags": options["tags"] or None,
        "unique": None if key is None else {"key": key, "until": "finished" if seconds is None else seconds},
        "max_retries": options["max_retries"],
    }
    return {name: value for name, value in said.items() if value is not None}


def _number(text: str | None) -> float | str | None:
    """A number where it is written as one, else the text as it is; so is `inf`, which JSON has no number for."""
    try:
        number = int(text) if text is not None and text.isdecimal() else float(text or "")
        return number if math.isfinite(number) else text
    except (ValueError, OverflowError):
        return text


def _payload(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode("utf-8", "surrogateescape")
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"The payload's file {given[1:]} cannot be read: {error.strerror}.") from None


async def _origin(session: Session, options: dict[str, Any]) -> Origin:
    """What makes the task's id. Raises InvalidTask, StoreUnavailable."""
    from headrace_api.submissions import Origin, fingerprint

    task_id, key = options["task_id"], options["key"]
    if task_id is not None and key is not None:
        raise click.UsageError("Give --id or --key, not both: a key makes the id.")
    if key is not None:
        return Origin(await _id_of_key(session, options["type"], key), fingerprint)
    return Origin() if task_id is None else Origin(partial(_id_in, task_id), fingerprint)


def _id_in(task_id: str, queue: str) -> str:
    """The id, if it is one of this queue."""
    from headrace.errors import FieldError, InvalidTask
    from headrace.task import queue_of

    if queue_of(task_id) != queue:
        form = "a UUID in lower case" if queue == "default" else f"{queue}. and a UUID in lower case"
        raise InvalidTask(task_id, [FieldError("/id", f"is no id of queue {queue!r}", f"it is {form}")])
    return task_id


async def _id_of_key(session: Session, type: str, key: str) -> Callable[[str], str]:
    """From a queue to the id that the key makes there; as in the library, the type goes into it."""
    import secrets

    from headrace.broker.shared import shared_call
    from headrace.errors import FieldError, InvalidTask
    from headrace.submission import key_id

    namespace, limit = session.settings.namespace, session.settings.max_key_bytes
    if not 0 < len(key.encode("utf-8", "surrogateescape")) <= limit:
        raise InvalidTask(type, [FieldError("/key", f"has to have 1 to {limit} bytes")])
    secret = await session.store.read(shared_call("secret", namespace, (secrets.token_hex(32),), bytes))
    return lambda queue: key_id(secret, queue, "headrace/command", namespace, queue, type, key)
