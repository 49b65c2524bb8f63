"""The table of threats: an answer that is there has its test, and one that is not says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
SECURITY: Final = (ROOT / "SECURITY.md").read_text()


def rows() -> list[tuple[str, str, str]]:
    found = re.findall(r"^\| (\*\*.+?) \| (.+) \| (.+) \|$", SECURITY, re.MULTILINE)
    return [(threat, answer, shown) for threat, answer, shown in found]


@pytest.mark.parametrize(("threat", "answer", "shown"), rows())
def test_a_threat_has_an_answer_and_its_test_or_says_that_it_has_none(threat: str, answer: str, shown: str) -> None:
    tests = re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", shown)
    assert bool(tests) != (shown == "–"), threat
    if not tests:
        assert answer.startswith(("not offered", "not answered")), threat
    for file, name in tests:
        text = (ROOT / file).read_text()
        assert "\ndef test_" in text or "\nasync def test_" in text, file
        assert not name or f"def {name}(" in text, f"{file}::{name}"


def test_the_table_is_read() -> None:
    assert len(rows()) == len([line for line in SECURITY.splitlines() if line.startswith("| **")]) > 20
