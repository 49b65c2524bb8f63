"""`headrace operator`, the command."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from headrace_cli.operator import command
from headrace_operator.main import Operator


def test_it_runs_in_the_event_loop_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop can lose track of a connection that is given up, and then no later one can use its descriptor."""
    loops: list[str] = []

    async def run(operator: Operator, kubeconfig: str | None) -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    monkeypatch.setattr(Operator, "run", run)
    told = CliRunner().invoke(command, ["--metrics-port", "0"])
    assert (told.exit_code, loops) == (0, ["asyncio.unix_events"]), told.output
