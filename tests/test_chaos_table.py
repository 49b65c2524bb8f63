"""The table of failure modes is whole: a row for each mode, and each test that it names exists."""

from __future__ import annotations

import ast
import re

import pytest

from chaos.table import MODES, PAGE, ROOT, Mode, read

ROWS = read()
APART = {"F4", "F27"}
"""Modes whose row says why there is nothing to test, or not yet."""


def functions(module: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_mode_has_one_row_in_order() -> None:
    assert [row.name for row in ROWS] == list(MODES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_names_tests_that_exist_and_says_what_came_of_them(row: Mode) -> None:
    assert row.result.strip(), "the last column says what was seen"
    assert row.tests or row.name in APART
    missing = [f"{module}::{name}" for module, name in row.tests if name not in functions(module)]
    assert missing == []


def test_every_bug_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| .+ \| .+ \| (.+) \|$", (ROOT / "docs/bugs-and-how-found.md").read_text(), re.MULTILINE)[2:]
    named = [re.fullmatch(r"`(test_\w+)::(test_\w+)`", row) for row in rows]
    assert len(named) > 10 and all(named)
    assert [each[0] for each in named if each is not None and each[2] not in functions(each[1])] == []


def test_every_promise_names_tests_that_exist() -> None:
    promises = re.findall(r"^\| (G\d+) \| .+? \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in promises] == [f"G{number}" for number in range(1, 11)]
    for _, tests in promises:
        named = re.findall(r"`tests/(\w+)\.py`", tests)
        assert named and all((ROOT / "tests" / f"{module}.py").exists() for module in named)
