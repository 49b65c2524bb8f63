"""How a pool's target moves wait and cost: a table for who has to choose one."""

from __future__ import annotations

from statistics import geometric_mean
from typing import Final

from .catalogue import CHOICES, DEFAULT, OURS
from .frontier import Point, Points, by_start, of, patterns_of
from .table import LEAST_S, number

BEGIN: Final = "<!-- targets, made by `make frontier`: begin -->"
END: Final = "<!-- targets, made by `make frontier`: end -->"
SHOWN: Final = ("square", "sine", "full", "long", "code")
"""Patterns that differ in what a target does to them."""


def markdown(points: Points) -> str:
    """A line for each target; with pods that start as they mostly do."""
    points = next(iter(by_start(points).values()))
    shown = [pattern for pattern in patterns_of(points) if pattern in SHOWN]
    head = ["target", "all patterns", *(f"`{pattern}`" for pattern in shown), "pods started"]
    return "\n".join([_line(head), _line(["---"] * len(head)), *_rows(points, shown)])


def _rows(points: Points, shown: list[str]) -> list[str]:
    lines = []
    for words, knobs in CHOICES.items():
        found = {pattern: _point(points, pattern, knobs) for pattern in patterns_of(points)}
        means = [each.mean for each in found.values() if each is not None]
        if means:
            waits = geometric_mean(max(LEAST_S, mean.wait_p95_s) for mean in means)
            costs = geometric_mean(mean.cost for mean in means)
            cells = [_cell(found[pattern]) for pattern in shown]
            made = number(sum(mean.made for mean in means))
            name = f"**{words}**, the default" if knobs == DEFAULT else words
            lines.append(_line([name, f"{number(waits)}, {number(costs)}", *cells, made]))
    return lines


def _point(points: Points, pattern: str, knobs: str) -> Point | None:
    return next((each for each in of(points, pattern, OURS) if each.knobs == knobs), None)


def _cell(point: Point | None) -> str:
    return "" if point is None else f"{number(point.mean.wait_p95_s)}, {number(point.mean.cost)}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
