"""For pytest: marks the tests that the table of failure modes names, and says in the end how each mode fared.

PYTHONPATH=tests python -m pytest -p chaos.plugin -m chaos
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from .table import read


def _name(nodeid: str) -> tuple[str, str]:
    file, _, rest = nodeid.partition("::")
    return file.rpartition("/")[2].removesuffix(".py"), rest.partition("[")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    named = {test for mode in read() for test in mode.tests}
    for item in items:
        if _name(item.nodeid) in named:
            item.add_marker("chaos")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ends: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    seconds: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            ends[_name(report.nodeid)][outcome] += 1
            seconds[_name(report.nodeid)] += round(report.duration, 3)
    terminalreporter.section("failure modes")
    for mode in read():
        total = sum((ends[test] for test in mode.tests), Counter[str]())
        said = ", ".join(f"{count} {outcome}" for outcome, count in total.items()) or "not run"
        took = sum(seconds[test] for test in mode.tests)
        terminalreporter.line(f"{mode.name:4} {said:28} {took:7.1f} s  {mode.what}")
