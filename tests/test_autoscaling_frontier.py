"""The frontier: what it compares, what it writes, and that all of it runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.autoscaling import table, targets
from bench.autoscaling.__main__ import main
from bench.autoscaling.catalogue import CATALOGUE, CHOICES, DEFAULT, KEDA_BEST, KEDA_USUAL, ORACLE, OURS
from bench.autoscaling.frontier import Point, by_start, compare, front, load, save
from bench.autoscaling.metrics import NAMES, Figures, interval
from bench.autoscaling.policies.ours import Ours
from headrace_operator.spec import read_spec

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


def test_slow_starts_have_a_table_of_their_own() -> None:
    quick = [OUR_POINT, BOUND, point(KEDA_BEST, KEDA_USUAL, 7.0, 2.5)]
    slow = [replace(each, start_s=45.0) for each in [OUR_POINT, BOUND, point(KEDA_BEST, KEDA_USUAL, 4.0, 1.9)]]
    first, _, second = table.markdown([*slow, *quick]).partition("Pods that start in 45 s")
    assert "ahead in both on 1 of 1 patterns." in first
    assert "| burst | 5.00, 2.00 | 4.00, 1.90 | 0.10, 1.10 | 4.00 | 1.90 |" in second
    assert "ahead in both on 0 of 1 patterns. It is not on `burst`." in second


def test_what_never_came_is_said() -> None:
    never = replace(OUR_POINT.runs[0], first_pod_s=1.5, most_pods_s=math.inf)
    points = [replace(OUR_POINT, runs=(never,)), BOUND, point(KEDA_BEST, KEDA_USUAL, 7.0, 2.5)]
    assert "| 1.50 / never; 0.00 / 0.00 |" in table.markdown(points)


def test_every_choice_of_a_target_is_among_the_knobs_and_differs_in_nothing_else() -> None:
    ours = CATALOGUE[OURS]
    assert set(CHOICES.values()) <= set(ours)
    scalings = [dict(each.scaling) for each in map(ours.get, CHOICES.values()) if isinstance(each, Ours)]
    specs = [
        read_spec({"queues": [{"name": "q"}], "scaling": {"maxReplicas": 20} | scaling}).scaling for scaling in scalings
    ]
    assert {(spec.behavior, spec.idle_seconds) for spec in specs} == {(specs[0].behavior, specs[0].idle_seconds)}
    assert len({(spec.target_queue_wait_seconds, spec.target_tasks_per_replica) for spec in specs}) == len(CHOICES)


def test_the_table_of_targets_has_a_line_for_each_that_was_run() -> None:
    other = replace(point(OURS, CHOICES["20 s"], 8.0, 1.5), pattern="sine")
    text = targets.markdown([replace(OUR_POINT, pattern="sine"), other, replace(OUR_POINT, start_s=45.0)])
    assert text.splitlines()[0] == "| target | all patterns | `sine` | pods started |"
    assert text.splitlines()[2:] == [
        "| **5 s**, the default | 5.00, 2.00 | 5.00, 2.00 | 0.00 |",
        "| 20 s | 8.00, 1.50 | 8.00, 1.50 | 0.00 |",
    ]


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
    assert "the default |" in page.partition(targets.BEGIN)[2].partition(targets.END)[0]
    for name in ("frontier.png", "frontier.svg", "frontier-45s.png", "frontier-45s.svg"):
        assert f"images/{name}" in page
        assert (ROOT / "docs/images" / name).stat().st_size > 10_000


def test_all_of_it_runs(tmp_path: Path) -> None:
    """Every policy, one pattern, one seed: from the command to the picture."""
    runs = tmp_path / "runs.json"
    arguments = ["frontier", "--patterns", "burst", "--seeds", "1", "--jobs", "1", "--quick", "--no-page"]
    arguments += ["--images", str(tmp_path), "--json", str(runs)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| burst |" in done.output
    for name in ("frontier", "frontier-45s"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    assert {s: len(those) for s, those in by_start(load(runs)).items()} == {5.0: 2 * len(CATALOGUE), 45.0: 4}


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
