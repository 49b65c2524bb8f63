"""`python -m bench.operator_pools`: what the operator costs with 1, 50 and 1,000 pools, and how late it decides.

API server and Redis are real, and no pod ever starts: workers that beat are the bench's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from .errors import MeasureError
from .operator_figures import Crowd, Round, cost, milliseconds
from .operator_lag import hanging, lags, refusing
from .operator_load import WORKERS, busy, crowd
from .operator_rig import Pools, Rig, rig
from .report import PIPE_WIDTH, commit, processor

BUSY: Final = 10
"""Every so many pools one is at work."""
PARTS: Final = ("idle", "lag", "hanging", "refused", "busy", "crowd")
MANY: Final = 1_000
"""The goals are for so many pools."""
EXAMPLE: Final = """\b
Examples:
  make bench-operator
  python -m bench.operator_pools --pools 50 --only lag --kubeconfig ~/.kube/config
"""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    title: str
    show: Callable[[Sequence[Round]], str]
    goal: float | None = None
    """At most, with 1,000 pools."""
    figure: Callable[[Round], float] | None = None


def _middle(title: str, figure: Callable[[Round], float | None], digits: int, goal: float | None = None) -> Line:
    """The median of the rounds that have it."""

    def show(rounds: Sequence[Round]) -> str:
        found = [value for value in map(figure, rounds) if value is not None]
        return f"{median(found):,.{digits}f}" if found else ""

    return Line(title, show, goal, lambda each: figure(each) or 0.0)


def _crowd(title: str, figure: Callable[[Crowd], float], digits: int = 0) -> Line:
    return _middle(
        f"{WORKERS} workers beat in each queue: {title}",
        lambda each: None if each.crowd is None else figure(each.crowd),
        digits,
    )


def _lag(title: str, key: str) -> Line:
    """Of all rounds together."""

    def show(rounds: Sequence[Round]) -> str:
        found = [seconds for each in rounds for seconds in each.lags.get(key, ())]
        if not found:
            return ""
        return f"{milliseconds(found, 0.5)} · {milliseconds(found, 0.99)} (n {len(found)})"

    return Line(title, show)


LINES: Final = (
    _middle("idle pools: CPU of the operator, % of a core", lambda each: each.idle.cpu, 1, 10.0),
    _middle("idle pools: resident memory of the operator, MiB", lambda each: each.rss, 0, 150.0),
    _middle("idle pools: Redis commands a second", lambda each: each.idle.commands, 0),
    _middle("idle pools: CPU of Redis, % of a core", lambda each: each.idle.redis_cpu, 1),
    _middle("idle pools: requests to the API server a second", lambda each: each.idle.requests, 2),
    _middle("idle pools: a tick, mean ms", lambda each: each.idle.tick_ms, 1),
    _lag("submitted to an idle pool at zero → replicas written, p50 · p99 ms", "lag"),
    _lag("the same, while the Redis of every second pool hangs", "hanging"),
    _lag("the same, while the Redis of every second pool is gone", "refused"),
    _lag("the same, while a tenth of the pools is at work", "busy"),
    _crowd("beats a second", lambda crowd: crowd.beats),
    _crowd("CPU of the operator a tick, ms", lambda crowd: crowd.cost.cpu_ms_a_tick),
    _crowd("CPU of Redis a tick beside the beats, ms", lambda crowd: crowd.redis_ms_a_tick, 1),
    _crowd("CPU of Redis for the beats, % of a core", lambda crowd: crowd.beats_redis_cpu),
    _crowd("a tick, mean ms", lambda crowd: crowd.cost.tick_ms),
    _crowd("a tick, 99 % within ms", lambda crowd: crowd.cost.tick_p99_ms),
    _crowd("resident memory of the operator, MiB", lambda crowd: crowd.rss),
)


def _numbers(_context: click.Context, _option: click.Parameter, given: str) -> tuple[int, ...]:
    """1,50,1000 as a tuple."""
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{given!r} is no list of numbers from 1: write it as in 1,50,1000")
    return tuple(map(int, parts))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EXAMPLE)
@click.option("--kubeconfig", metavar="FILE", help="A cluster's administrator. [a control plane of its own]")
@click.option("--pools", default="1,50,1000", show_default=True, metavar="N,…", callback=_numbers, help="How many.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="The table shows their median.")
@click.option(
    "--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="How long a cost is measured."
)
@click.option(
    "--submissions", type=click.IntRange(1), default=100, show_default=True, help="Of each lag, 20 to a pool at most."
)
@click.option(
    "--only", type=click.Choice(PARTS), multiple=True, help="Only this beside the idle cost; may be repeated."
)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where the JSON goes. [bench/results/…]")
def main(pools: Sequence[int], rounds: int, path: Path | None, only: Sequence[str], **options: Any) -> None:
    """Measure what the operator costs, and how late it decides.

    It wants two idle cores and, with a cluster that you name, that no other operator works there. A missed goal is
    told by the table, not by the exit code. The defaults take about a quarter of an hour.
    """
    plan = Plan(only or PARTS, **options)
    facts, found = _facts(), list[Round]()
    try:
        for count in pools:
            found += [measure(plan, count) for _ in range(rounds)]
    except MeasureError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if found:
            _write(path or _default_path(), facts, found)
    show(found)


@dataclass(frozen=True)
class Plan:
    """What is measured, on what."""

    parts: Sequence[str]
    kubeconfig: str | None
    seconds: float
    submissions: int


def measure(plan: Plan, count: int) -> Round:
    """One number of pools, once."""
    with rig(plan.kubeconfig, Pools(count), lambda text: click.echo(text, err=True)) as made:
        made.settle()
        made.say(f"{count} pools: at rest, measured for {plan.seconds:.0f} s")
        before = made.read()
        time.sleep(plan.seconds)
        idle, rss = cost(before, made.read()), made.rss_mib()
        made.say(f"{count} pools: {idle.cpu:.1f} % of a core, {rss:.0f} MiB")
        found = asyncio.run(_lags(plan, made))
        crowded = asyncio.run(crowd(made, plan.seconds / 2)) if "crowd" in plan.parts else None
    return Round(count, rss, idle, found, crowded)


async def _lags(plan: Plan, rig: Rig) -> dict[str, list[float]]:
    """Each thing that may go on meanwhile, one after the other; what one pool alone cannot show is left out."""
    ours, found = rig.pools.ours, dict[str, list[float]]()
    if "lag" in plan.parts:
        found["lag"] = await lags(rig, ours, plan.submissions, "nothing else goes on")
    if "hanging" in plan.parts and rig.pools.others:
        with hanging(rig):
            found["hanging"] = await lags(rig, ours, plan.submissions, "the other Redis hangs")
    if "refused" in plan.parts and rig.pools.others:
        with refusing(rig):
            found["refused"] = await lags(rig, ours, plan.submissions, "the other Redis is gone")
    if "busy" in plan.parts and rig.pools.count >= BUSY:
        at_work = ours[:: BUSY // 2]
        async with busy(rig, at_work):
            free = [name for name in ours if name not in at_work]
            found["busy"] = await lags(rig, free, plan.submissions, f"{len(at_work)} are at work")
    return found


def _facts() -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(), "processor": processor(),
        "python": platform.python_version(), "load_before": os.getloadavg(), "commit": commit(),
    }  # fmt: skip


def _default_path() -> Path:
    return Path(__file__).parent / "results" / f"operator-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"


def _write(path: Path, facts: dict[str, Any], found: Sequence[Round]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"facts": facts, "rounds": [asdict(each) for each in found]}, indent=1) + "\n")
    click.echo(f"Every round is in {path}", err=True)


def show(found: Sequence[Round]) -> None:
    """The table: a column for each number of pools."""
    numbers = sorted({each.pools for each in found})
    table = Table("measure", f"goal at {MANY:,}", *(f"{number:,} pool{'s' * (number > 1)}" for number in numbers))
    for line in LINES:
        cells = [line.show([each for each in found if each.pools == number]) for number in numbers]
        if any(cells):
            table.add_row(line.title, _goal(line, found), *cells)
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def _goal(line: Line, found: Sequence[Round]) -> str:
    if line.goal is None or line.figure is None:
        return ""
    values = [line.figure(each) for each in found if each.pools == MANY]
    return f"≤ {line.goal:g}{' missed' if values and median(values) > line.goal else ''}"


if __name__ == "__main__":
    main()
