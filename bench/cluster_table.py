"""The table of what was measured on the cluster, for a terminal and for a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.autoscaling.table import number

from .cluster_burst import PODS, TASKS
from .cluster_harm import LONG, SHORT
from .cluster_samples import Round

Rounds = Mapping[str, Sequence[Round]]
"""By the name of the measurement."""
BEGIN: Final = "<!-- made by `make bench-cluster`: begin -->"
END: Final = "<!-- made by `make bench-cluster`: end -->"
HEAD: Final = ("measure (seconds, if nothing is said)", "goal", "median", "min – max", "n", "beside")
PIPE_WIDTH: Final = 170
HARM: Final = f"{SHORT[0]} tasks of {SHORT[1]:g} s and {LONG[0]} of {LONG[1]:g} s on a pool that shrinks"
REPLAY: Final = "an hour of a code model's requests in a minute"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    beside: str = ""
    """Key of what it stands beside: of the floor, or of the simulator (`model_…`)."""
    goal: float | None = None
    """At most."""
    goal_x: float | None = None
    """As a multiple of the floor."""
    count: bool = False
    """No seconds: a number of things."""
    total: bool = False
    """Of all rounds together."""


ROWS: Final = (
    Row("written", "one task at zero: submitted → replicas written", goal=0.1),
    Row("started", "one task at zero: submitted → its first line", "floor_started", goal_x=1.3),
    Row("other_started", "two tasks at zero, the first cancelled at once: submitted → the other's first line"),
    Row("ready", f"{TASKS} tasks of 1 s at zero: submitted → {PODS} Ready", "floor_ready", goal_x=1.2),
    Row(
        "drained",
        f"{TASKS} tasks of 1 s at zero: submitted → all completed (ideal {TASKS // PODS})",
        "floor_drained",
        goal=27.0,
    ),
    Row("again", "kill -9 of a busy worker → its task starts again", goal=2.0),
    Row("wait_p50", f"{REPLAY}: due → first line, p50", "model_wait_p50"),
    Row("wait_p95", f"{REPLAY}: due → first line, p95", "model_wait_p95"),
    Row("wait_p99", f"{REPLAY}: due → first line, p99", "model_wait_p99"),
    Row("cost", f"{REPLAY}: pod-seconds per second of work", "model_cost"),
    Row("most", f"{REPLAY}: most replicas", count=True),
    Row("writes", f"{REPLAY}: writes of the number", "model_writes", count=True),
    Row("replay_interrupted", f"{REPLAY}: tasks interrupted, all rounds", goal=0, count=True, total=True),
    Row("replay_stuck", f"{REPLAY}: tasks not completed, all rounds", goal=0, count=True, total=True),
    Row("harm_drained", f"{HARM}: submitted → all completed"),
    Row("harm_shrinks", f"{HARM}: number lowered while tasks ran, all rounds", count=True, total=True),
    Row("harm_interrupted", f"{HARM}: tasks interrupted, all rounds", goal=0, count=True, total=True),
    Row("harm_stuck", f"{HARM}: tasks not completed, all rounds", goal=0, count=True, total=True),
)


@dataclass(frozen=True)
class Result:
    """A row with what all rounds gave for it."""

    row: Row
    values: Sequence[float]
    others: Sequence[float]
    """What stands beside each value, if anything does."""

    @property
    def value(self) -> float:
        return sum(self.values) if self.row.total else median(self.values)

    @property
    def ratio(self) -> float | None:
        """Of the floor: the median of the rounds' own."""
        floors = self.others if self.row.beside.startswith("floor") else ()
        return median(value / floor for value, floor in zip(self.values, floors, strict=True)) if floors else None

    @property
    def reached(self) -> bool | None:
        """None: there is no goal."""
        if self.row.goal_x is not None:
            return self.ratio is not None and self.ratio <= self.row.goal_x
        return None if self.row.goal is None else self.value <= self.row.goal

    def cells(self) -> list[str]:
        row = self.row
        show = _whole if row.count else number
        goal = f"≤ {row.goal_x:g} × floor" if row.goal_x is not None else "" if row.goal is None else f"≤ {row.goal:g}"
        beside = "" if not self.others else f"simulator: {show(median(self.others))}"
        if self.ratio is not None:
            beside = f"{self.ratio:.2f} × the floor ({show(median(self.others))})"
        span = f"{show(min(self.values))} – {show(max(self.values))}"
        return [row.title, goal, show(self.value), span, str(len(self.values)), beside]


def results(rounds: Rounds) -> Iterator[Result]:
    """The rows of which there is any figure."""
    found = [each.figures for of_one in rounds.values() for each in of_one]
    for row in ROWS:
        those = [each for each in found if row.key in each]
        if those:
            yield Result(row, [each[row.key] for each in those], [each[row.beside] for each in those if row.beside])


def show(rounds: Rounds, facts: Mapping[str, Any]) -> None:
    table = Table(*HEAD)
    colours = {True: "green", False: "red", None: None}
    for each in results(rounds):
        table.add_row(*each.cells(), style=colours[each.reached])
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(table)
    console.print(where(facts))


def markdown(rounds: Rounds, facts: Mapping[str, Any]) -> str:
    """What is reached stands out."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for each in results(rounds):
        cells = each.cells()
        if each.reached:
            cells[2] = f"**{cells[2]}**"
        lines.append(_line(cells))
    return "\n".join([*lines, "", f"{where(facts)}."])


def where(facts: Mapping[str, Any]) -> str:
    loads = [f"{load:.1f}" for load in (facts["load_before"][0], facts["load_after"][0])]
    return (
        f"{facts['cores']} cores ({facts['processor']}) that run the whole cluster, Kubernetes {facts['kubernetes']}, "
        f"load average {loads[0]} before and {loads[1]} after"
    )


def _whole(value: float) -> str:
    return f"{value:g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
