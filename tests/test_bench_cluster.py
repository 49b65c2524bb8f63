"""The bench on a real Kubernetes, but for the cluster: what it makes of its looks, its table, its pictures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.autoscaling.table import insert
from bench.cluster import PAGE, causes, main
from bench.cluster_draw import draw, middle
from bench.cluster_file import load, save
from bench.cluster_harm import mixed
from bench.cluster_replay import measured, predicted, scaled
from bench.cluster_samples import (
    Recorder,
    Round,
    Sample,
    kept,
    pod_seconds,
    sample,
    shrinks_at_work,
    writes,
)
from bench.cluster_table import BEGIN, END, ROWS, markdown, results
from bench.cluster_tasks import interrupted, sending, stuck, waits
from headrace import App
from headrace.queues import QueueView
from headrace_cli.replay_trace import Row
from worker_harness import Desk, working

LINE = [
    Sample(0.0, wanted=0, ready=0, pods=0, waiting=4, running=0, completed=0),
    Sample(1.0, wanted=4, ready=0, pods=4, waiting=4, running=0, completed=0),
    Sample(3.0, wanted=4, ready=4, pods=4, waiting=0, running=4, completed=0),
    Sample(4.0, wanted=2, ready=3, pods=3, waiting=0, running=2, completed=2),
    Sample(5.0, wanted=1, ready=1, pods=2, waiting=0, running=0, completed=4),
    Sample(6.0, wanted=0, ready=0, pods=0, waiting=0, running=0, completed=4),
]
FACTS: dict[str, Any] = {
    "cores": 2, "processor": "a processor", "kubernetes": "1.37.2", "load_before": [0.5, 0, 0], "load_after": [1, 0, 0],
}  # fmt: skip


# -- looks


def test_a_look_counts_pods_that_start_and_those_on_their_way_out() -> None:
    status = {"replicas": 3, "readyReplicas": 1, "terminatingReplicas": 2}
    seen = {"spec": {"replicas": 3}, "status": status}, queue(7)
    assert sample(1.5, seen) == Sample(1.5, wanted=3, ready=1, pods=5, waiting=3, running=2, completed=7)


def test_what_is_not_there_yet_is_at_zero() -> None:
    assert sample(0.0, (None, None)) == Sample(0.0, 0, 0, 0, 0, 0, 0)


def queue(completed: int) -> QueueView:
    rest = dict.fromkeys(QueueView.__struct_fields__)
    return QueueView(**rest | {"pending": 3, "processing": 2, "completed": completed})  # type: ignore[arg-type]


def test_what_a_line_adds_up_to() -> None:
    assert pod_seconds(LINE) == 4 * 3 + 3 + 2
    assert writes(LINE) == 4
    assert shrinks_at_work(LINE) == 1, "the last two steps down met nothing that ran"
    assert [each.at_rest for each in LINE] == [False] * 5 + [True]


def played(*completed: int) -> tuple[Recorder, list[int]]:
    """Of a queue that shows one number after the other, and the last one for ever."""
    numbers = list(completed)

    async def look() -> tuple[None, QueueView]:
        return None, queue(numbers.pop(0) if len(numbers) > 1 else numbers[0])

    return Recorder(look, every_s=0), numbers


async def test_a_recorder_counts_from_its_beginning_and_keeps_what_differs() -> None:
    async with kept(played(5, 5, 5, 5, 6, 6, 9)[0]) as recorder:
        seen = await recorder.until(lambda seen: seen.completed == 4, "four")
    assert seen is recorder.line[-1]
    assert [each.completed for each in recorder.line] == [0, 1, 4]
    assert [each.at_s for each in recorder.line] == sorted(each.at_s for each in recorder.line)


async def test_what_never_comes_is_said_with_the_last_look() -> None:
    recorder, _ = played(5)
    await recorder.begin()
    with pytest.raises(AssertionError, match=r"not within 0.01 s: a pod; last seen: Sample\(.*completed=0\)"):
        await recorder.until(lambda seen: seen.pods > 0, "a pod", 0.01)


async def test_a_look_that_fails_ends_the_block() -> None:
    fading, numbers = played(0)
    with pytest.raises(ExceptionGroup) as raised:
        async with kept(fading) as recorder:
            numbers.clear()
            await recorder.until(lambda seen: False, "never")
    assert causes(raised.value) == ["IndexError: list index out of range"]


# -- tasks


async def test_tasks_go_out_at_their_times_and_what_became_of_them_is_read(redis_url: str) -> None:
    app = App("cluster")

    @app.task()
    async def nap(seconds: float = 0.0) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async with sending(redis_url) as sender:
        due = await sender.open_loop([(0.0, 0.01), (0.3, 0.02)])
        async with working(app, redis_url, concurrency=1):
            views = await sender.ends(due, 10)
    first, second = due.values()
    assert second - first == pytest.approx(0.3)
    waited_s = waits(due, views)
    assert waited_s[0] >= 0
    assert waited_s[1] >= 0.29, "the first one was due 0.3 s before there was a worker"
    assert (interrupted(views), stuck(views)) == (0, 0)
    figures = measured(due, views, LINE, ((0.0, 1.0), (0.3, 1.0)))
    assert (figures["wait_p50"], figures["wait_p99"]) == (waited_s[0], waited_s[1])
    assert (figures["cost"], figures["most"], figures["writes"]) == (17 / 2, 4, 4)


async def test_a_task_that_was_handed_back_is_interrupted(redis_url: str) -> None:
    app, began, once = App("cluster"), asyncio.Event(), [True]

    @app.task()
    async def nap(seconds: float = 0.0) -> str:
        if once:
            once.clear()
            began.set()
            await asyncio.sleep(60)
        return "done"

    async with sending(redis_url) as sender:
        [task_id] = await sender.at_once([1.0])
        async with working(app, redis_url, grace_s=0.1):
            await began.wait()
        async with working(app, redis_url):
            views = await sender.ends([task_id], 10)
    assert (interrupted(views), stuck(views)) == (1, 0)


async def test_what_nobody_runs_is_stuck(redis_url: str, desk: Desk) -> None:
    async with sending(redis_url) as sender:
        views = await sender.ends(await sender.at_once([1.0, 1.0]), 0.01)
    assert (interrupted(views), stuck(views)) == (0, 2)
    assert stuck({"gone": None}) == 1


def test_each_round_of_harm_has_the_same_tasks_in_another_order() -> None:
    assert mixed(1) == mixed(1) != mixed(2)
    assert sorted(mixed(1)) == [0.1] * 100 + [4.0] * 20


def test_a_replay_runs_faster_and_is_the_same_work() -> None:
    rows = [Row(0, 0.0, 100, 1), Row(1, 60.0, 0, 200)]
    assert [each for pair in scaled(rows, 60) for each in pair] == pytest.approx([0.0, 0.05 / 60, 1.0, 0.1])


def test_a_replay_has_the_figures_that_the_simulator_predicts() -> None:
    work = tuple((0.1 * n, 0.05) for n in range(40))
    told = predicted(work)
    beside = {row.beside for row in ROWS if row.beside.startswith("model_")}
    assert told.keys() == beside
    assert 0.5 < told["model_wait_p99"] < 5.0, "the first ones wait for a pod"
    assert told["model_cost"] > 1


# -- the table


ROUNDS = {
    "wake": [
        Round({"written": 0.05, "floor_started": 0.5, "started": 0.6}),
        Round({"written": 0.2, "floor_started": 1.0, "started": 1.5}),
    ],
    "harm": [Round({"harm_interrupted": 0}), Round({"harm_interrupted": 2}), Round({"harm_interrupted": 0})],
    "replay": [Round({"wait_p50": 0.25, "model_wait_p50": 0.5})],
}  # fmt: skip


def test_the_table_has_medians_ratios_and_totals() -> None:
    found = {each.row.key: each for each in results(ROUNDS)}
    assert list(found) == ["written", "started", "wait_p50", "harm_interrupted"]
    assert found["started"].cells()[1:] == ["≤ 1.3 × floor", "1.05", "0.60 – 1.50", "2", "1.35 × the floor (0.75)"]
    assert found["wait_p50"].cells()[1:] == ["", "0.25", "0.25 – 0.25", "1", "simulator: 0.50"]
    assert found["harm_interrupted"].cells()[1:] == ["≤ 0", "2", "0 – 2", "3", ""], "one bad round is not averaged away"
    assert {key: each.reached for key, each in found.items()} == {
        "written": False, "started": False, "wait_p50": None, "harm_interrupted": False,
    }  # fmt: skip


def test_a_page_shows_what_is_reached_in_bold_and_where_it_was_measured() -> None:
    text = markdown({"kill": [Round({"again": 0.77})], "wake": [Round({"written": 0.2})]}, FACTS)
    assert "| **0.77** |" in text and "| 0.20 |" in text
    where = "2 cores (a processor) that run the whole cluster, Kubernetes 1.37.2"
    assert text.endswith(f"\n\n{where}, load average 0.5 before and 1.0 after.")


def test_docs_have_the_place_of_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    insert(page, "the table", BEGIN, END)
    assert f"{BEGIN}\nthe table\n{END}" in page.read_text()


# -- files


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    rounds = {"burst": [Round({"ready": 3.0}, {"emails": LINE})], "harm": []}
    save(tmp_path / "new" / "x.json", rounds, FACTS)
    assert load(tmp_path / "new" / "x.json") == (rounds, FACTS)


def test_the_picture_is_the_same_for_the_same_rounds(tmp_path: Path) -> None:
    one, other = (draw({"a pool": [LINE, LINE[:4]]}, tmp_path / name / "v1.5-burst") for name in ("one", "other"))
    assert [path.name for path in one] == ["v1.5-burst.png", "v1.5-burst.svg"]
    assert one[1].read_text() == other[1].read_text()
    assert one[0].stat().st_size > 10_000


def test_the_middle_round_is_by_the_end_of_its_work() -> None:
    lines = [[Sample(float(end), 1, 1, 1, 0, 1, 0), Sample(99.0, 0, 0, 0, 0, 0, 1)] for end in (5, 3, 9)]
    assert middle(lines) is lines[0]


def test_an_earlier_run_is_shown_and_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    save(path, {"burst": [Round({"ready": 3.0, "floor_ready": 2.0}, {"emails": LINE, "floor": LINE})]}, FACTS)
    done = CliRunner().invoke(main, ["--again", str(path)])
    assert done.exit_code == 0, done.output
    assert "1.50 × the floor (2.00)" in done.output
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x-burst.png", "x-burst.svg", "x.json"]


def test_a_row_that_there_is_not_is_said_with_those_that_there_are() -> None:
    done = CliRunner().invoke(main, ["--rows", "wake,brust"])
    assert done.exit_code == 2
    assert "'brust' is no row; there are wake, cancel, burst, kill, replay, harm" in " ".join(done.output.split())


def test_help_has_examples_and_the_rows() -> None:
    told = CliRunner().invoke(main, ["--help"]).output
    assert "python -m bench.cluster --rows burst,replay --rounds 1" in told
    assert "harm     100 short and 20 long tasks on a pool that shrinks as soon as it may (20 rounds)" in told
