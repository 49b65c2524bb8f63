"""The frontier as a picture: a panel for each pattern, cost from left to right, wait from below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from .catalogue import CATALOGUE, DEFAULT, ORACLE, OURS
from .frontier import Points, front, of
from .workloads import PATTERNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = 3
LOOKS: Final = {
    "headrace": ("#0b6e4f", "o"),
    "KEDA at its best": ("#c8553d", "s"),
    "KEDA by default": ("#e6a57e", "D"),
    "Knative's KPA": ("#5b5f97", "^"),
    "dask": ("#b8a031", "v"),
    "fixed": ("#8d99ae", "x"),
    "oracle": ("#222222", "."),
}
LEAST_S: Final = 0.05
"""Waits below it are drawn on the axis."""
MOST_S: Final = 150.0
MOST: Final = 5.0
"""What waits longer or costs more lies outside; but for rare tasks, which cost twenty times as much."""


def draw(points: Points, folder: Path) -> list[Path]:
    """Write frontier.png and frontier.svg; the same points give the same SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    patterns = [name for name in PATTERNS if any(point.pattern == name for point in points)]
    rows = -(-(len(patterns) + 1) // COLUMNS)
    style = {"svg.hashsalt": "headrace", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):  # type: ignore[arg-type]
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(11, 2.9 * rows), squeeze=False)
        figure.subplots_adjust(0.06, 0.04, 0.99, 0.98, wspace=0.22, hspace=0.42)
        panels = list(axes.flat)
        for panel, pattern in zip(panels, patterns, strict=False):
            _panel(panel, points, pattern)
        handles, labels = panels[0].get_legend_handles_labels()
        for panel in panels[len(patterns) :]:
            panel.axis("off")
        panels[len(patterns)].legend(handles, labels, loc="center", frameon=False, fontsize=9)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "frontier.png", folder / "frontier.svg"]
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=130, metadata=metadata)
        plt.close(figure)
    return paths


def _panel(panel: Axes, points: Points, pattern: str) -> None:
    for policy in CATALOGUE:
        colour, marker = LOOKS[policy]
        found = of(points, pattern, policy)
        xs, ys = [point.mean.cost for point in found], [max(LEAST_S, point.mean.wait_p95_s) for point in found]
        best = front(found)
        line_xs, line_ys = [each.mean.cost for each in best], [max(LEAST_S, each.mean.wait_p95_s) for each in best]
        if policy == ORACLE:
            panel.plot(xs[:1], ys[:1], "P", color=colour, markersize=8, linestyle="none", label="oracle", zorder=6)
            continue
        panel.scatter(xs, ys, s=9, color=colour, marker=marker, alpha=0.35, linewidths=0.8)
        panel.plot(
            line_xs, line_ys, color=colour, marker=marker, markersize=3.5, linewidth=1, drawstyle="steps-post",
            label=policy,
        )  # fmt: skip
        if policy == OURS:
            star = next(point.mean for point in found if point.knobs == DEFAULT)
            panel.plot(
                [star.cost], [max(LEAST_S, star.wait_p95_s)], "*", color=colour, markersize=13, markeredgecolor="white",
                linestyle="none", label="headrace as it comes", zorder=5,
            )  # fmt: skip
    panel.set_yscale("log")
    panel.set_ylim(LEAST_S * 0.8, MOST_S)
    panel.set_xlim(0.9, MOST * (20 if pattern == "rare" else 1))
    panel.set_title(f"{pattern}: {PATTERNS[pattern].words}", fontsize=7.5, loc="left")
    panel.set_xlabel("slot-seconds paid ÷ seconds of work", fontsize=7)
    panel.set_ylabel("wait, p95 (s)", fontsize=7)
    panel.yaxis.set_major_formatter("{x:g}")
