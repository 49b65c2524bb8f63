"""The frontier as a picture: a panel for each pattern, cost from left to right, wait from below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Final

from .catalogue import CATALOGUE, DEFAULT, KEDA_BEST, KEDA_USUAL, ORACLE, OURS
from .frontier import Point, Points, by_start, front, of, patterns_of
from .workloads import PATTERNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = 3
RIVALS: Final = (OURS, KEDA_BEST)
LOOKS: Final = {
    OURS: ("#0b6e4f", "o"),
    KEDA_BEST: ("#c8553d", "s"),
    "KEDA by default": ("#e6a57e", "D"),
    "Knative's KPA": ("#5b5f97", "^"),
    "dask": ("#b8a031", "v"),
    "fixed": ("#8d99ae", "x"),
    ORACLE: ("#222222", "P"),
}
FAR: Final = 2.5
"""An oracle that waits less than this part of the others is not in the picture."""
LEAST_S: Final = 0.05
"""Waits below it are drawn on the axis."""
STEPS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
FINE: Final = tuple(digit * 10**power for power in (-1, 0, 1, 2) for digit in range(1, 10))
STYLE: Final = {
    "svg.hashsalt": "headrace", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e8e8e8", "grid.linewidth": 0.6, "axes.axisbelow": True,
}  # fmt: skip


def draw(points: Points, folder: Path) -> list[Path]:
    """Write frontier.png and frontier.svg, and the same of pods that start slowly; equal points give equal SVGs."""
    paths: list[Path] = []
    for nth, (start_s, those) in enumerate(by_start(points).items()):
        paths += _draw(those, folder / (f"frontier-{start_s:g}s" if nth else "frontier"))
    return paths


def _draw(points: Points, stem: Path) -> list[Path]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    patterns = patterns_of(points)
    rows = -(-(len(patterns) + 1) // COLUMNS)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, 3.4 * rows), layout="constrained", squeeze=False)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr, call-arg]
        panels = list(axes.flat)
        for panel, pattern in zip(panels, patterns, strict=False):
            _panel(panel, points, pattern)
        handles, labels = panels[0].get_legend_handles_labels()
        handles, labels = handles[-1:] + handles[:-1], labels[-1:] + labels[:-1]
        for panel in panels[len(patterns) :]:
            panel.axis("off")
        panels[len(patterns)].legend(handles, labels, loc="center", frameon=False, fontsize=11, labelspacing=0.8)
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=130, metadata=metadata)
        plt.close(figure)
    return paths


def _panel(panel: Axes, points: Points, pattern: str) -> None:
    found = {policy: of(points, pattern, policy) for policy in CATALOGUE}
    view = View.of(found[OURS], found[KEDA_BEST], found[ORACLE][0])
    for policy in CATALOGUE:
        if policy != ORACLE and len(found[policy]) > 1:
            _line(panel, policy, found[policy])
    _marks(panel, found, view)
    panel.set_yscale("log")
    panel.set_xlim(*view.costs)
    panel.set_ylim(*view.waits_s)
    shown = view.ticks_s
    panel.set_yticks(shown, [f"{s:g}" if s > LEAST_S else f"≤ {s:g}" for s in shown])
    panel.set_yticks([], minor=True)
    panel.set_title(f"{pattern}\n{fill(PATTERNS[pattern].words, 50)}", fontsize=9, loc="left")
    panel.set_xlabel("cost: slot-seconds paid ÷ seconds of work")
    panel.set_ylabel("wait, 95th percentile (s)")


@dataclass(frozen=True, slots=True)
class View:
    """What a panel shows: where ours and KEDA at its best are. Lines of others lead out of it."""

    costs: tuple[float, float]
    waits_s: tuple[float, float]

    @property
    def ticks_s(self) -> list[float]:
        """Finer ones where there would be few."""
        coarse, fine = ([s for s in steps if self.waits_s[0] <= s <= self.waits_s[1]] for steps in (STEPS, FINE))
        return coarse if len(coarse) > 2 else fine

    @staticmethod
    def of(ours: Points, keda: Points, oracle: Point) -> View:
        """An oracle that is far below is drawn at the edge: the others would lie on one line for its sake."""
        corners = [
            *front(ours),
            *front(keda),
            *(each for each in (*ours, *keda) if each.knobs in {DEFAULT, KEDA_USUAL}),
        ]
        costs = [each.mean.cost for each in (*corners, oracle)]
        waits_s = [_wait_s(each) for each in corners]
        waits_s.append(max(_wait_s(oracle), min(waits_s) / FAR))
        margin = 0.05 * (max(costs) - min(costs))
        return View((min(costs) - margin, max(costs) + margin), (min(waits_s) / 1.3, max(waits_s) * 1.3))


def _line(panel: Axes, policy: str, points: Points) -> None:
    """Who no other knobs beat, as steps; between its points a policy can do no better than the cheaper one."""
    (colour, marker), best, rival = LOOKS[policy], front(points), policy in RIVALS
    label = f"{policy}, over its knobs" if rival else policy
    if rival:
        dots = [each.mean.cost for each in points], [_wait_s(each) for each in points]
        panel.scatter(*dots, s=9, color=colour, marker=marker, alpha=0.3, linewidths=0.8)
    panel.plot(
        [each.mean.cost for each in best], [_wait_s(each) for each in best], drawstyle="steps-post", label=label,
        color=colour, marker=marker, markersize=4.5 if rival else 3, linewidth=1.8 if rival else 0.9,
        alpha=1.0 if rival else 0.75, zorder=4 if rival else 3,
    )  # fmt: skip


def _marks(panel: Axes, found: dict[str, list[Point]], view: View) -> None:
    """What is asked about first: ours as it comes, one good setting of KEDA, and the bound."""
    (star,) = (each for each in found[OURS] if each.knobs == DEFAULT)
    (usual,) = (each for each in found[KEDA_BEST] if each.knobs == KEDA_USUAL)
    for policy, point, marker, size, label in (
        (KEDA_BEST, usual, "s", 10, "KEDA, one good setting"),
        (ORACLE, found[ORACLE][0], "P", 10, "oracle"),
        (OURS, star, "*", 17, "headrace as it comes"),
    ):
        shown_s = max(_wait_s(point), view.waits_s[0] * 1.3)
        if shown_s > _wait_s(point) * 1.31:
            words = f"{point.mean.wait_p95_s:.2g} s"
            panel.annotate(words, (point.mean.cost, shown_s), (7, -3), textcoords="offset points", fontsize=8)
        panel.plot(
            [point.mean.cost], [shown_s], marker, color=LOOKS[policy][0], markersize=size, linestyle="none",
            markeredgecolor="white", label=label, zorder=6, clip_on=False,
        )  # fmt: skip


def _wait_s(point: Point) -> float:
    return max(LEAST_S, point.mean.wait_p95_s)
