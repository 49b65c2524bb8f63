"""`headrace replay`: a recorded trace through the whole system, and a count of what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .command import Command
from .options import report_option


@click.command(
    "replay",
    cls=Command,
    examples="""
        headrace replay examples/data/azure-llm-2023-code.csv --speed 60
        headrace replay examples/data/azure-llm-2023-code.csv --speed 60 --workers 4 --kill-workers 10
        headrace replay trace.csv --limit 500 --url http://localhost:8080
    """,
)
@click.argument("trace", metavar="TRACE.csv", type=click.Path(path_type=Path))
@click.option("--speed", type=click.FloatRange(0.01, 100_000), default=60.0, show_default=True, help="Times as fast.")
@click.option("--url", metavar="URL", help="An API that runs; else all is started here.")
@click.option("--token", metavar="TOKEN", envvar="REPLAY_TOKEN", help="For that API; or REPLAY_TOKEN.")
@click.option("--workers", metavar="N", type=click.IntRange(1, 64), default=2, show_default=True, help="To start.")
@click.option(
    "--concurrency", metavar="N", type=click.IntRange(1), default=20, show_default=True, help="Slots of each."
)
@click.option("--kill-workers", metavar="K", type=click.IntRange(0), default=0, help="Kill -9 random workers so often.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Only the first N rows.")
@click.option("--seed", metavar="S", type=int, default=0, show_default=True, help="Of the random choices.")
@click.option("--ledger", metavar="FILE", type=click.Path(path_type=Path), help="Where the handlers note their runs.")
@report_option
def command(trace: Path, output: str, **options: Any) -> int:
    """Send the rows of TRACE.csv through HTTP at their own times divided by --speed.

    Each row (TIMESTAMP, ContextTokens, GeneratedTokens) becomes one task, whose handler sleeps 0.0002 s for each
    context token and 0.03 s for each generated one, divided by --speed. At the end it prints what was submitted,
    completed, lost and duplicated, and how long tasks waited. It fails if anything was lost or duplicated.

    Without --url it starts everything here, with data in a temporary folder. With --url the workers have to be
    started by `REPLAY_LEDGER=FILE headrace worker --app headrace_cli.replay_app`.
    """
    if options["url"] and options["kill_workers"]:
        raise click.UsageError("--kill-workers kills the workers that are started here, so it goes without --url.")

    if options["ledger"] and not options["url"]:
        _check_ledger(options["ledger"])

    from .replay_live import Options, Replay
    from .replay_trace import read_trace

    rows = read_trace(trace, options.pop("limit"))
    return Replay(rows, Options(as_json=output == "json", **options)).run()


def _check_ledger(path: Path) -> None:
    """Workers that cannot note their runs do not start, and all that they were to do would look lost."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise click.UsageError(f"--ledger {path} cannot be written ({error.strerror}). Name another file.") from error
