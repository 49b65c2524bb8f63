"""For pytest: marks every test that docs/guarantees.md names as `chaos`, and tells at the end how each mode fared.

    PYTHONPATH=tests python -m pytest -p chaos.plugin -m chaos

With CHAOS=full (`make chaos`, and `make chaos-cluster` for the tests that need one) it also writes that into the table
of the page, and keeps it in results.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from . import results, rounds
from .results import Result
from .table import read


def _name(nodeid: str) -> str:
    """`tests/test_x.py::test_y[z]` → `test_x::test_y[z]`."""
    file, _, rest = nodeid.partition("::")
    return f"{file.rpartition('/')[2].removesuffix('.py')}::{rest}"


@dataclass
class _Seen:
    outcome: str = "passed"
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    over: bool = False
    """Not of one in whose middle the run was interrupted."""


_seen: dict[str, _Seen] = {}
_commit = ""
"""What is run; asked for at the start, for others may commit meanwhile."""


def pytest_sessionstart() -> None:
    global _commit  # noqa: PLW0603 - as the dictionary above, of the whole run
    _commit = results.commit()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    named = {f"{module}::{test}" for mode in read() for module, test in mode.tests}
    for item in items:
        if _name(item.nodeid).partition("[")[0] in named:
            item.add_marker("chaos")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seen = _seen.setdefault(_name(report.nodeid), _Seen())
    seen.seconds += report.duration
    if report.outcome != "passed":
        seen.outcome = "error" if report.failed and report.when != "call" else report.outcome
    seen.said += rounds.told()
    seen.over = report.when == "teardown"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = {
        name: Result(each.outcome, round(each.seconds, 2), results.today(), _commit, each.said)
        for name, each in _seen.items()
        if each.over
    }
    terminalreporter.section("failure modes")
    for mode in read():
        terminalreporter.line(f"{mode.name:4} {mode.what}: {results.seen(mode, found)}")
    if rounds.FULL:
        named = {f"{module}::{test}" for mode in read() for module, test in mode.tests}
        results.keep({name: each for name, each in found.items() if name.partition("[")[0] in named})
