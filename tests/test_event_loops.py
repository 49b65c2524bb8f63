"""Which event loop a process runs in."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from headrace_cli.operator import command
from headrace_cli.worker import run_loop
from headrace_operator.main import Operator

PYTHONS = "asyncio.unix_events"


async def loop_here() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_an_operator_runs_in_that_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop can lose track of a connection that is given up, and then no later one can use its descriptor."""
    loops: list[str] = []

    async def run(operator: Operator, kubeconfig: str | None) -> None:
        loops.append(await loop_here())

    monkeypatch.setattr(Operator, "run", run)
    told = CliRunner().invoke(command, ["--metrics-port", "0"])
    assert (told.exit_code, loops) == (0, [PYTHONS]), told.output


def test_a_worker_runs_in_the_quickest_or_in_that_of_python() -> None:
    pytest.importorskip("uvloop")
    assert run_loop(loop_here()) == "uvloop"
    assert run_loop(loop_here(), "asyncio") == PYTHONS
