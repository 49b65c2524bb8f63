"""`python -m bench.autoscaling`: simulate how pools are scaled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import check, draw, frontier, table, targets
from .catalogue import CATALOGUE, DEFAULT, OURS, RIVALS, SLOW_START_S, START_S, Job
from .catalogue import run as run_job
from .metrics import NAMES, interval
from .workloads import PATTERNS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "scaling.md"
RESULTS: Final = ROOT / "bench" / "results" / "autoscaling.json"
STARTS: Final = (START_S, SLOW_START_S)
STARTS_HELP: Final = "Median seconds of a pod's start; again: for those only headrace, KEDA at its best and the oracle."
FRESH: Final = 10
"""By the seeds from here on nothing was chosen: no default, no knob."""
EXAMPLES: Final = """\b
Examples:
  python -m bench.autoscaling list                                  patterns, policies and their knobs
  python -m bench.autoscaling run square                            headrace as it comes
  python -m bench.autoscaling run long --policy "KEDA at its best" --knobs "target 1, window 60 s, cooldown 60 s"
  python -m bench.autoscaling check                                 the model of KEDA beside what was measured
  python -m bench.autoscaling frontier --seeds 5                    everything; what `make frontier` does
  python -m bench.autoscaling frontier --patterns burst,code --no-page
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=EXAMPLES)
def main() -> None:
    """Simulate how pools are scaled: the operator's own decide() beside KEDA and others, on a virtual clock."""


@main.command("list")
def list_all() -> None:
    """What can be simulated."""
    for name, pattern in PATTERNS.items():
        click.echo(f"{name:8} {pattern.words}")
    for policy, variants in CATALOGUE.items():
        click.echo(f"\n{policy}")
        for knobs in variants:
            click.echo(f"  {knobs}")


@main.command()
@click.argument("pattern", type=click.Choice(list(PATTERNS)))
@click.option("--policy", type=click.Choice(list(CATALOGUE)), default=OURS, show_default=True)
@click.option("--knobs", default=DEFAULT, show_default=True, help="As `list` shows them.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--start", default=START_S, show_default=True, help="Median seconds of a pod's start.")
def run(pattern: str, policy: str, knobs: str, seeds: int, start: float) -> None:
    """One policy under one pattern: every figure with the 95 % interval of its mean."""
    if knobs not in CATALOGUE[policy]:
        raise click.BadParameter(f"{policy} has {'; '.join(CATALOGUE[policy])}", param_hint="--knobs")
    runs = [run_job(Job(pattern, policy, knobs, seed, start)) for seed in range(seeds)]
    shown = Table("figure", "mean", "95 %", box=SIMPLE_HEAD)
    for name in NAMES:
        values = [getattr(each, name) for each in runs]
        low, high = interval(values)
        shown.add_row(name, f"{sum(values) / seeds:.3f}", f"{low:.3f} to {high:.3f}")
    Console().print(shown)


@main.command("check")
def check_keda() -> None:
    """The model of KEDA beside the runs of KEDA on a real cluster."""
    click.echo(check.markdown())


@main.command("frontier")
@click.option("--patterns", metavar="NAME,…", help="Only these.  [all]")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="How many.")
@click.option("--first", default=FRESH, show_default=True, help="The first; by those before it, knobs were chosen.")
@click.option("--start", "starts", type=float, multiple=True, default=STARTS, show_default=True, help=STARTS_HELP)
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="the cores here")
@click.option("--images", type=click.Path(path_type=Path), default=ROOT / "docs" / "images", help="Where pictures go.")
@click.option("--json", "path", type=click.Path(path_type=Path), default=RESULTS, help="Where every run goes.")
@click.option("--quick", is_flag=True, help="Two knobs of each policy: shows that it works, and is no frontier.")
@click.option("--no-page", is_flag=True, help="Leave docs/scaling.md as it is.")
@click.option("--again", is_flag=True, help="Draw what --json has; simulate nothing.")
def frontier_(
    patterns: str | None,
    seeds: int,
    first: int,
    starts: Sequence[float],
    jobs: int,
    images: Path,
    path: Path,
    **flags: bool,
) -> None:
    """Every policy over its knobs under every pattern: wait against cost, as a picture and as a table."""
    if flags["again"]:
        points = frontier.load(path)
    else:
        plan = frontier.Plan(_chosen(patterns), range(first, first + seeds), most=2 if flags["quick"] else None)
        work = _jobs(plan, starts)
        with _progress(len(work)) as tick:
            points = frontier.measure(work, jobs, tick)
        frontier.save(points, path)
    for picture in draw.draw(points, images):
        click.echo(f"Drawn: {picture}", err=True)
    text = table.markdown(points)
    to_choose = targets.markdown(points)
    if not flags["no_page"]:
        table.insert(PAGE, text)
        table.insert(PAGE, to_choose, targets.BEGIN, targets.END)
    click.echo(f"{text}\n\n{to_choose}")


def _jobs(plan: frontier.Plan, starts: Sequence[float]) -> list[Job]:
    plans = (replace(plan, start_s=s, policies=RIVALS if nth else CATALOGUE) for nth, s in enumerate(starts))
    return [job for each in plans for job in each.jobs()]


def _chosen(patterns: str | None) -> list[str]:
    chosen = [name.strip() for name in patterns.split(",")] if patterns else list(PATTERNS)
    for name in chosen:
        if name not in PATTERNS:
            raise click.BadParameter(
                f"{name!r} is no pattern; there are {', '.join(PATTERNS)}", param_hint="--patterns"
            )
    return chosen


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    columns = (TextColumn("simulated"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    main()
