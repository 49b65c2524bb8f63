"""Commands that list, change and submit, carried out in this process or beside it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from command_line import clean_environ, run
from headrace_cli import main

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


def submitted(headrace: Headrace, count: int, *more: str) -> list[str]:
    lines = "".join(f'{{"name": "n{number}"}}\n' for number in range(count))
    done = headrace("submit", "greet", "--batch", "-", *more, stdin=lines)
    assert done.code == main.OK, done.err
    return done.out.split()


async def run_beside(*args: str, url: str, stdin: str = "") -> Done:
    """A command in a process of its own, while the loop of the test goes on."""
    done = await asyncio.to_thread(run, *args, cwd=Path.cwd(), stdin=stdin, HEADRACE_URL=url)
    return Done(done.returncode, done.stdout, done.stderr)


def in_place(url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Headrace:
    """Runs commands in this process, on the Redis at this address."""
    for name in set(os.environ) - set(clean_environ()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_URL", url)

    def command(*args: str, stdin: str = "") -> Done:
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return Done(main.run(list(args)), *capfd.readouterr())

    return command
