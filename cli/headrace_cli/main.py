"""The command line: which commands there are, and how an error becomes a sentence and an exit code."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Final, NoReturn

import click

from .command import LazyGroup

if TYPE_CHECKING:
    from headrace.errors import HeadraceError

OK, FAILED, USAGE, UNREACHABLE, TIMED_OUT = range(5)
INTERRUPTED: Final = 130

_COMMANDS: Final = {
    "dev": ("dev", "The whole system on this machine: Redis, API, workers, reload on save."),
    "worker": ("worker", "Run the tasks of an application."),
    "api": ("api", "Serve the HTTP API."),
    "submit": ("submit", "Submit one task."),
    "task": ("task", "Look at a task, cancel it, or retry it."),
    "queue": ("queue", "List queues, pause and resume them."),
    "replay": ("replay", "Send a recorded trace through the system and check that nothing is lost."),
}
_EPILOG: Final = (
    "Exit codes: 0 all is well, 1 it failed, 2 the command or a setting is wrong, 3 Redis or the API cannot be "
    "reached, 4 it took too long."
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
    sys.exit(run(sys.argv[1:] if args is None else args))


def run(args: list[str]) -> int:
    """Run one command; returns the exit code."""
    ctx: click.Context | None = None
    try:
        with cli.make_context("headrace", list(args)) as ctx:
            result = cli.invoke(ctx)
            return result if isinstance(result, int) else OK
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else FAILED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _end_of_pipe()
    except Exception as error:
        return _failed(error, debug="--debug" in args)


def _end_of_pipe() -> int:
    """Whoever read us (head, less) has seen enough; Python's own flush at the exit must not complain."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _failed(error: Exception, debug: bool) -> int:
    from headrace.errors import HeadraceError

    if debug or not isinstance(error, HeadraceError):
        traceback.print_exception(error)
    if isinstance(error, HeadraceError):
        from .output import complain

        complain(str(error), detail=getattr(error, "detail", ""))
        return exit_code(error)
    return FAILED


def exit_code(error: HeadraceError) -> int:
    """The exit code that tells a script what kind of error this was."""
    from headrace import errors

    match error:
        case errors.ResultTimeout():
            return TIMED_OUT
        case errors.StoreUnavailable():
            return UNREACHABLE
        case errors.ConfigError() | errors.InvalidTask() | errors.HeadraceError(code="malformed_json"):
            return FAILED if error.code == "embedded_redis" else USAGE
        case _:
            return FAILED
