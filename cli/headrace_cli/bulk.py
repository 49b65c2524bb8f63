"""`headrace bulk`: many tasks at once, and the jobs that do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from .bulk_options import order_options
from .command import Command, LazyGroup
from .options import output_option, session_options

if TYPE_CHECKING:
    from headrace.bulk import Jobs
    from headrace.bulk_job import Action, BulkJob

    from .session import Session

_ID: Final = "550e8400-e29b-41d4-a716-446655440000"
_JOB: Final = "3f2a9c0d41b7e65810aa"


@click.group(
    "bulk",
    cls=LazyGroup,
    examples="""
        headrace bulk retry error:Timeout since:2h
        headrace bulk cancel queue:orders type:export --dry-run
        headrace bulk delete state:completed --yes
        headrace bulk ls
    """,
)
def command() -> None:
    """Retry, replay, cancel or delete many tasks at once, and look at the jobs that do."""


@command.command(
    "retry",
    cls=Command,
    examples=f"""
        headrace bulk retry type:send_email error:Timeout since:2h
        headrace bulk retry state:retrying queue:orders             # due now
        headrace bulk retry --id {_ID}
        headrace task ls tag:acme state:failed -o name | headrace bulk retry --id - --yes
    """,
)
@order_options
@session_options
@output_option
def retry(**options: Any) -> int:
    """Start failed tasks over; scheduled and retrying ones, if their state or they are named, are due now.

    FILTER is as in `headrace task ls`. Ctrl-C stops it; what was done by then stays so.
    """
    return _carry_out("retry", options)


@command.command(
    "replay",
    cls=Command,
    examples="""
        headrace bulk replay queue:orders --dry-run
        headrace bulk replay type:send_email since:2h --expected-count 214 --yes
    """,
)
@order_options
@session_options
@output_option
def replay(**options: Any) -> int:
    """Start dead letters over: failed tasks, and no others. `headrace replay-dead` without a filter means all."""
    return _carry_out("replay", options)


@command.command(
    "cancel",
    cls=Command,
    examples="""
        headrace bulk cancel queue:orders type:export
        headrace bulk cancel state:processing tag:acme               # asks their workers
    """,
)
@order_options
@session_options
@output_option
def cancel(**options: Any) -> int:
    """Cancel tasks that wait; running ones, if `state:processing` or they are named, are asked to end."""
    return _carry_out("cancel", options)


@command.command(
    "delete",
    cls=Command,
    examples="""
        headrace bulk delete type:send_email exception:SMTPRecipientsRefused
        headrace bulk delete state:completed queue:orders --yes
    """,
)
@order_options
@session_options
@output_option
def delete(**options: Any) -> int:
    """Forget ended tasks: dead letters, those in the states that the filter names, or those named."""
    return _carry_out("delete", options)


def _carry_out(action: Action, options: dict[str, Any]) -> int:
    from headrace import audit
    from headrace.bulk_order import order_of

    from .bulk_command import carry_out, nothing_named
    from .many import ids_of

    text, ids = " ".join(options["words"]) or None, ids_of(options["ids"])
    if options["ids"] and not (ids or text):
        return nothing_named(action, options)
    # A filter beside --id is refused, and not carried out on all that fits it when the pipe is empty.
    order = order_of(action, text, ids or options["ids"] or None, audit.person())
    shown = {"ids": len(order.ids)} if order.filter is None else {"filter": audit.filter_text(order.filter)}
    entry = audit.Entry(order.who, "bulk.start", detail={"do": action, **shown})
    return carry_out(order, entry, options)


@command.command(
    "ls",
    cls=Command,
    examples="""
        headrace bulk ls
        headrace bulk ls -o json | jq '.[] | select(.state == "running").id'
    """,
)
@session_options
@output_option
def ls(output: str, **_: Any) -> None:
    """List the jobs of the last day, newest first, whoever ordered them."""
    from .records import Column, Listing, show_all
    from .session import run

    columns: list[Column[BulkJob]] = [
        Column("JOB", lambda each: each.id),
        Column("ACTION", lambda each: each.action),
        Column("STATE", lambda each: each.state),
        Column("FOUND", lambda each: each.found),
        Column("DONE", lambda each: each.done),
        Column("FAILED", lambda each: sum(each.failed.values())),
        Column("CREATED", lambda each: each.created_at),
        Column("ENDED", lambda each: each.ended_at, wide=True),
        Column("WHO", lambda each: each.who, wide=True),
        Column("TASKS", _meant),
    ]
    none = "There was no bulk job within a day."
    show_all(run(lambda session: _jobs(session).ls()), Listing(columns, lambda each: each.id, none), output)


def _meant(job: BulkJob) -> str:
    return f"{job.ids:,} named" if job.ids is not None else job.filter or "all"


def _jobs(session: Session) -> Jobs:
    from headrace.bulk import Jobs

    return Jobs(session.client, session.settings.namespace)


@command.command(
    "get",
    cls=Command,
    examples=f"""
        headrace bulk get {_JOB}
        headrace bulk get {_JOB} --watch
    """,
)
@click.argument("job_id", metavar="JOB")
@click.option("--watch", is_flag=True, help="Show it anew whenever something changed, until it has ended.")
@session_options
@output_option
def get(job_id: str, watch: bool, output: str, **_: Any) -> None:
    """Show a job: how far it is, and what could not be done."""
    from .bulk_command import job_lines
    from .records import show_one
    from .session import run
    from .watch import keep_showing

    def show(job: BulkJob) -> None:
        show_one(job, job.id, [f"{job.id}: {job.state}", *job_lines(job)], output)

    run(lambda session: keep_showing(lambda: _jobs(session).get(job_id), show, watch, lambda job: bool(job.ended_at)))


@command.command(
    "abort",
    cls=Command,
    examples=f"""
        headrace bulk abort {_JOB}
    """,
)
@click.argument("job_id", metavar="JOB")
@session_options
@output_option
def abort(job_id: str, output: str, **_: Any) -> None:
    """End a job after the step that it is in; what was done stays done."""
    from .records import say
    from .session import run

    async def work(session: Session) -> BulkJob:
        job = await _jobs(session).abort(job_id)
        await session.record("bulk.abort", job_id, "")
        return job

    job = run(work)
    say(job, job.id, job.state, output)
