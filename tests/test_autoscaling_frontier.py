"""The frontier: what it compares, what it writes, and that all of it runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.autoscaling import table
from bench.autoscaling.__main__ import main
from bench.autoscaling.catalogue import CATALOGUE, DEFAULT, KEDA_BEST, KEDA_USUAL, ORACLE, OURS
from bench.autoscaling.frontier import Point, compare, front, load, save
from bench.autoscaling.metrics import NAMES, Figures, interval

ROOT = Path(__file__).parent.parent


def point(policy: str, knobs: str, wait_s: float, cost: float, interrupted: float = 0.0) -> Point:
    given = {"wait_p95_s": wait_s, "cost": cost, "interrupted": interrupted}
    return Point("burst", policy, knobs, (Figures(**{name: given.get(name, 0.0) for name in NAMES}),) * 2)


OUR_POINT = point(OURS, DEFAULT, 5.0, 2.0)
BOUND = point(ORACLE, "20 pods", 0.1, 1.1)


def test_the_front_is_who_is_beaten_by_nobody() -> None:
    points = [point("x", str(n), wait, cost) for n, (wait, cost) in enumerate([(9, 1), (5, 2), (6, 3), (1, 4), (1, 5)])]
    assert [(each.mean.wait_p95_s, each.mean.cost) for each in front(points)] == [(9, 1), (5, 2), (1, 4)]


def test_behind_is_said() -> None:
    """KEDA waits 3 s at our cost, and costs 1.5 at our wait."""
    points = [OUR_POINT, BOUND, point(KEDA_BEST, KEDA_USUAL, 3.0, 1.5, interrupted=4.0)]
    found = compare(points, "burst")
    assert (found.wait_s, found.cost, found.interrupted) == (3.0, 1.5, (4.0, 4.0))
    assert not found.ahead_in_wait and not found.ahead_in_cost
    assert "**neither**" in table.markdown(points)
    assert "ahead in both on 0 of 1 patterns. It is not on `burst`." in table.markdown(points)


def test_ahead_is_said_also_where_the_other_never_gets_there() -> None:
    points = [OUR_POINT, BOUND, point(KEDA_BEST, KEDA_USUAL, 7.0, 2.5)]
    found = compare(points, "burst")
    assert (found.wait_s, found.cost) == (math.inf, math.inf)
    assert found.ahead_in_wait and found.ahead_in_cost
    assert "ahead in both on 1 of 1 patterns." in table.markdown(points)


def test_an_interval_holds_the_mean_and_is_none_of_equals() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0, 10.0])
    assert 1.0 < low < 4.0 < high < 10.0
    assert interval([3.0] * 5) == (3.0, 3.0)


def test_only_what_is_between_the_marks_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.insert(page, "new")
    assert page.read_text() == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no marks"):
        table.insert(page, "new")


def test_runs_are_kept(tmp_path: Path) -> None:
    save([OUR_POINT, BOUND], tmp_path / "runs.json")
    assert load(tmp_path / "runs.json") == [OUR_POINT, BOUND]


def test_the_page_has_the_tables_and_the_picture() -> None:
    page = (ROOT / "docs/scaling.md").read_text()
    assert "headrace as it comes is ahead in both on" in page.partition(table.BEGIN)[2].partition(table.END)[0]
    assert "images/frontier.svg" in page
    assert all((ROOT / "docs/images" / name).stat().st_size > 10_000 for name in ("frontier.png", "frontier.svg"))


def test_all_of_it_runs(tmp_path: Path) -> None:
    """Every policy, one pattern, one seed: from the command to the picture."""
    runs = tmp_path / "runs.json"
    arguments = ["frontier", "--patterns", "burst", "--seeds", "1", "--jobs", "1", "--quick", "--no-page"]
    arguments += ["--images", str(tmp_path), "--json", str(runs)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| burst |" in done.output
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "frontier.svg").read_text()
    assert len(load(runs)) == 2 * len(CATALOGUE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "burst", "--knobs", "quick"], "headrace has default; target 1 s, window 0 s"),
        (["frontier", "--patterns", "flood"], "'flood' is no pattern; there are burst, step"),
    ],
)
def test_what_it_does_not_know_it_says(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_help_has_examples() -> None:
    assert "python -m bench.autoscaling run square" in CliRunner().invoke(main, ["--help"]).output
