"""`headrace submit`: batches, and what a submission may say."""

from __future__ import annotations

import re

import click
import pytest

from command_desk import Done, Headrace, run_beside, submitted
from headrace import App, Permanent
from headrace_cli import main, submit
from headrace_cli.skip import Skip, parse
from worker_harness import working


@pytest.mark.usefixtures("published")
def test_a_batch_stores_a_task_a_line_and_prints_ids_in_their_order(typed: Headrace) -> None:
    ids = submitted(typed, 1_100, "--priority", "low")
    assert len(set(ids)) == 1_100
    [queue] = typed("queue", "ls", "-o", "json").data
    assert queue["pending"] == 1_100
    shown = typed("task", "get", ids[0], ids[1_099], "-o", "json").data
    assert [each["payload"]["name"] for each in shown] == ["n0", "n1099"]
    assert {each["priority"] for each in shown} == {0}


@pytest.mark.usefixtures("published")
def test_lines_without_a_type_are_whole_submissions_for_any_queue(typed: Headrace) -> None:
    lines = '{"type": "greet", "payload": {"name": "a"}}\n\n{"type": "later", "queue": "nightly", "delay": 60}\n'
    done = typed("submit", "--batch", "-", "-o", "json", stdin=lines)
    assert done.code == main.OK
    assert [each["status"] for each in done.data] == ["submitted", "submitted"]
    queues = {each["queue"]: each for each in typed("queue", "ls", "-o", "json").data}
    assert (queues["default"]["pending"], queues["nightly"]["scheduled"]) == (1, 1)


@pytest.mark.usefixtures("published")
def test_refused_lines_are_named_and_stop_no_other(typed: Headrace) -> None:
    done = typed("submit", "greet", "--batch", "-", stdin='{"name": "a"}\n{"nmae": "b"}\nnone\n{"name": "c"}\n')
    assert done.code == main.FAILED
    assert len(done.out.split()) == 2
    assert "Line 2: The payload does not fit task type 'greet': /payload/nmae" in done.err
    assert "Line 3: " in done.err
    assert "2 tasks were stored, 2 lines were refused." in done.err


@pytest.mark.usefixtures("published")
def test_a_full_queue_stops_a_batch_and_says_how_to_go_on(typed: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "700")
    lines = '{"name": "x"}\n' * 1_000
    done = typed("submit", "greet", "--batch", "-", stdin=lines)
    assert done.code == main.FAILED
    assert "500 tasks were stored. Go on with the same command and --skip 500" in done.err
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "5000")
    rest = typed("submit", "greet", "--batch", "-", "--skip", "500", stdin=lines)
    assert len(rest.out.split()) == 500


def whole_lines(*queues: str) -> str:
    return "".join(f'{{"type": "greet", "queue": "{queue}", "payload": {{"name": "x"}}}}\n' for queue in queues)


def live(typed: Headrace) -> dict[str, int]:
    return {each["queue"]: each["live"] for each in typed("queue", "ls", "-o", "json").data}


def advised(done: Done) -> list[str]:
    found = re.search(r"Go on with the same command and (--skip \S+)", done.err)
    assert found, done.err
    return found[1].split()


@pytest.mark.usefixtures("published")
def test_who_follows_the_advice_of_a_batch_for_several_queues_stores_nothing_twice(typed: Headrace) -> None:
    typed("submit", "greet", '{"name": "x"}', "--queue", "b")
    typed("queue", "limit", "b", "--max-depth", "2")
    lines = whole_lines("a", "b", "a", "a", "b", "a")
    first = typed("submit", "--batch", "-", stdin=lines)
    assert (first.code, len(first.out.split()), live(typed)) == (main.FAILED, 4, {"a": 4, "b": 1})
    assert "4 tasks were stored." in first.err
    assert advised(first) == ["--skip", "1,3-4,6"]
    again = typed("submit", "--batch", "-", *advised(first), "-o", "json", stdin=lines)
    assert (again.code, again.data, live(typed)) == (main.FAILED, [], {"a": 4, "b": 1})
    assert advised(again) == advised(first)
    typed("queue", "limit", "b", "--max-depth", "none")
    last = typed("submit", "--batch", "-", *advised(again), stdin=lines)
    assert (last.code, len(last.out.split()), live(typed)) == (main.OK, 2, {"a": 4, "b": 3})


def test_records_of_what_a_batch_stored_are_printed_also_if_it_is_broken_off(typed: Headrace) -> None:
    typed("submit", "greet", '{"name": "x"}', "--queue", "b")
    typed("queue", "limit", "b", "--max-depth", "1")
    done = typed("submit", "--batch", "-", "-o", "json", stdin=whole_lines("a", "b"))
    assert (done.code, [each["status"] for each in done.data]) == (main.FAILED, ["submitted"])


@pytest.mark.parametrize(
    ("skip", "settled", "after"),
    [
        ("0", (), "0"),
        ("0", (1, 2), "2"),
        ("0", (2, 4, 3), "0,2-4"),
        ("5,7,9-10", (6,), "7,9-10"),
        ("5,7,9-10", (8,), "5,7-10"),
        ("5,4-8,12,9", (), "9,12"),
    ],
)
def test_lines_that_are_left_out_are_told_as_briefly_as_they_can_be(
    skip: str, settled: tuple[int, ...], after: str
) -> None:
    option = next(each for each in submit.command.params if each.name == "skip")
    given = parse(click.Context(submit.command), option, skip)
    told = given.and_these(settled)
    assert str(told) == after
    assert parse(click.Context(submit.command), option, after) == told
    assert [number for number in range(1, 20) if told.has(number)] == [
        number for number in range(1, 20) if given.has(number) or number in settled
    ]
    assert given.up_to(19) == Skip(19)


@pytest.mark.usefixtures("published")
def test_a_batch_that_may_make_no_further_queue_says_what_it_stored(
    typed: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MAX_QUEUES", "1")
    done = typed("submit", "--batch", "-", stdin=whole_lines("a", "b", "a"))
    assert (done.code, len(done.out.split())) == (main.USAGE, 2)
    assert "2 tasks were stored." in done.err
    assert "may be stored, too" not in done.err
    assert advised(done) == ["--skip", "1,3"]


@pytest.mark.parametrize("skip", ["-1", "x", "1,", "1,5-3", "1;2", "3-4"])
def test_lines_to_be_left_out_that_are_none_are_refused(skip: str, typed: Headrace) -> None:
    done = typed("submit", "greet", "--batch", "-", f"--skip={skip}")
    assert done.code == main.USAGE
    assert "how many lines are left out" in done.err


@pytest.mark.parametrize(
    "args",
    [
        ("submit", "greet", "{}", "--batch", "-"),
        ("submit", "greet", "--batch", "-", "--key", "order-17"),
        ("submit", "greet", "--key", "order-17", "--id", "550e8400-e29b-41d4-a716-446655440000"),
        ("submit", "--batch", "-", "--priority", "low"),
        ("submit", "greet", "--batch", "nowhere.ndjson"),
        ("submit",),
    ],
)
def test_a_batch_that_says_too_much_is_refused(args: tuple[str, ...], typed: Headrace) -> None:
    assert typed(*args).code == main.USAGE


async def test_a_batch_waits_for_all_and_fails_if_any_failed(typed: Headrace, redis_url: str) -> None:
    app: App[None] = App("t")

    @app.task()
    async def greet(name: str) -> str:
        if name == "n1":
            raise Permanent("not this one")
        return name

    async with working(app, redis_url):
        lines = "".join(f'{{"name": "n{number}"}}\n' for number in range(3))
        done = run_beside("submit", "greet", "--batch", "-", "--wait", "-o", "json", stdin=lines, url=redis_url)
        ended = await done
    assert ended.code == main.FAILED
    assert sorted(each["status"] for each in ended.data) == ["completed", "completed", "failed"]
    assert "2 completed, 1 failed" in ended.err


def test_a_submission_says_all_that_a_request_may(typed: Headrace) -> None:
    said = ("--tag", "acme", "--tag", "eu", "--expires", "3600", "--unique", "ada", "--eta", "2026-01-15T10:30:00Z")
    task_id = typed("submit", "greet", '{"name": "Ada"}', *said).out.strip()
    shown = typed("task", "get", task_id, "-o", "json").data
    assert shown["tags"] == ["acme", "eu"]
    assert shown["expires_at"] is not None
    again = typed("submit", "greet", '{"name": "Ada"}', "--unique", "ada")
    assert (again.code, again.out) == (main.FAILED, "")
    assert f"Task {task_id} holds this unique key" in again.err
    beside = typed("submit", "greet", "--batch", "-", "--unique", "ada", stdin='{"name": "x"}\n')
    assert beside.out == f"{task_id}\n"
    assert typed("submit", "greet", "--unique-for", "5").code == main.USAGE


def test_the_same_key_is_the_same_task_and_another_payload_under_it_is_refused(typed: Headrace) -> None:
    first = typed("submit", "greet", '{"name": "Ada"}', "--key", "order-17")
    again = typed("submit", "greet", '{ "name":"Ada" }', "--key", "order-17")
    assert again.out == first.out != ""
    assert "submitted before; it is pending" in again.err
    others = [
        typed("submit", "greet", '{"name": "Ada"}', "--key", "order-18"),
        typed("submit", "greet", '{"name": "Ada"}', "--key", "order-17", "--queue", "orders"),
        typed("submit", "hello", '{"name": "Ada"}', "--key", "order-17"),
    ]
    assert len({first.out, *(each.out for each in others)}) == 4
    refused = typed("submit", "greet", '{"name": "Eve"}', "--key", "order-17")
    assert (refused.code, refused.out) == (main.USAGE, "")
    assert "exists already with another type or payload" in refused.err
    for key in ("", "ü" * 128):
        assert "/key: has to have 1 to 255 bytes" in typed("submit", "greet", "--key", key).err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--unique", "k", "--unique-for", "0"), "/unique/until"),
        (("--unique", "k", "--unique-for", "nan"), "--unique-for"),
        (("--delay", "inf"), "--delay"),
        (("--delay", "nan"), "--delay"),
        (("--expires", "inf"), "/expires"),
        (("--expires", "nan"), "/expires"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
def test_seconds_that_are_none_are_refused_not_ignored(
    args: tuple[str, ...], said: str, batch: bool, typed: Headrace
) -> None:
    given = ("--batch", "-") if batch else ('{"name": "x"}',)
    done = typed("submit", "greet", *given, *args, stdin='{"name": "x"}\n')
    assert (done.code == main.OK, done.out) == (False, "")
    assert said in done.err
