"""The table of failure modes is whole: a row for each mode, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from chaos import results
from chaos.results import Result
from chaos.table import BEGIN, MODES, PAGE, ROOT, Mode, read

ROWS = read()
APART = {"F27"}
"""Modes whose row says why there is nothing to test, or not yet."""


def functions(module: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_mode_has_one_row_in_order() -> None:
    assert [row.name for row in ROWS] == list(MODES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_names_tests_that_exist_and_says_what_came_of_them(row: Mode) -> None:
    assert row.result.strip(), "a row says what must come of it"
    whole = row.seen not in {"", "–"} and "not run" not in row.seen
    assert whole or row.name in APART, f"make chaos has not run all of its tests: {row.seen}"
    assert row.tests or row.name in APART
    missing = [f"{module}::{name}" for module, name in row.tests if name not in functions(module)]
    assert missing == []


def test_every_bug_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| .+ \| .+ \| (.+) \|$", (ROOT / "docs/bugs-and-how-found.md").read_text(), re.MULTILINE)[2:]
    named = [re.fullmatch(r"`(test_\w+)::(test_\w+)`", row) for row in rows]
    assert len(named) > 10 and all(named)
    assert [each[0] for each in named if each is not None and each[2] not in functions(each[1])] == []


LINK = re.compile(r"\[`(test_\w+)::(test_\w+)`\]\(\.\./tests/(test_\w+)\.py\)")


def test_every_promise_names_tests_that_exist() -> None:
    promises = re.findall(r"^\| (G\d+) \| .+? \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in promises] == [f"G{number}" for number in range(1, 11)]
    assert [name for name, tests in promises if not LINK.search(tests)] == []


def test_every_test_that_the_page_names_is_linked_and_exists() -> None:
    """By the file that it is in. `PYTHONPATH=tests python -m chaos.results` makes links of bare names."""
    text = PAGE.read_text()
    links = LINK.findall(text)
    assert len(links) == text.count("`test_") > 100, "some are no links"
    wrong = [name for module, name, file in links if file != module or name not in functions(module)]
    assert wrong == []


def test_every_paragraph_of_the_page_leads_to_what_shows_it() -> None:
    """Not the opening ones of a part, which say what a word means, nor tables, whose rows are looked at above."""
    blocks = [block for block in PAGE.read_text().split("\n\n") if not block.startswith(("#", "|", "<!--"))]
    assert [block for block in blocks if "](" not in block] == [blocks[0]]


# the last column


def test_the_last_column_is_what_the_last_run_wrote(tmp_path: Path) -> None:
    """Else, as after a row was changed by hand: PYTHONPATH=tests python -m chaos.results."""
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    results.keep({}, results.FILE, page)
    assert page.read_text() == PAGE.read_text()


def test_the_last_run_saw_only_tests_that_the_table_names_and_none_failed() -> None:
    kept = results.load()
    named = {f"{module}::{test}" for row in ROWS for module, test in row.tests}
    assert {name.partition("[")[0] for name in kept} - named == set()
    assert [name for name, each in kept.items() if each.outcome in {"failed", "error"}] == []


def test_a_run_of_some_tests_leaves_the_others_results(tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "results.json"
    rows = "| F1 | a | `test_a::test_one` `test_a::test_three` | b |\n| F2 | a | `test_a::test_two` | b | – |\n"
    page.write_text(f"{rows}\n{BEGIN}not yet\n")
    results.keep({"test_a::test_one[x]": Result("passed", 1.4, "2026-01-01", "", ["worst 2 s"])}, file, page)
    results.keep({"test_a::test_two": Result("failed", 61.0, "2026-01-02", "abc1234")}, file, page)
    results.keep({"test_a::test_one[y]": Result("passed", 0.8, "2026-01-02", "abc1234", ["worst 2 s"])}, file, page)
    assert [row.seen for row in read(page)] == ["2 passed in 2 s; worst 2 s; 1 of 2 tests not run", "1 failed in 61 s"]
    assert page.read_text().endswith(
        "of 2026-01-01 to 2026-01-02 (commits: `abc1234`, one not noted): 3 tests, 1 minutes one after the other.\n"
    )


def test_a_test_that_the_table_names_no_more_is_forgotten(tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"| F1 | a | `test_a::test_one` | b |\n\n{BEGIN}not yet\n")
    results.keep(
        {name: Result("passed", 1.0, "2026-01-01") for name in ("test_a::test_one", "test_a::old")}, file, page
    )
    assert results.load(file).keys() == {"test_a::test_one"}


def test_what_needs_a_cluster_is_said_apart() -> None:
    mode = Mode("O1", "a", (("test_a", "test_one"), ("test_a", "test_two"), ("test_cluster_b", "test_three")), "b", "")
    one = {"test_a::test_one[x]": Result("passed", 1.0, "2026-01-01")}
    assert results.seen(mode, one) == "1 passed in 1 s; 1 of 3 tests not run; 1 on a cluster only"
    assert results.seen(Mode("O2", "a", (), "b", ""), one) == "–"


def test_what_was_run_is_named_by_its_commit() -> None:
    assert re.fullmatch(r"([0-9a-f]{7,}\+?)?", results.commit())
