"""Slips at the command line: each is told in a sentence about what was typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import run
from headrace_cli import main
from headrace_cli.dev_init import write_app
from headrace_cli.load import AppLoadError


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("explain", "nope"), "There is no error code 'nope'. `headrace explain` lists those there are."),
        (("explain", "queue_ful"), "There is no error code 'queue_ful'. Did you mean 'queue_full'?"),
        (("dev", "--workers", "x"), "Invalid value for '--workers': 'x' is not a whole number."),
        (("submit", "hello", "--delay", "soon"), "Invalid value for '--delay': 'soon' is not a number."),
    ],
)
def test_a_slip_names_what_was_typed_and_where_help_is(tmp_path: Path, typed: tuple[str, ...], said: str) -> None:
    done = run(*typed, cwd=tmp_path)
    help_line = f"headrace {typed[0]} --help shows how it is used."
    assert (done.returncode, done.stderr) == (main.USAGE, f"Error: {said}\n{help_line}\n")


def test_the_list_of_codes_can_be_read_line_by_line(tmp_path: Path) -> None:
    told = {each["code"]: each["happened"] for each in json.loads(run("explain", "-o", "json", cwd=tmp_path).stdout)}
    assert told["bad_setting"] == "a setting has a value that it cannot have"
    assert told["config"] == "something that was configured cannot be used"
    assert [code for code, happened in told.items() if happened.endswith(":")] == []


def test_a_payload_that_is_no_json_is_called_so(tmp_path: Path, redis_url: str) -> None:
    done = run("submit", "hello", "name=you", cwd=tmp_path, HEADRACE_URL=redis_url)
    assert done.returncode == main.USAGE
    assert done.stderr.startswith("Error: The payload cannot be read as JSON: ")
    assert """Give the arguments by name, as in '{"name": "you"}'.""" in done.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("replay", "gone.csv"), "The trace gone.csv cannot be read: No such file or directory. Name a CSV file."),
        (("submit", "hello", "@gone"), "The payload's file gone cannot be read: No such file or directory."),
    ],
)
def test_a_file_that_is_not_there_is_named_once(
    tmp_path: Path, redis_url: str, typed: tuple[str, ...], said: str
) -> None:
    done = run(*typed, cwd=tmp_path, HEADRACE_URL=redis_url)
    assert (done.returncode, done.stderr.splitlines()[0]) == (main.USAGE, f"Error: {said}")


def test_a_folder_in_which_nothing_can_be_written_gets_no_tasks(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(AppLoadError) as refused:
        write_app(gone)
    assert str(refused.value) == (
        f"The file {gone / 'tasks.py'} cannot be written: No such file or directory. "
        "Start in a folder that you may write to."
    )
