"""`python -m bench.cluster`: how pools of a real Kubernetes react, beside the floor of the same image."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

import cluster_kit
from bench.autoscaling.table import insert
from cluster import choice
from cluster.choice import Cluster
from cluster_kit import World, world

from . import cluster_draw, cluster_table
from .cluster_burst import burst
from .cluster_file import load, save
from .cluster_floor import FLOOR, POOL
from .cluster_harm import harm
from .cluster_react import cancel, kill, wake
from .cluster_replay import replay
from .cluster_samples import Line, Round
from .cluster_table import Rounds
from .report import commit, processor

ROOT: Final = Path(__file__).parent.parent
RESULTS: Final = ROOT / "bench" / "results"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
IMAGES: Final = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Measurement:
    """What is done in each round, and how many rounds there are."""

    act: Callable[[World], Awaitable[Round]]
    rounds: int
    words: str


MEASUREMENTS: Final = {
    "wake": Measurement(wake, 5, "one task at zero, beside a number written by hand"),
    "cancel": Measurement(cancel, 5, "two tasks at zero, of which one is cancelled at once"),
    "burst": Measurement(burst, 5, "400 tasks of 1 s at zero, beside 20 replicas written by hand"),
    "kill": Measurement(kill, 5, "kill -9 of a busy worker"),
    "replay": Measurement(replay, 2, "an hour of recorded requests to a code model, 60 times as fast"),
    "harm": Measurement(harm, 20, "100 short and 20 long tasks on a pool that shrinks as soon as it may"),
}
PICTURES: Final = {
    "burst": {FLOOR: "floor: 20 replicas written by hand", POOL: "a pool of headrace"},
    "replay": {POOL: "an hour of requests to a code model in a minute"},
}
EXAMPLES: Final = "\b\nRows:\n" + "".join(
    f"  {name:8} {each.words} ({each.rounds} rounds)\n" for name, each in MEASUREMENTS.items()
) + """
\b
Examples:
  python -m bench.cluster                                    everything; what `make bench-cluster` does
  python -m bench.cluster --rows burst,replay --rounds 1     one short look
  python -m bench.cluster --page                             everything, and its table and pictures into docs/
  python -m bench.cluster --again FILE.json --page           those of an earlier run
"""  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EXAMPLES)
@click.option("--rows", metavar="NAME,…", help="Only these.")
@click.option("--rounds", type=click.IntRange(1), help="Of each row.  [as many as said below]")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where the JSON goes.  [bench/results/…]")
@click.option("--page", is_flag=True, help="Write the table into docs/benchmarks.md, pictures into docs/images.")
@click.option("--again", metavar="FILE", type=click.Path(path_type=Path, exists=True), help="Show it, measure nothing.")
def main(rows: str | None, rounds: int | None, path: Path | None, page: bool, again: Path | None) -> None:
    """Measure on the cluster of the tests. It wants an idle machine: a missed goal is told, and is no error."""
    wanted = _wanted(rows, rounds)
    failures: list[str] = []
    if again is None:
        path = path or RESULTS / f"cluster-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
        failures = _measure(wanted, path)
        again = path
    _show(again, page=page)
    if failures:
        raise click.ClickException("Not everything could be measured: " + "; ".join(failures))


def _wanted(rows: str | None, rounds: int | None) -> dict[str, Measurement]:
    names = [name.strip() for name in rows.split(",")] if rows else list(MEASUREMENTS)
    for name in names:
        if name not in MEASUREMENTS:
            raise click.BadParameter(f"{name!r} is no row; there are {', '.join(MEASUREMENTS)}", param_hint="--rows")
    chosen = {name: MEASUREMENTS[name] for name in names}
    return {name: replace(each, rounds=rounds or each.rounds) for name, each in chosen.items()}


def _measure(wanted: Mapping[str, Measurement], path: Path) -> list[str]:
    """Write it all there. Returns what failed."""
    made = choice.given(os.environ)
    with nullcontext() if made else choice.alone(wait=True):
        cluster = made or _start()
        cluster_kit.install(cluster)
        return asyncio.run(_all(cluster, wanted, path))


def _start() -> Cluster:
    way = choice.choose()
    if isinstance(way, str):
        raise click.ClickException(f"{way[0].upper()}{way[1:]}.")
    return choice.running(way)


async def _all(cluster: Cluster, wanted: Mapping[str, Measurement], path: Path) -> list[str]:
    """Each row in a world of its own. One that fails keeps the rounds that it has, and the others go on."""
    found: dict[str, list[Round]] = {name: [] for name in wanted}
    failures, facts = [], _facts()
    for name, measurement in wanted.items():
        try:
            async with world(cluster) as made:
                facts["kubernetes"] = (await made.requests.send("GET", "/version"))["gitVersion"].removeprefix("v")
                with made.operating():
                    await _many(made, measurement, found[name], name)
        except Exception as error:  # whatever it is: the other rows are not to be lost for it
            failures.append(f"{name}: {'; '.join(causes(error))}")
            click.echo(f"Failed: {failures[-1]}", err=True)
        save(path, found, facts | {"load_after": os.getloadavg()})
    return failures


async def _many(made: World, measurement: Measurement, found: list[Round], name: str) -> None:
    for number in range(1, measurement.rounds + 1):
        began_s = time.monotonic()
        found.append(await measurement.act(made))
        figures = ", ".join(f"{key} {value:.2f}" for key, value in found[-1].figures.items())
        click.echo(f"{name} {number}/{measurement.rounds} ({time.monotonic() - began_s:.0f} s): {figures}", err=True)


def causes(error: BaseException) -> list[str]:
    """What went wrong, without the groups around it."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for each in error.exceptions for cause in causes(each)]
    return [f"{type(error).__name__}: {error}"]


def _facts() -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(), "processor": processor(),
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
        "kubernetes": "", "load_before": os.getloadavg(), "commit": commit(),
    }  # fmt: skip


def _show(path: Path, *, page: bool) -> None:
    """What is in the file: as a table here, as pictures beside it; or both in the docs."""
    found, facts = load(path)
    cluster_table.show(found, facts)
    if page:
        insert(PAGE, cluster_table.markdown(found, facts), cluster_table.BEGIN, cluster_table.END)
    for picture in _draw(found, facts, IMAGES / "cluster" if page else path.with_suffix("")):
        click.echo(f"Drawn: {picture}", err=True)
    click.echo(f"Every round is in {path}")


def _draw(found: Rounds, facts: Mapping[str, Any], stem: Path) -> Iterable[Path]:
    for name, titles in PICTURES.items():
        if found.get(name):
            columns: dict[str, list[Line]] = {
                title: [each.lines[key] for each in found[name]] for key, title in titles.items()
            }
            note = f"n = {len(found[name])}, load average {facts['load_before'][0]:.1f} before the run"
            yield from cluster_draw.draw(columns, stem.with_name(f"{stem.name}-{name}"), note)


if __name__ == "__main__":
    main()
