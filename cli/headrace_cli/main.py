"""The command line: which commands there are, and how an error becomes a sentence and an exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from . import streams
from .command import LazyGroup

if TYPE_CHECKING:
    from headrace.errors import HeadraceError

OK, FAILED, USAGE, UNREACHABLE, TIMED_OUT = range(5)
INTERRUPTED: Final = 130
COMPLETE: Final = "_HEADRACE_COMPLETE"
"""The variable by which the script of `headrace completion` asks what could come next."""

_COMMANDS: Final = {
    "dev": ("dev", "The whole system here: Redis, API, workers, reload on save."),
    "worker": ("worker", "Run the tasks of an application."),
    "api": ("api", "Serve the HTTP API."),
    "operator": ("operator", "Scale WorkerPools of a Kubernetes cluster."),
    "submit": ("submit", "Submit a task, or many."),
    "task": ("task", "Look at tasks, list, cancel and retry them."),
    "watch": ("watch_ended", "Follow the tasks that end, one line each."),
    "queue": ("queue", "List queues; pause, resume, limit and empty them."),
    "types": ("types", "List the task types that workers know."),
    "workers": ("workers", "List the workers, and what they run."),
    "schema": ("schema", "Save and compare what an application's types take."),
    "errors": ("errors", "Group failed tasks by what went wrong."),
    "bulk": ("bulk", "Retry, replay, cancel or delete many tasks at once."),
    "replay-dead": ("replay_dead", "Start failed tasks over, all or those of a filter."),
    "token": ("token", "Make tokens for the HTTP API."),
    "bench": ("bench", "Measure tasks a second through this machine and its Redis."),
    "replay": ("replay", "Send a recorded trace through, and check that nothing is lost."),
    "explain": ("explain", "Say what an error code means and what to do."),
    "completion": ("completion", "Print the script for the Tab key of bash, zsh or fish."),
}
_EPILOG: Final = (
    "Exit codes: 0 all is well, 1 it failed, 2 the command or a setting is wrong, 3 Redis or the API cannot be "
    "reached, 4 it took too long, 130 Ctrl-C."
)


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EPILOG,
    examples="""
        headrace dev                                    # in the folder of your tasks.py
        headrace submit send_email '{"recipient": "user@example.com", "subject": "Hi", "body": "…"}' --wait
        headrace queue ls
    """,
)
@click.version_option(package_name="headrace", message="%(package)s %(version)s")
def cli() -> None:
    """A task queue for Kubernetes and for your laptop: HTTP in, Redis streams, workers that scale."""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    streams.prepare()
    if args is None and (instruction := os.environ.get(COMPLETE)):
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "headrace", COMPLETE, instruction))
    sys.exit(run(sys.argv[1:] if args is None else args))


def run(args: list[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        with cli.make_context("headrace", list(args)) as ctx:
            result = cli.invoke(ctx)
            return result if isinstance(result, int) else OK
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _end_of_output()
    except Exception as error:
        if (sentence := streams.cannot_write(error)) is not None:
            return _end_of_output(sentence)
        return _failed(error, debug="--debug" in args)


def _end_of_output(complaint: str = "") -> int:
    """Whoever read us (head, less) has seen enough, or the disk is full; Python's own flush at the exit must not
    complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if complaint:
        from .output import complain

        complain(complaint)
    return FAILED


def _refused(error: click.ClickException) -> int:
    """The command line itself is wrong."""
    from .output import complain, note

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE
    complain(_plainly(error.format_message()))
    if not isinstance(error, click.UsageError):
        return FAILED
    if error.ctx is not None:
        note(f"{error.ctx.command_path} --help shows how it is used.")
    return USAGE


def _plainly(message: str) -> str:
    """Click names its types, and people say a number."""
    for typed, plain in (
        ("a valid integer range", "a whole number"), ("a valid integer", "a whole number"),
        ("a valid float range", "a number"), ("a valid float", "a number"),
    ):  # fmt: skip
        message = message.replace(f"is not {typed}.", f"is not {plain}.")
    return message


def _failed(error: Exception, debug: bool) -> int:
    if isinstance(error, click.ClickException):
        return _refused(error)
    from headrace.errors import HeadraceError

    from .output import complain, more_about, note

    ours = isinstance(error, HeadraceError)
    if debug or not ours:
        import traceback

        traceback.print_exception(error)
    if not isinstance(error, HeadraceError):
        complain("This is a bug in headrace. Please report it with the lines above.")
        return FAILED
    complain(str(error))
    traced = "--debug shows the traceback; " if getattr(error, "detail", "") and not debug else ""
    note(traced + more_about(error.code))
    return exit_code(error)


def exit_code(error: HeadraceError) -> int:
    """The exit code that tells a script what kind of error this was."""
    from headrace import errors

    match error:
        case errors.ResultTimeout():
            return TIMED_OUT
        case errors.StoreUnavailable():
            return UNREACHABLE
        case errors.ConfigError() | errors.InvalidTask() | errors.InvalidRequest():
            return FAILED if error.code == "embedded_redis" else USAGE
        case errors.HeadraceError(code="malformed_json" | "invalid_filter"):
            return USAGE
        case _:
            return FAILED
