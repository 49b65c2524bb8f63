"""The Tab key, as real shells have it: each loads the script and is asked what could come next."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from command_line import PATIENCE_S, clean_environ, run
from headrace_cli import main

BASH = """\
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_headrace_completion headrace
for each in "${{COMPREPLY[@]}}"; do echo "$each"; done
"""
# A stand-in for zsh's own line editor, which wants a terminal: compadd and _describe print what they were given.
ZSH = """\
compdef() {{ : }}
_describe() {{ local -a shown; shown=("${{(@P)3}}"); print -l -- "${{shown[@]%%:*}}" }}
compadd() {{ local -a shown; shown=("${{(@P)@[-1]}}"); print -l -- $shown }}
source {script}
words=({words})
CURRENT=${{#words}}
_headrace_completion
"""
FISH = """\
source {script}
complete --do-complete {line}
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """With a `headrace` on PATH that is this checkout's."""
    command = tmp_path / "headrace"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m headrace_cli "$@"\n')
    command.chmod(0o755)
    return clean_environ({"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)})


def offered(shell: str, words: list[str], tmp_path: Path, environ: dict[str, str]) -> list[str]:
    """What the shell offers after these words, of which the last may be empty or begun."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on PATH")
    script = tmp_path / f"complete.{shell}"
    made = run("completion", shell, cwd=tmp_path)
    assert (made.returncode, made.stderr) == (main.OK, "")
    script.write_text(made.stdout)
    form = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    quoted = " ".join(word or "''" for word in words)
    program = form.format(script=shlex.quote(str(script)), words=quoted, line=shlex.quote(" ".join(words)))
    plain = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *plain, "-c", program],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_values(shell: str, tmp_path: Path, environ: dict[str, str]) -> None:
    assert offered(shell, ["headrace", "qu"], tmp_path, environ) == ["queue"]
    assert offered(shell, ["headrace", "task", "re"], tmp_path, environ) == ["retry"]
    assert offered(shell, ["headrace", "queue", "ls", "--wa"], tmp_path, environ) == ["--watch"]
    assert offered(shell, ["headrace", "queue", "ls", "-o", "y"], tmp_path, environ) == ["yaml"]


def test_names_of_queues_and_types_are_offered(redis_url: str, tmp_path: Path, environ: dict[str, str]) -> None:
    assert run("submit", "greet", "--queue", "orders", cwd=tmp_path, HEADRACE_URL=redis_url).returncode == main.OK
    environ |= {"HEADRACE_URL": redis_url}
    assert offered("bash", ["headrace", "queue", "pause", ""], tmp_path, environ) == ["orders"]
    assert offered("bash", ["headrace", "queue", "pause", "x"], tmp_path, environ) == []
    with redis.Redis.from_url(redis_url) as client:
        client.hset("hr:{default}:types", mapping={"greet": "{}", "greet#older": "{}"})
    assert offered("bash", ["headrace", "submit", "g"], tmp_path, environ) == ["greet"]


def test_without_redis_the_tab_key_is_silent(tmp_path: Path, environ: dict[str, str]) -> None:
    environ |= {"HEADRACE_URL": "redis://127.0.0.1:1/0"}
    assert offered("bash", ["headrace", "queue", "pause", ""], tmp_path, environ) == []


def test_another_shell_is_refused(tmp_path: Path) -> None:
    done = run("completion", "tcsh", cwd=tmp_path)
    assert done.returncode == main.USAGE
    assert "'bash', 'zsh', 'fish'" in done.stderr
