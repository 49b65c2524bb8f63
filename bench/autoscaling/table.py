"""The frontier in Markdown, between two marks of a page."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Final

from .catalogue import CONTENDERS, DEFAULT, KEDA_BEST, KEDA_USUAL, ORACLE, OURS
from .frontier import Comparison, Point, Points, ahead_everywhere, by_start, compare, of, patterns_of
from .metrics import Figures

BEGIN: Final = "<!-- made by `make frontier`: begin -->"
LEAST_S: Final = 0.05
"""Less counts as this in a mean of waits."""
END: Final = "<!-- made by `make frontier`: end -->"


def markdown(points: Points) -> str:
    """All tables and what they say together."""
    quick, *slower = by_start(points).values()
    return "\n\n".join([_all(quick), *map(_slow, slower)])


def _all(points: Points) -> str:
    patterns = patterns_of(points)
    seeds = sorted({len(point.runs) for point in points})
    compared = [compare(points, pattern) for pattern in patterns]
    runs = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lines = [
        f"Seeds a point: {runs}. ± is half of the 95 % interval of the mean (bootstrap over the seeds).",
        "",
        "| pattern | headrace as it comes: p50 / p95 / p99 / most s | cost "
        "| KEDA, one good setting: p50 / p95 / p99 / most s | cost | oracle: p95 s | cost |",
        "|---|---|---|---|---|---|---|",
        *(_row(points, each) for each in compared),
        "",
        "| pattern | headrace: p95 s, cost | KEDA's p95 at that cost | KEDA's cost at that p95 | "
        "interrupted: headrace; KEDA's one setting; those two | ahead in |",
        "|---|---|---|---|---|---|",
        *(_line([each.ours.pattern, _paid(each.ours.mean), *_duel(each)]) for each in compared),
        "",
        "| pattern | late, % | first pod / 18 pods, s | writes (turns) | pods started | done again, % "
        "| SPEC, %: missing / too many | of the time missing / too many | unlike |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_steadiness(each) for each in compared),
        "",
        "| all patterns | wait p95 s, geometric mean | cost, geometric mean | pods started | writes | interrupted |",
        "|---|---|---|---|---|---|",
        *_overall(points),
        "",
        _sum(compared),
        "",
        _others(ahead_everywhere(points, patterns), seeds[0]),
    ]
    return "\n".join(lines)


def _slow(points: Points) -> str:
    """The same where pods start slowly: who is ahead, and nothing else."""
    compared = [compare(points, pattern) for pattern in patterns_of(points)]
    lines = [
        f"Pods that start in {points[0].start_s:g} s, p95 s and cost:",
        "",
        "| pattern | headrace as it comes | KEDA, one good setting | oracle | KEDA's p95 at headrace's cost "
        "| KEDA's cost at headrace's p95 | interrupted: headrace; KEDA's one setting; those two | ahead in |",
        "|---|---|---|---|---|---|---|---|",
        *(
            _line(
                [
                    each.ours.pattern,
                    *(_paid(it.mean) for it in (each.ours, each.keda, of(points, each.ours.pattern, ORACLE)[0])),
                    *_duel(each),
                ]
            )
            for each in compared
        ),
        "",
        _sum(compared),
    ]
    return "\n".join(lines)


def _paid(mean: Figures) -> str:
    return f"{number(mean.wait_p95_s)}, {number(mean.cost)}"


def insert(page: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put it between the marks. Raises ValueError if the page has none."""
    before, begun, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{page} has no marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _row(points: Points, compared: Comparison) -> str:
    bound = of(points, compared.ours.pattern, ORACLE)[0]
    cells = [compared.ours.pattern]
    for each in (compared.ours, compared.keda):
        mean = each.mean
        waits = (number(mean.wait_p50_s), _sure(each, "wait_p95_s"), number(mean.wait_p99_s), number(mean.wait_max_s))
        cells += [" / ".join(waits), _sure(each, "cost")]
    return _line([*cells, number(bound.mean.wait_p95_s), number(bound.mean.cost)])


def _duel(compared: Comparison) -> list[str]:
    """What hindsight does for KEDA, what was interrupted, and who is ahead."""
    ours, keda = compared.ours.mean, compared.keda.mean
    interrupted = (ours.interrupted, keda.interrupted, *compared.interrupted)
    ahead = [name for name, it_is in (("wait", compared.ahead_in_wait), ("cost", compared.ahead_in_cost)) if it_is]
    return [
        number(compared.wait_s) if math.isfinite(compared.wait_s) else "none is as cheap",
        number(compared.cost) if math.isfinite(compared.cost) else "none waits so little",
        "; ".join(number(each) for each in interrupted[:2]) + "; " + ", ".join(map(number, interrupted[2:])),
        " and ".join(ahead) or "**neither**",
    ]


def _steadiness(compared: Comparison) -> str:
    """Ours as it comes; KEDA with one setting."""

    def both(of: Callable[[Figures], str]) -> str:
        return "; ".join(of(each.mean) for each in (compared.ours, compared.keda))

    return _line(
        [
            compared.ours.pattern,
            both(lambda mean: number(100 * mean.late)),
            both(lambda mean: f"{number(mean.first_pod_s)} / {number(mean.most_pods_s)}"),
            both(lambda mean: f"{mean.writes:.0f} ({mean.reversals:.0f})"),
            both(lambda mean: f"{mean.made:.0f}"),
            both(lambda mean: number(100 * mean.wasted)),
            both(lambda mean: f"{number(100 * mean.under)} / {number(100 * mean.over)}"),
            both(lambda mean: f"{100 * mean.under_time:.0f} / {100 * mean.over_time:.0f}"),
            both(lambda mean: f"{100 * mean.instability:.0f}"),
        ]
    )


def _overall(points: Points) -> list[str]:
    """The defaults, what else they might be, and KEDA."""
    shown = [(OURS, DEFAULT, "as it comes"), *((OURS, knobs, knobs) for knobs in CONTENDERS)]
    shown.append((KEDA_BEST, KEDA_USUAL, "one good setting"))
    lines = []
    for policy, knobs, words in shown:
        means = [each.mean for each in points if (each.policy, each.knobs) == (policy, knobs)]
        if means:
            waits = geometric_mean(max(LEAST_S, mean.wait_p95_s) for mean in means)
            sums = [number(sum(getattr(mean, name) for mean in means)) for name in ("made", "writes", "interrupted")]
            name = f"{policy}, {words}" if policy == OURS else f"KEDA, {words}"
            lines.append(_line([name, number(waits), number(geometric_mean(mean.cost for mean in means)), *sums]))
    return lines


def _sum(compared: list[Comparison]) -> str:
    behind = [f"`{each.ours.pattern}`" for each in compared if not each.ahead]
    count = f"headrace as it comes is ahead in both on {len(compared) - len(behind)} of {len(compared)} patterns."
    worse = f" It is not on {', '.join(behind)}." if behind else ""
    return f"{count}{worse}"


def _others(everywhere: list[str], seeds: int) -> str:
    others = "; ".join(knobs for knobs in everywhere if knobs != DEFAULT)
    return f"Other knobs with which it is ahead on all of them (seeds: {seeds}): {others or 'none'}."


def _sure(point: Point, name: str) -> str:
    low, high = point.interval(name)
    return f"{number(getattr(point.mean, name))} ± {number((high - low) / 2)}"


def number(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
