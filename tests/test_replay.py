"""`headrace replay`: the trace, the count of what came out, and the whole of it with workers that are killed."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from command_line import Command, run
from headrace_cli import main, replay_client, replay_run
from headrace_cli.ports import free_port
from headrace_cli.replay_client import Accepted, ApiUnreachableError, Client, RefusedError, Seen
from headrace_cli.replay_ledger import Ledger, Run, Writer, read_ledger
from headrace_cli.replay_run import kill_times
from headrace_cli.replay_tally import Facts, Waits, add_up
from headrace_cli.replay_trace import Row, TraceError, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
AZURE = Path(__file__).parent.parent / "examples" / "data" / "azure-llm-2023-code.csv"

# -- the trace


def test_rows_have_seconds_since_the_first_and_a_modelled_duration(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(HEADER + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:05.4799600,100,0\n")
    first, second = read_trace(trace)
    assert (first.at_s, second.at_s) == (0.0, 1.5)
    assert first.duration_s == pytest.approx(4808 * 0.0002 + 10 * 0.03)
    assert read_trace(trace, limit=1) == [first]


def test_the_recorded_trace_is_whole() -> None:
    rows = read_trace(AZURE)
    assert len(rows) == 8_819
    assert 3_400 < rows[-1].at_s < 3_600
    assert {row.number for row in rows} == set(range(8_819))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("a,b\n1,2\n", "has no column TIMESTAMP, ContextTokens, GeneratedTokens"),
        (HEADER, "has no rows"),
        (HEADER + "2023-11-16 18:17:03,1,1\nyesterday,1,1\n", "Line 3 of"),
        (HEADER + "2023-11-16 18:17:03,many,1\n", "Line 2 of"),
        (HEADER + "2023-11-16 18:17:03,-1,1\n", "-1 is no number of tokens"),
        (HEADER + "2023-11-16 18:17:03,1\n", "Line 2 of"),
    ],
)
def test_a_trace_that_cannot_be_read_says_where(tmp_path: Path, text: str | None, said: str) -> None:
    trace = tmp_path / "trace.csv"
    if text is not None:
        trace.write_text(text)
    with pytest.raises(TraceError, match=said):
        read_trace(trace)


# -- the count


def accepted(number: int, task_id: str | None = None) -> Accepted:
    return Accepted(Row(number, float(number), 1, 1), task_id or f"t{number}", 100.0 + number, 100.1 + number, 1)


def seen(task_id: str, status: str = "completed", *, crashes: int = 0) -> Seen:
    return Seen(task_id, status, None, crashes, 0, {})


def facts(taken: Sequence[Accepted], shown: Sequence[Seen], runs: Sequence[Run], **more: Any) -> Facts:
    due = {each.row.number: 99.0 + each.row.number for each in taken}
    completed = sum(each.status == "completed" for each in shown)
    by_id = {each.task_id: each for each in shown}
    clean = Facts(taken, 0, by_id, Ledger(list(runs), list(runs)), completed, due)
    return replace(clean, **more)


def test_a_clean_replay_has_nothing_lost_and_nothing_doubled() -> None:
    runs = [Run("t0", 1, 100.2), Run("t1", 1, 101.4)]
    tally = add_up(facts([accepted(0), accepted(1)], [seen("t0"), seen("t1")], runs))
    assert (tally.submitted, tally.completed, tally.lost, tally.duplicated, tally.reruns) == (2, 2, (), (), 0)
    assert tally.waits_accepted.p50 == pytest.approx(0.1)
    assert tally.waits_due.p99 == pytest.approx(1.4)


@pytest.mark.parametrize("status", ["failed", "cancelled", "pending"])
def test_an_accepted_task_that_is_not_completed_is_lost(status: str) -> None:
    tally = add_up(facts([accepted(0)], [seen("t0", status)], []))
    assert tally.lost == (f"row 0 (task t0) was accepted and is {status}",)


def test_an_accepted_task_that_the_api_does_not_know_is_lost() -> None:
    assert add_up(facts([accepted(0)], [], [])).lost == ("row 0 (task t0) was accepted and is unknown to the API",)


def test_two_rows_that_became_one_task_lost_one() -> None:
    tally = add_up(facts([accepted(0, "same"), accepted(1, "same")], [seen("same")], [Run("same", 1, 100.0)]))
    assert tally.lost == ("2 rows share the task same",)


def test_more_completions_than_tasks_are_duplicates() -> None:
    tally = add_up(facts([accepted(0)], [seen("t0")], [Run("t0", 1, 100.0)], completions=2))
    assert tally.duplicated == ("Redis counted 2 accepted completions of 1 tasks",)


def test_a_run_of_a_task_of_no_row_is_a_row_stored_twice() -> None:
    tally = add_up(facts([accepted(0)], [seen("t0")], [Run("t0", 1, 100.0), Run("other", 1, 100.0)]))
    assert tally.duplicated[0] == "task other was run and belongs to no row: a row was stored twice"


def test_a_second_run_is_legal_after_a_crash_and_only_then() -> None:
    runs = [Run("t0", 1, 100.0), Run("t0", 2, 101.0)]
    explained = add_up(facts([accepted(0)], [seen("t0", crashes=1)], runs))
    assert (explained.duplicated, explained.reruns) == ((), 1)
    unexplained = add_up(facts([accepted(0)], [seen("t0")], runs))
    assert unexplained.duplicated == ("task t0 was run 2 times, its record explains 1",)


def test_the_same_attempt_twice_is_never_legal() -> None:
    runs = [Run("t0", 1, 100.0), Run("t0", 1, 101.0)]
    tally = add_up(facts([accepted(0)], [seen("t0", crashes=5)], runs))
    assert tally.duplicated == ("task t0 was run twice as the same attempt",)


def test_percentiles_are_by_nearest_rank() -> None:
    assert Waits.of([float(n) for n in range(1, 101)]) == Waits(50.0, 95.0, 99.0)
    assert Waits.of([]) == Waits(None, None, None)
    assert Waits.of([3.0]) == Waits(3.0, 3.0, 3.0)


def test_the_ledger_tells_what_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    assert read_ledger(path) == Ledger()
    first, second = Run("a", 1, 100.25), Run("b", 2, 101.0)
    for writer in (Writer(path), Writer(path)):
        writer.begin(first)
    writer.begin(second)
    writer.end(second, 102.0)
    assert read_ledger(path) == Ledger([first, first, second], [second])


def test_kills_are_spread_over_the_run_and_the_seed_repeats_them() -> None:
    times = kill_times(10, 50.0, Random(1))
    assert [int(at // 5) for at in times] == list(range(10))
    assert times == kill_times(10, 50.0, Random(1))
    assert kill_times(0, 50.0, Random(1)) == []


# -- the client

Answer = Callable[[web.Request], web.Response]


@asynccontextmanager
async def api(answers: Sequence[Answer]) -> AsyncIterator[tuple[str, list[str]]]:
    """An API that gives these answers one after the other; its address, and the idempotency keys that it saw."""
    keys: list[str] = []
    left = iter(answers)

    async def post(request: web.Request) -> web.Response:
        keys.append(request.headers["Idempotency-Key"])
        return next(left)(request)

    async def stats(request: web.Request) -> web.Response:
        return web.json_response({"completed": 0, "failed": 0, "cancelled": 0})

    app = web.Application()
    app.router.add_get("/api/v1/stats", stats)
    app.router.add_post("/api/v1/tasks", post)
    app.router.add_post("/api/v1/tasks:batch", post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", keys
    finally:
        await runner.cleanup()


def status(code: int, **headers: str) -> Answer:
    return lambda request: web.json_response({"detail": "Not now.", "hint": "Later."}, status=code, headers=headers)


def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def created(request: web.Request) -> web.Response:
    return web.json_response({"task_id": "t"}, status=201)


async def test_a_submission_is_repeated_under_the_same_key_until_it_is_answered() -> None:
    answers = [status(503, **{"Retry-After": "0"}), hang_up, status(429, **{"Retry-After": "0"}), created]
    async with api(answers) as (url, keys), Client(url, "run", 60.0) as client:
        [taken] = await client.submit([Row(7, 0.0, 1, 2)])
    assert (taken.task_id, taken.tries) == ("t", 4)
    assert keys == ["run-7"] * 4


async def test_a_refusal_is_final_and_told_in_the_apis_words() -> None:
    async with api([status(422)]) as (url, _), Client(url, "run", 60.0) as client:
        with pytest.raises(RefusedError, match=r"The API answered 422: Not now\. Later\."):
            await client.submit([Row(0, 0.0, 1, 2)])


async def test_rows_of_the_same_moment_go_in_one_batch_with_a_key_of_its_own() -> None:
    def both(request: web.Request) -> web.Response:
        assert request.path == "/api/v1/tasks:batch"
        return web.json_response({"tasks": [{"task_id": "a"}, {"task_id": "b"}]}, status=201)

    async with api([both]) as (url, keys), Client(url, "run", 60.0) as client:
        taken = await client.submit([Row(3, 0.0, 1, 2), Row(4, 0.0, 1, 2)])
    assert [(each.row.number, each.task_id) for each in taken] == [(3, "a"), (4, "b")]
    assert keys == ["run-3-4"]


async def test_rows_that_are_due_together_go_together_and_a_later_one_alone() -> None:
    def three(request: web.Request) -> web.Response:
        return web.json_response({"tasks": [{"task_id": name} for name in "abc"]}, status=201)

    rows = [Row(number, 0.0, 1, 2) for number in range(3)] + [Row(3, 12.0, 1, 2)]
    async with api([three, created]) as (url, keys), Client(url, "run", 60.0) as client:
        replay = replay_run.Run(client, rows, 60.0)
        await replay.send()
    assert keys == ["run-0-2", "run-3"]
    due = replay.state.due
    assert due[3] - due[0] == pytest.approx(0.2)
    assert [each.row.number for each in replay.state.accepted] == [0, 1, 2, 3]
    assert replay.state.accepted[3].sent >= due[3]


async def test_an_api_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_client, "PATIENCE_S", 0.0)
    url = f"http://127.0.0.1:{free_port()}"
    async with Client(url, "run", 60.0) as client:
        with pytest.raises(ApiUnreachableError, match=f"The API cannot be reached at {url}"):
            await client.stats()
        with pytest.raises(ApiUnreachableError):
            await client.submit([Row(0, 0.0, 1, 2)])


# -- the whole


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_though_workers_are_killed(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    done = run(
        *("replay", str(AZURE), "--limit", "500", "--speed", "40", "--kill-workers", "3"),
        *("--seed", "5", "--ledger", str(ledger), "-o", "json"),
        cwd=tmp_path,
    )
    assert done.returncode == main.OK, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert {name: summary[name] for name in ("submitted", "completed", "lost", "duplicated", "killed")} == {
        "submitted": 500,
        "completed": 500,
        "lost": 0,
        "duplicated": 0,
        "killed": 3,
    }
    assert len({each.task_id for each in read_ledger(ledger).ended}) == 500
    assert list(tmp_path.iterdir()) == [ledger]


@pytest.mark.slow
def test_against_an_api_that_runs_and_its_own_workers(tmp_path: Path, redis_url: str) -> None:
    ledger, port = str(tmp_path / "ledger"), str(free_port())
    worker = ("worker", "--app", "headrace_cli.replay_app", "--metrics-port", "0")
    with (
        Command("api", cwd=tmp_path, HEADRACE_URL=redis_url, PORT=port) as api,
        Command(*worker, cwd=tmp_path, HEADRACE_URL=redis_url, REPLAY_LEDGER=ledger),
    ):
        api.wait_for("listens on")
        url = f"http://127.0.0.1:{port}"
        for _ in range(2):  # the workers and what they noted outlive a replay
            done = run("replay", str(AZURE), "--limit", "60", "--url", url, "--ledger", ledger, cwd=tmp_path)
            assert done.returncode == main.OK, done.stdout + done.stderr
            for line in ("submitted +60 ", "completed +60 ", "lost +0 ", "duplicated +0 ", r"wait p99 +[\d.]+ ms"):
                assert re.search(line, done.stdout), line


def test_a_ledger_that_cannot_be_written_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = tmp_path / "gone" / "ledger"
    assert main.run(["replay", str(AZURE), "--ledger", str(ledger)]) == main.USAGE
    assert f"--ledger {ledger} cannot be written (No such file or directory)" in capsys.readouterr().err


def test_kills_need_workers_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["replay", str(AZURE), "--url", "http://x", "--kill-workers", "1"]) == main.USAGE
    assert "--kill-workers" in capsys.readouterr().err


def test_a_url_where_nothing_answers_is_unreachable(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("replay", str(AZURE), "--limit", "1", "--url", url, cwd=tmp_path)
    assert done.returncode == main.UNREACHABLE
    assert done.stderr.startswith(f"Error: The API cannot be reached at {url}")
