"""What every command prints: the five forms, examples, bars, what stands on which stream."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from command_desk import Headrace, submitted
from headrace_cli import main, progress
from headrace_cli.commands_page import every_command
from headrace_cli.progress import LINE_S, Bar
from headrace_cli.records import Column, Listing, show_all, span
from headrace_cli.task_text import error_text
from redis_server import RedisServer

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
    args: tuple[str, ...], typed: Headrace
) -> None:
    for form in ("table", "wide", "name"):
        done = typed(*args, "-o", form)
        assert (done.code, "\x1b" in done.out) == (main.OK, False)
        assert done.out == "" or args == ("explain",)
    from_json = typed(*args, "-o", "json").data
    assert msgspec.yaml.decode(typed(*args, "-o", "yaml").out) == from_json
    assert isinstance(from_json, list)


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


def test_bench_measures_and_leaves_nothing(typed: Headrace, redis_server: RedisServer) -> None:
    done = typed("bench", "--tasks", "600", "-o", "json")
    assert done.code == main.OK, done.err
    assert [(each["step"], each["tasks"]) for each in done.data] == [("submit", 600), ("drain", 600)]
    assert all(each["tasks_per_s"] > 0 for each in done.data)
    assert redis_server.redis.keys("*") == []


def test_bench_asks_before_it_puts_another_machine_under_load(typed: Headrace) -> None:
    done = typed("bench", "--redis", "redis://:secret@192.0.2.1:6379/0")
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
    typed: Headrace, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int, shown: str
) -> None:
    ids = dict(zip(("ID", "OTHER"), submitted(typed, 2), strict=True))
    terminal = in_a_terminal(monkeypatch, 0.0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = typed(*(ids.get(arg, arg) for arg in args), stdin='{"name": "x"}\n')
    assert done.code == code, done.err
    assert shown in terminal.getvalue()
    assert shown not in done.out


@pytest.mark.parametrize(("args", "code", "shown"), SHOWN, ids=lambda each: each[0] if isinstance(each, tuple) else "")
def test_in_a_pipe_nothing_shows_that_it_goes_on(
    typed: Headrace, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int, shown: str
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    ids = dict(zip(("ID", "OTHER"), submitted(typed, 2), strict=True))
    done = typed(*(ids.get(arg, arg) for arg in args), stdin='{"name": "x"}\n')
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


def test_an_error_without_words_is_its_class_alone() -> None:
    assert error_text("Cancelled", "") == "Cancelled"
    assert error_text("ValueError", "no") == "ValueError: no"
