"""Replicas and depth over time, as a picture: a column for each pool, every round a line, the middle one bold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.autoscaling.draw import STYLE

from .cluster_samples import Line, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[str, str, Callable[[Sample], int]]
"""(label, colour, what of a sample)"""
REPLICAS: Final[Sequence[Curve]] = (
    ("replicas asked for", "#c8553d", lambda seen: seen.wanted),
    ("pods Ready", "#0b6e4f", lambda seen: seen.ready),
)
DEPTH: Final[Sequence[Curve]] = (
    ("tasks that wait", "#5b5f97", lambda seen: seen.waiting),
    ("tasks that run", "#b8a031", lambda seen: seen.running),
)
FAINT: Final = 0.3


def draw(columns: Mapping[str, Sequence[Line]], path: Path, note: str = "") -> list[Path]:
    """Title → a line each round. Writes `path` with .png and .svg; the same samples give the same SVG. `note` says
    where they are from."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(
            2, len(columns), figsize=(max(8, 6 * len(columns)), 5.5), layout="constrained", squeeze=False,
            sharex=True, sharey="row",
        )  # fmt: skip
        for column, (title, lines) in enumerate(columns.items()):
            _panel(axes[0][column], lines, REPLICAS, named=column == 0)
            _panel(axes[1][column], lines, DEPTH, named=column == 0)
            axes[0][column].set_title(title, fontsize=10, loc="left")
            axes[1][column].set_xlabel("seconds since the submission")
        axes[0][-1].set_title(note, fontsize=8, loc="right", color="#777777")
        axes[0][0].set_xlim(0, max(line[-1].at_s for lines in columns.values() for line in lines))
        axes[0][0].yaxis.get_major_locator().set_params(integer=True)
        figure.legend(frameon=False, loc="outside lower center", ncols=len(REPLICAS) + len(DEPTH))
        path.parent.mkdir(parents=True, exist_ok=True)
        paths = [path.with_name(path.name + suffix) for suffix in (".png", ".svg")]
        for each in paths:
            metadata: dict[str, Any] = {"Date": None} if each.suffix == ".svg" else {"Software": None}
            figure.savefig(each, dpi=130, metadata=metadata)
        plt.close(figure)
    return paths


def _panel(panel: Axes, lines: Sequence[Line], curves: Sequence[Curve], *, named: bool) -> None:
    bold = middle(lines)
    for label, colour, of in curves:
        for line in lines:
            times, values = [each.at_s for each in line], [of(each) for each in line]
            style: dict[str, Any] = {"linewidth": 0.8, "alpha": FAINT}
            if line is bold:
                style = {"linewidth": 1.8, "label": label if named else None}
            panel.plot(times, values, color=colour, drawstyle="steps-post", **style)
    panel.set_ylim(bottom=0)


def middle(lines: Sequence[Line]) -> Line:
    """The round whose last task ended neither first nor last."""
    return sorted(lines, key=work_ended_s)[len(lines) // 2]


def work_ended_s(line: Line) -> float:
    """When the last task had ended."""
    return max((each.at_s for each in line if each.waiting or each.running), default=0.0)
