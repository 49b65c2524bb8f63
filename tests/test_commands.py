"""The commands that list, change many tasks, measure: the five forms, the exit codes, what stands on which stream."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shlex
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest

from command_line import Command, clean_environ, run
from headrace import App, Permanent
from headrace.bulk import Jobs
from headrace.errors import UnknownTask
from headrace.listing import BUDGET
from headrace_cli import main, progress, submit
from headrace_cli.commands_page import every_command
from headrace_cli.progress import LINE_S, Bar
from headrace_cli.records import Column, Listing, show_all, span
from headrace_cli.skip import Skip, parse
from headrace_cli.task_text import error_text
from redis_server import RedisServer
from worker_harness import Desk, working

PUBLISHED = (
    '{"schema": {"type": "object", "properties": {"name": {"type": "string"}, "loud": {"type": "boolean"}}, '
    '"required": ["name"], "additionalProperties": false}, "hash": "x", "doc": "Greet somebody.\\nPolitely.", '
    '"queue": "default", "priority": 2, "max_retries": 3, "timeout_s": 300}'
)


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Headrace = Callable[..., Done]


@pytest.fixture
def headrace(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Headrace:
    """Runs a command in this process with an empty Redis."""
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(clean_environ()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_URL", redis_url)

    def command(*args: str, stdin: str = "") -> Done:
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return Done(main.run(list(args)), *capfd.readouterr())

    return command


@pytest.fixture
def published(redis_server: RedisServer, redis_url: str) -> None:
    redis_server.redis.hset("hr:{default}:types", "greet", PUBLISHED)


def submitted(headrace: Headrace, count: int, *more: str) -> list[str]:
    lines = "".join(f'{{"name": "n{number}"}}\n' for number in range(count))
    done = headrace("submit", "greet", "--batch", "-", *more, stdin=lines)
    assert done.code == main.OK, done.err
    return done.out.split()


# -- forms


RECORDS = [{"name": "a", "count": 12_345, "what": None}, {"name": "b\x1b[31m", "count": 7, "what": "x" * 200}]
LISTING: Listing[dict[str, Any]] = Listing(
    (
        Column("NAME", lambda each: each["name"]),
        Column("COUNT", lambda each: each["count"]),
        Column("ON", lambda each: each["count"] > 10, wide=True),
        Column("WHAT", lambda each: each["what"]),
    ),
    name=lambda each: str(each["name"]),
    none="There is nothing.",
)


def test_a_table_aligns_numbers_to_the_right_and_shows_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    show_all(RECORDS, LISTING, "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["NAME        COUNT  WHAT", "a          12,345  -"]
    assert lines[2].startswith(r"b\x1b[31m       7  xxx")


def test_wide_adds_columns_and_name_prints_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_all(RECORDS, LISTING, "wide")
    assert capsys.readouterr().out.splitlines()[1].split() == ["a", "12,345", "yes", "-"]
    show_all(RECORDS[:1], LISTING, "name")
    assert capsys.readouterr().out == "a\n"


def test_json_and_yaml_hold_the_whole_record(capsys: pytest.CaptureFixture[str]) -> None:
    show_all(RECORDS, LISTING, "json")
    assert json.loads(capsys.readouterr().out) == RECORDS
    show_all(RECORDS, LISTING, "yaml")
    assert msgspec.yaml.decode(capsys.readouterr().out) == RECORDS


@pytest.mark.parametrize(("form", "out"), [("table", ""), ("name", ""), ("json", "[]\n"), ("yaml", "[]\n")])
def test_nothing_is_a_note_to_people_and_an_empty_list_to_programs(
    form: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_all([], LISTING, form)
    told = capsys.readouterr()
    assert told.out == out
    assert told.err == ("There is nothing.\n" if form == "table" else "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, None), (0.04, "0.0s"), (9.96, "10.0s"), (12.9, "12s"), (200, "3m20s"), (7_200, "2h"), (370_000, "4d6h")],
)
def test_a_span_has_two_units_at_most(seconds: float | None, said: str | None) -> None:
    assert span(seconds) == said


LISTS = [("queue", "ls"), ("task", "ls"), ("types",), ("workers", "--quick"), ("errors",), ("explain",)]


@pytest.mark.parametrize("args", LISTS, ids=" ".join)
def test_every_list_has_the_five_forms_and_nothing_but_data_on_standard_output(
    args: tuple[str, ...], headrace: Headrace
) -> None:
    for form in ("table", "wide", "name"):
        done = headrace(*args, "-o", form)
        assert (done.code, "\x1b" in done.out) == (main.OK, False)
        assert done.out == "" or args == ("explain",)
    from_json = headrace(*args, "-o", "json").data
    assert msgspec.yaml.decode(headrace(*args, "-o", "yaml").out) == from_json
    assert isinstance(from_json, list)


# -- examples


def example_lines() -> list[str]:
    lines = [line for _, command in every_command(main.cli, "headrace") for line in command.examples.splitlines()]
    calls = [re.sub(r"\s{2,}#.*", "", line) for line in lines]
    return [call for call in calls if "headrace" in call]


@pytest.mark.parametrize("line", example_lines())
def test_an_example_of_a_help_is_a_command_line_that_is_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = re.sub(r'^eval "|\)"?', "", line).replace("$(", "| ").replace(" <", " | <").replace(" >", " | >")
    parts = [list(part) for bar, part in itertools.groupby(shlex.split(text), "|".__eq__) if not bar]
    for part in parts:
        if "headrace" in part:
            understand(part[part.index("headrace") + 1 :])


def understand(args: list[str]) -> None:
    for name in args:
        if re.fullmatch(r"\w+\.(ndjson|csv|json|yaml)", name):
            Path(name).touch()
    command: click.Command = main.cli
    ctx = click.Context(command, info_name="headrace", **main.cli.context_settings)
    while isinstance(command, click.Group):
        _, found, args = command.resolve_command(ctx, args)
        assert found is not None
        command = found
    with command.make_context(command.name, args, parent=ctx):
        pass


# -- submit --batch


@pytest.mark.usefixtures("published")
def test_a_batch_stores_a_task_a_line_and_prints_ids_in_their_order(headrace: Headrace) -> None:
    ids = submitted(headrace, 1_100, "--priority", "low")
    assert len(set(ids)) == 1_100
    [queue] = headrace("queue", "ls", "-o", "json").data
    assert queue["pending"] == 1_100
    shown = headrace("task", "get", ids[0], ids[1_099], "-o", "json").data
    assert [each["payload"]["name"] for each in shown] == ["n0", "n1099"]
    assert {each["priority"] for each in shown} == {0}


@pytest.mark.usefixtures("published")
def test_lines_without_a_type_are_whole_submissions_for_any_queue(headrace: Headrace) -> None:
    lines = '{"type": "greet", "payload": {"name": "a"}}\n\n{"type": "later", "queue": "nightly", "delay": 60}\n'
    done = headrace("submit", "--batch", "-", "-o", "json", stdin=lines)
    assert done.code == main.OK
    assert [each["status"] for each in done.data] == ["submitted", "submitted"]
    queues = {each["queue"]: each for each in headrace("queue", "ls", "-o", "json").data}
    assert (queues["default"]["pending"], queues["nightly"]["scheduled"]) == (1, 1)


@pytest.mark.usefixtures("published")
def test_refused_lines_are_named_and_stop_no_other(headrace: Headrace) -> None:
    done = headrace("submit", "greet", "--batch", "-", stdin='{"name": "a"}\n{"nmae": "b"}\nnone\n{"name": "c"}\n')
    assert done.code == main.FAILED
    assert len(done.out.split()) == 2
    assert "Line 2: The payload does not fit task type 'greet': /payload/nmae" in done.err
    assert "Line 3: " in done.err
    assert "2 tasks were stored, 2 lines were refused." in done.err


@pytest.mark.usefixtures("published")
def test_a_full_queue_stops_a_batch_and_says_how_to_go_on(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "700")
    lines = '{"name": "x"}\n' * 1_000
    done = headrace("submit", "greet", "--batch", "-", stdin=lines)
    assert done.code == main.FAILED
    assert "500 tasks were stored. Go on with the same command and --skip 500" in done.err
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "5000")
    rest = headrace("submit", "greet", "--batch", "-", "--skip", "500", stdin=lines)
    assert len(rest.out.split()) == 500


def whole_lines(*queues: str) -> str:
    return "".join(f'{{"type": "greet", "queue": "{queue}", "payload": {{"name": "x"}}}}\n' for queue in queues)


def live(headrace: Headrace) -> dict[str, int]:
    return {each["queue"]: each["live"] for each in headrace("queue", "ls", "-o", "json").data}


def advised(done: Done) -> list[str]:
    found = re.search(r"Go on with the same command and (--skip \S+)", done.err)
    assert found, done.err
    return found[1].split()


@pytest.mark.usefixtures("published")
def test_who_follows_the_advice_of_a_batch_for_several_queues_stores_nothing_twice(headrace: Headrace) -> None:
    headrace("submit", "greet", '{"name": "x"}', "--queue", "b")
    headrace("queue", "limit", "b", "--max-depth", "2")
    lines = whole_lines("a", "b", "a", "a", "b", "a")
    first = headrace("submit", "--batch", "-", stdin=lines)
    assert (first.code, len(first.out.split()), live(headrace)) == (main.FAILED, 4, {"a": 4, "b": 1})
    assert "4 tasks were stored." in first.err
    assert advised(first) == ["--skip", "1,3-4,6"]
    again = headrace("submit", "--batch", "-", *advised(first), "-o", "json", stdin=lines)
    assert (again.code, again.data, live(headrace)) == (main.FAILED, [], {"a": 4, "b": 1})
    assert advised(again) == advised(first)
    headrace("queue", "limit", "b", "--max-depth", "none")
    last = headrace("submit", "--batch", "-", *advised(again), stdin=lines)
    assert (last.code, len(last.out.split()), live(headrace)) == (main.OK, 2, {"a": 4, "b": 3})


def test_records_of_what_a_batch_stored_are_printed_also_if_it_is_broken_off(headrace: Headrace) -> None:
    headrace("submit", "greet", '{"name": "x"}', "--queue", "b")
    headrace("queue", "limit", "b", "--max-depth", "1")
    done = headrace("submit", "--batch", "-", "-o", "json", stdin=whole_lines("a", "b"))
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
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MAX_QUEUES", "1")
    done = headrace("submit", "--batch", "-", stdin=whole_lines("a", "b", "a"))
    assert (done.code, len(done.out.split())) == (main.USAGE, 2)
    assert "2 tasks were stored." in done.err
    assert "may be stored, too" not in done.err
    assert advised(done) == ["--skip", "1,3"]


@pytest.mark.parametrize("skip", ["-1", "x", "1,", "1,5-3", "1;2", "3-4"])
def test_lines_to_be_left_out_that_are_none_are_refused(skip: str, headrace: Headrace) -> None:
    done = headrace("submit", "greet", "--batch", "-", f"--skip={skip}")
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
def test_a_batch_that_says_too_much_is_refused(args: tuple[str, ...], headrace: Headrace) -> None:
    assert headrace(*args).code == main.USAGE


async def test_a_batch_waits_for_all_and_fails_if_any_failed(headrace: Headrace, redis_url: str) -> None:
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


async def run_beside(*args: str, url: str, stdin: str = "") -> Done:
    """A command in a process of its own, while the loop of the test goes on."""
    import asyncio

    done = await asyncio.to_thread(run, *args, cwd=Path.cwd(), stdin=stdin, HEADRACE_URL=url)
    return Done(done.returncode, done.stdout, done.stderr)


# -- many tasks


def test_ids_come_from_standard_input_and_one_that_fails_stops_no_other(headrace: Headrace) -> None:
    ids = submitted(headrace, 3)
    unknown = str(uuid.uuid4())
    done = headrace("task", "cancel", "-", "-o", "json", stdin="\n".join([ids[0], unknown, ids[1]]))
    assert done.code == main.FAILED
    assert done.data == [{"task_id": ids[0], "status": "cancelled"}, {"task_id": ids[1], "status": "cancelled"}]
    assert str(UnknownTask(unknown)) in done.err
    assert headrace("task", "get", "-", "-o", "name", stdin="\n".join(ids)).out.split() == ids
    some = headrace("task", "get", ids[0], unknown, "-o", "name")
    assert (some.code, some.out.split()) == (main.FAILED, [ids[0]])


def test_what_a_command_changes_is_in_the_audit_log(headrace: Headrace, redis_server: RedisServer) -> None:
    [task_id] = submitted(headrace, 1)
    headrace("queue", "pause", "default")
    headrace("task", "cancel", task_id)
    entries: Any = redis_server.redis.xrange("hr:{default}:audit")
    actions = [json.loads(text)["action"] for _, fields in entries for text in fields.values()]
    assert actions == ["queue.pause", "task.cancel"]


def test_a_filter_finds_tasks_and_its_names_go_into_other_commands(headrace: Headrace) -> None:
    ids = submitted(headrace, 5)
    headrace("submit", "other", "{}")
    assert set(headrace("task", "ls", "type:greet", "-o", "name").out.split()) == set(ids)
    some = headrace("task", "ls", "type:greet", "--limit", "2", "-o", "json")
    assert len(some.data) == 2
    assert "There may be more" in some.err
    assert headrace("task", "ls", "args.name:n3").out.splitlines()[1].startswith(ids[3])
    wrong = headrace("task", "ls", "stat:failed")
    assert wrong.code == main.USAGE
    assert "did you mean 'state'?" in wrong.err


@pytest.mark.parametrize("command", [("task", "ls"), ("errors",)], ids=" ".join)
def test_a_filter_that_names_no_queue_of_those_there_are_is_told(headrace: Headrace, command: tuple[str, ...]) -> None:
    """Else a slip of the pen looks as if all went well."""
    submitted(headrace, 1)
    done = headrace(*command, "queue:defualt,orders,default", "-o", "json")
    assert done.code == main.OK
    assert "There is no queue 'defualt'. Did you mean 'default'?\n" in done.err
    assert "There is no queue 'orders'. " in done.err
    assert "'default'. " not in done.err


async def test_dead_letters_are_grouped_and_start_over(headrace: Headrace, redis_url: str) -> None:
    app: App[None] = App("t")

    @app.task()
    async def greet(name: str) -> None:
        raise Permanent("no disk")

    async with working(app, redis_url), Desk(redis_url) as desk:
        for number in range(3):
            await desk.ended(await desk.submit("greet", {"name": f"n{number}"}))
    url = redis_url
    [group] = (await run_beside("errors", "-o", "json", url=url)).data
    assert (group["count"], group["type"], group["message"]) == (3, "greet", "no disk")
    found = await run_beside("task", "ls", *group["filter"].split(), "-o", "name", url=url)
    assert len(found.out.split()) == 3
    asked = await run_beside("replay-dead", url=url)
    assert asked.code == main.USAGE
    assert "--yes" in asked.err
    dry = await run_beside("replay-dead", "--dry-run", url=url)
    assert (dry.code, dry.out) == (main.OK, "3 tasks would be replayed\n")
    done = await run_beside("replay-dead", "type:greet", "--yes", url=url)
    assert (done.code, done.out) == (main.OK, "3 tasks replayed\n")
    [queue] = (await run_beside("queue", "ls", "-o", "json", url=url)).data
    assert (queue["pending"], queue["dead_letters"]) == (3, 0)


def test_a_queue_is_purged_of_what_waits(headrace: Headrace) -> None:
    submitted(headrace, 4)
    headrace("submit", "greet", '{"name": "x"}', "--delay", "60")
    job = headrace("queue", "purge", "default", "--yes", "-o", "json").data
    assert (job["action"], job["done"], job["failed"]) == ("cancel", 5, {})
    [queue] = headrace("queue", "ls", "-o", "json").data
    assert (queue["live"], queue["pending"]) == (0, 0)
    assert headrace("queue", "purge", "nowhere", "--yes").code == main.FAILED


def audited(redis_server: RedisServer) -> list[dict[str, Any]]:
    entries: Any = redis_server.redis.xrange("hr:{default}:audit")
    return [json.loads(text) for _, fields in entries for text in fields.values()]


def test_a_purge_is_in_the_audit_log_with_its_queue_and_with_what_was_purged(
    headrace: Headrace, redis_server: RedisServer
) -> None:
    submitted(headrace, 2)
    job = headrace("queue", "purge", "default", "--yes", "-o", "json").data
    begin, end = audited(redis_server)
    assert [begin[key] for key in ("action", "target", "queue")] == ["queue.purge", "default", "default"]
    assert begin["detail"] == {"tasks": "waiting", "bulk": job["id"]}
    assert [end[key] for key in ("action", "target", "who")] == ["bulk.end", job["id"], begin["who"]]
    headrace("queue", "purge", "default", "--dead-letters", "--dry-run")
    assert len(audited(redis_server)) == 2


def test_a_bulk_job_is_in_the_audit_log_with_its_filter_without_values_of_arguments(
    headrace: Headrace, redis_server: RedisServer
) -> None:
    headrace("submit", "greet", '{"name": "secret"}', "--delay", "60")
    job = headrace("bulk", "retry", "state:scheduled", "args.name:secret", "--yes", "-o", "json").data
    begin, end = audited(redis_server)
    assert (begin["action"], job["done"]) == ("bulk.start", 1)
    assert begin["detail"] == {"do": "retry", "filter": "state:scheduled args.name:…", "bulk": job["id"]}
    assert (end["action"], end["target"]) == ("bulk.end", job["id"])


def test_a_count_that_found_nothing_in_its_time_is_no_reason_to_do_nothing(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one task that fits is not in the first look."""
    headrace("submit", "greet", '{"name": "wanted"}', "--delay", "90")
    submitted(headrace, BUDGET, "--delay", "60")
    count = Jobs.count
    monkeypatch.setattr(Jobs, "count", lambda self, order: count(self, order, limit_s=0))
    words = ("state:scheduled", "args.name:wanted")
    dry = headrace("bulk", "retry", *words, "--dry-run", "-o", "json").data
    assert (dry["found"], dry["truncated"]) == (0, True)
    asked = headrace("bulk", "retry", *words)
    assert (asked.code, "--yes" in asked.err) == (main.USAGE, True)
    assert headrace("bulk", "retry", *words, "--yes").out == "1 task retried\n"


UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"


def test_many_tasks_are_cancelled_and_deleted_by_a_filter_or_their_ids(headrace: Headrace) -> None:
    ids = submitted(headrace, 5)
    assert headrace("bulk", "cancel", "args.name:n0", "--dry-run").out == "1 task would be cancelled\n"
    assert headrace("bulk", "cancel", "args.name:n0", "--yes").out == "1 task cancelled\n"
    assert headrace("bulk", "cancel", "--id", ids[1], "--id", ids[2], "--yes").out == "2 tasks cancelled\n"
    piped = headrace("bulk", "cancel", "--id", "-", "--yes", "-o", "json", stdin=f"{ids[3]}\n{UNKNOWN}\n")
    assert piped.code == main.FAILED, "one of them is not there"
    assert (piped.data["done"], piped.data["failed"], piped.data["ids"]) == (1, {"unknown_task": 1}, 2)
    assert headrace("bulk", "delete", "state:cancelled", "--yes").out == "4 tasks deleted\n"
    assert headrace("task", "ls", "-o", "name").out.split() == [ids[4]]


def test_nothing_is_done_if_it_is_about_another_number_of_tasks(headrace: Headrace) -> None:
    submitted(headrace, 3)
    for args in (("bulk", "cancel", "queue:default"), ("queue", "purge", "default")):
        refused = headrace(*args, "--expected-count", "2", "--yes")
        assert (refused.code, refused.out) == (main.FAILED, "")
        assert "headrace explain wrong_count" in refused.err
    assert headrace("bulk", "cancel", "queue:default", "--expected-count", "3", "--yes").code == main.OK


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("retry",), "it needs either a filter or ids"),
        (("retry", "type:greet", "--id", "x"), "it needs either a filter or ids"),
        (("replay", "state:scheduled"), "a task that is scheduled cannot be replayed (possible are failed)"),
        (("delete", "state:pending"), "a task that is pending cannot be deleted"),
        (("cancel", "stat:pending"), "did you mean"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_an_order_that_cannot_be_is_refused(headrace: Headrace, args: tuple[str, ...], said: str) -> None:
    refused = headrace("bulk", *args, "--yes")
    assert (refused.code, refused.out) == (main.USAGE, "")
    assert said in refused.err


def test_jobs_are_listed_shown_and_aborted(headrace: Headrace, redis_server: RedisServer) -> None:
    assert headrace("bulk", "ls").err == "There was no bulk job within a day.\n"
    submitted(headrace, 2)
    job = headrace("bulk", "cancel", "type:greet", "--yes", "-o", "name").out.strip()
    title, row = headrace("bulk", "ls").out.splitlines()
    assert title.split() == ["JOB", "ACTION", "STATE", "FOUND", "DONE", "FAILED", "CREATED", "TASKS"]
    assert row.split()[:6] == [job, "cancel", "done", "2", "2", "0"]
    assert row.endswith("state:pending state:scheduled state:retrying state:parked type:greet")
    assert headrace("bulk", "get", job).out == f"{job}: done\n2 tasks cancelled\n"
    assert headrace("bulk", "abort", job, "-o", "json").data["state"] == "done", "what has ended stays so"
    assert audited(redis_server)[-1]["action"] == "bulk.abort"
    unknown = headrace("bulk", "get", "0" * 20)
    assert (unknown.code, "unknown_bulk" in unknown.err) == (main.FAILED, True)


@pytest.mark.parametrize("words", ["get", "pause", "resume", "limit --max-depth 5", "purge --yes"])
@pytest.mark.parametrize("name", ["No Queue!", "q" * 64, ""])
def test_a_name_that_no_queue_can_have_is_told_with_what_may_be_in_one(
    headrace: Headrace, words: str, name: str
) -> None:
    command, *options = words.split()
    done = headrace("queue", command, name, *options)
    assert (done.code, done.out) == (main.FAILED, "")
    assert done.err.startswith(f"Error: {name!r} is no queue name: use 1 to 63 of a-z, 0-9 and '-'")


def test_limits_of_a_queue_are_set_and_removed(headrace: Headrace) -> None:
    submitted(headrace, 1)
    assert headrace("queue", "limit", "default", "--max-depth", "10", "--rate", "5/s").code == main.OK
    limits = headrace("queue", "get", "default", "-o", "json").data["limits"]
    assert limits == {"max_depth": 10, "rate": "5/s"}
    assert "10 live tasks, 5/s submissions" in headrace("queue", "get", "default").out
    headrace("queue", "limit", "default", "--rate", "none")
    assert headrace("queue", "get", "default", "-o", "json").data["limits"] == {"max_depth": 10, "rate": None}
    assert headrace("queue", "limit", "default", "--rate", "fast").code == main.USAGE
    assert headrace("queue", "limit", "default").code == main.USAGE


def test_what_changes_a_queue_prints_what_the_api_answers(headrace: Headrace) -> None:
    submitted(headrace, 1)
    for word, paused in (("pause", True), ("resume", False)):
        for changed in (True, False):
            told = headrace("queue", word, "default", "-o", "json").data
            assert told == {"queue": "default", "paused": paused, "changed": changed}
    assert headrace("queue", "purge", "default", "--yes").code == main.OK  # what waits grows older between two looks
    limited = headrace("queue", "limit", "default", "--max-depth", "10", "-o", "json").data
    assert limited == headrace("queue", "get", "default", "-o", "json").data
    assert limited["limits"] == {"max_depth": 10, "rate": None}


def test_a_limit_that_is_removed_is_told_with_what_holds_instead(headrace: Headrace) -> None:
    submitted(headrace, 1)
    removed = headrace("queue", "limit", "default", "--rate", "none", "--max-depth", "none").out
    assert removed == "default: max depth as HEADRACE_MAX_DEPTH, rate none\n"


# -- types, workers


@pytest.mark.usefixtures("published")
def test_types_are_listed_with_their_arguments(headrace: Headrace) -> None:
    assert headrace("types").out.splitlines()[1].split() == ["greet", "default", "high", "0", "name,", "loud?"]
    assert "Greet somebody." in headrace("types", "-o", "wide").out
    one = headrace("types", "greet").out
    assert "timeout    300 s" in one
    assert '"additionalProperties": false' in one
    assert "Did you mean 'greet'?" in headrace("types", "gret").err


async def test_workers_are_listed_with_what_they_run_and_whether_they_live(redis_url: str, tmp_path: Path) -> None:
    import asyncio

    app: App[None] = App("t")
    begun = asyncio.Event()

    @app.task()
    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    async with working(app, redis_url, grace_s=0.1, concurrency=4), Desk(redis_url) as desk:
        task_id = await desk.submit("wait")
        await begun.wait()
        [worker] = (await run_beside("workers", "-o", "json", url=redis_url)).data
    assert (worker["alive"], worker["held"], worker["slots"], worker["queues"]) == (True, 1, 4, ["default"])
    assert [each["id"] for each in worker["running"]] == [task_id]


def test_a_worker_that_was_killed_is_shown_as_dead(headrace: Headrace, redis_server: RedisServer) -> None:
    submitted(headrace, 1)
    redis_server.redis.hset("hr:{default/default}:w", "gone:1", "17")
    listed = headrace("workers").out.splitlines()
    assert listed[1].split()[:2] == ["gone:1", "dead"]


# -- watching, waiting


def test_watch_shows_the_queues_again_when_they_changed(headrace: Headrace, redis_url: str, tmp_path: Path) -> None:
    submitted(headrace, 1)
    with Command("queue", "ls", "--watch", cwd=tmp_path, HEADRACE_URL=redis_url) as watching:
        watching.wait_for(r"default +1 ")
        submitted(headrace, 1)
        watching.wait_for(r"default +2 ")
        assert watching.stop() == main.INTERRUPTED
    assert watching.output.count("QUEUE") == 2
    assert "Traceback" not in watching.output


def test_events_are_followed_as_they_end(headrace: Headrace, redis_url: str, tmp_path: Path) -> None:
    """A line each, of those that are wanted, until so many have come."""
    with Command("watch", "type:gr*", "state:cancelled", "-n", "1", cwd=tmp_path, HEADRACE_URL=redis_url) as following:
        ended: list[str] = []
        while following.process.poll() is None:
            ended += submitted(headrace, 1)
            headrace("task", "cancel", ended[-1])
        assert following.end() == 0
    at, state, type_, task_id = following.output.split()
    assert at.endswith("Z")
    assert (state, type_) == ("cancelled", "greet")
    assert task_id in ended


def test_a_watch_goes_on_behind_what_was_seen(headrace: Headrace) -> None:
    ids = submitted(headrace, 3)
    for task_id in ids:
        headrace("task", "cancel", task_id)
    lines = headrace("watch", "-n", "3", "--last-id", "0-0/default", "-o", "json").out.splitlines()
    seen = [json.loads(line) for line in lines]
    assert [(each["id"], each["status"], each["gap"]) for each in seen] == [(each, "cancelled", False) for each in ids]
    assert headrace("watch", "-n", "2", "--last-id", seen[0]["last_id"], "-o", "name").out.split() == ids[1:]
    documents = headrace("watch", "-n", "3", "--last-id", "0-0/default", "-o", "yaml").out.split("---\n")
    assert [msgspec.yaml.decode(each) for each in documents[1:]] == seen
    first = headrace("watch", "-n", "1", "--last-id", "0-0/default", "-o", "wide").out.split()
    assert first == [seen[0]["at"], "cancelled", "greet", "default", ids[0]]
    refused = headrace("watch", "--last-id", "nonsense")
    assert (refused.code, "/last_id" in refused.err) == (main.USAGE, True)


def test_events_know_no_other_filters(headrace: Headrace) -> None:
    """What would need a look at each task is refused."""
    refused = headrace("watch", "error:Timeout")
    assert refused.code == main.USAGE
    assert "only state:, type: and queue:" in refused.err


def test_watch_shows_a_task_until_it_has_ended(headrace: Headrace, redis_url: str, tmp_path: Path) -> None:
    [task_id] = submitted(headrace, 1)
    with Command("task", "get", task_id, "--watch", cwd=tmp_path, HEADRACE_URL=redis_url) as watching:
        watching.wait_for(r"status +pending")
        headrace("task", "cancel", task_id)
        watching.wait_for(r"status +cancelled")
        assert watching.end() == main.FAILED


def test_ctrl_c_while_waiting_says_how_to_wait_again(redis_url: str, tmp_path: Path) -> None:
    with Command("submit", "greet", "--wait", cwd=tmp_path, HEADRACE_URL=redis_url) as waiting:
        task_id = waiting.wait_for(r"^([0-9a-f-]{36})$|\n([0-9a-f-]{36})\n")[0].strip()
        assert waiting.stop() == main.INTERRUPTED
    assert f"headrace task get {task_id} --wait" in waiting.output
    done = run("task", "get", task_id, "--wait", "--timeout", "0.1", cwd=tmp_path, HEADRACE_URL=redis_url)
    assert done.returncode == main.TIMED_OUT


def test_ctrl_c_in_a_batch_says_where_to_go_on(redis_url: str, tmp_path: Path) -> None:
    pipe = tmp_path / "tasks.ndjson"
    os.mkfifo(pipe)
    command = Command("submit", "greet", "--batch", str(pipe), cwd=tmp_path, HEADRACE_URL=redis_url)
    with command as sending, pipe.open("w") as lines:
        lines.write('{"name": "x"}\n' * 500)
        lines.flush()
        sending.wait_for(r"(?:[0-9a-f-]{36}\n){500}")
        sending.send(signal.SIGINT)
        assert sending.end() == main.INTERRUPTED
    assert "500 tasks were stored. Go on with the same command and --skip 500" in sending.output


# -- bench, progress


def test_bench_measures_and_leaves_nothing(headrace: Headrace, redis_server: RedisServer) -> None:
    done = headrace("bench", "--tasks", "600", "-o", "json")
    assert done.code == main.OK, done.err
    assert [(each["step"], each["tasks"]) for each in done.data] == [("submit", 600), ("drain", 600)]
    assert all(each["tasks_per_s"] > 0 for each in done.data)
    assert redis_server.redis.keys("*") == []


def test_bench_asks_before_it_puts_another_machine_under_load(headrace: Headrace) -> None:
    done = headrace("bench", "--redis", "redis://:secret@192.0.2.1:6379/0")
    assert done.code == main.USAGE
    assert "--yes" in done.err
    assert "secret" not in done.err


def in_a_terminal(monkeypatch: pytest.MonkeyPatch, quiet_s: float) -> io.StringIO:
    """Standard error is one from now on (not in a fixture: pytest sets it anew after that), quiet for so long."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "QUIET_S", quiet_s)
    return terminal


def test_a_bar_is_a_line_now_and_then_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with Bar("submitted", 4_000, clock=lambda: now) as bar:
        bar.to(10)
        now = LINE_S
        bar.to(2_000, "3 failed")
        now += 1
        bar.to(3_000)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "submitted 2,000 of 4,000, 200/s, 3 failed\n"


def test_a_bar_is_drawn_in_a_terminal_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_a_terminal(monkeypatch, 1.0)
    now = 0.0
    with Bar("submitted", 4_000, clock=lambda: now) as bar:
        bar.to(10)
        assert terminal.getvalue() == ""
        now = 2.0
        bar.to(2_000, "3 failed")
    assert "submitted" in terminal.getvalue()
    assert "2000/4000" in terminal.getvalue()
    assert "1,000/s  3 failed" in terminal.getvalue()


SHOWN = [
    (("errors",), main.OK, "looked at"),
    (("replay-dead", "type:greet", "--dry-run"), main.OK, "looked at"),
    (("task", "ls"), main.OK, "looked at"),
    (("task", "cancel", "ID", "OTHER", "-o", "json"), main.OK, "tasks "),
    (("submit", "greet", "--batch", "-", "-o", "json"), main.OK, "submitted "),
    (("workers",), main.OK, "looking twice for who lives"),
    (("task", "get", "ID", "--wait", "--timeout", "0.5"), main.TIMED_OUT, "waiting for "),
    (("task", "get", "ID", "OTHER", "--wait", "--timeout", "0.5"), main.TIMED_OUT, "ended"),
    (("submit", "greet", "{}", "--wait", "--timeout", "0.5"), main.TIMED_OUT, "waiting for "),
]


@pytest.mark.parametrize(("args", "code", "shown"), SHOWN, ids=lambda each: each[0] if isinstance(each, tuple) else "")
def test_what_takes_long_shows_that_it_goes_on(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int, shown: str
) -> None:
    ids = dict(zip(("ID", "OTHER"), submitted(headrace, 2), strict=True))
    terminal = in_a_terminal(monkeypatch, 0.0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = headrace(*(ids.get(arg, arg) for arg in args), stdin='{"name": "x"}\n')
    assert done.code == code, done.err
    assert shown in terminal.getvalue()
    assert shown not in done.out


@pytest.mark.parametrize(("args", "code", "shown"), SHOWN, ids=lambda each: each[0] if isinstance(each, tuple) else "")
def test_in_a_pipe_nothing_shows_that_it_goes_on(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int, shown: str
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    ids = dict(zip(("ID", "OTHER"), submitted(headrace, 2), strict=True))
    done = headrace(*(ids.get(arg, arg) for arg in args), stdin='{"name": "x"}\n')
    assert done.code == code, done.err
    assert shown not in done.out + done.err
    assert "\x1b" not in done.out + done.err


def test_what_is_waited_for_is_shown_after_a_second_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_a_terminal(monkeypatch, 60.0)
    with progress.Waiting("thinking"):
        pass
    assert terminal.getvalue() == ""
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    with progress.Waiting("thinking") as waiting:
        waiting._timer.join()
        assert "thinking" in terminal.getvalue()
        assert "0:00:00" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K"), "the line is wiped"


# -- what a submission may say


def test_a_submission_says_all_that_a_request_may(headrace: Headrace) -> None:
    said = ("--tag", "acme", "--tag", "eu", "--expires", "3600", "--unique", "ada", "--eta", "2026-01-15T10:30:00Z")
    task_id = headrace("submit", "greet", '{"name": "Ada"}', *said).out.strip()
    shown = headrace("task", "get", task_id, "-o", "json").data
    assert shown["tags"] == ["acme", "eu"]
    assert shown["expires_at"] is not None
    again = headrace("submit", "greet", '{"name": "Ada"}', "--unique", "ada")
    assert (again.code, again.out) == (main.FAILED, "")
    assert f"Task {task_id} holds this unique key" in again.err
    beside = headrace("submit", "greet", "--batch", "-", "--unique", "ada", stdin='{"name": "x"}\n')
    assert beside.out == f"{task_id}\n"
    assert headrace("submit", "greet", "--unique-for", "5").code == main.USAGE


def test_the_same_key_is_the_same_task_and_another_payload_under_it_is_refused(headrace: Headrace) -> None:
    first = headrace("submit", "greet", '{"name": "Ada"}', "--key", "order-17")
    again = headrace("submit", "greet", '{ "name":"Ada" }', "--key", "order-17")
    assert again.out == first.out != ""
    assert "submitted before; it is pending" in again.err
    others = [
        headrace("submit", "greet", '{"name": "Ada"}', "--key", "order-18"),
        headrace("submit", "greet", '{"name": "Ada"}', "--key", "order-17", "--queue", "orders"),
        headrace("submit", "hello", '{"name": "Ada"}', "--key", "order-17"),
    ]
    assert len({first.out, *(each.out for each in others)}) == 4
    refused = headrace("submit", "greet", '{"name": "Eve"}', "--key", "order-17")
    assert (refused.code, refused.out) == (main.USAGE, "")
    assert "exists already with another type or payload" in refused.err
    for key in ("", "ü" * 128):
        assert "/key: has to have 1 to 255 bytes" in headrace("submit", "greet", "--key", key).err


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
    args: tuple[str, ...], said: str, batch: bool, headrace: Headrace
) -> None:
    given = ("--batch", "-") if batch else ('{"name": "x"}',)
    done = headrace("submit", "greet", *given, *args, stdin='{"name": "x"}\n')
    assert (done.code == main.OK, done.out) == (False, "")
    assert said in done.err


def test_an_error_without_words_is_its_class_alone() -> None:
    assert error_text("Cancelled", "") == "Cancelled"
    assert error_text("ValueError", "no") == "ValueError: no"
