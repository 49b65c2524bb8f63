"""Commands whose standard streams are closed, full, or of an encoding that lacks what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import HEADRACE, PATIENCE_S, clean_environ
from headrace_cli import main


def shell(line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell in which "$@" is headrace."""
    words = ["sh", "-c", line, "sh", *HEADRACE]
    env = clean_environ(environ)
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_closed_input_is_an_empty_one(redis_url: str) -> None:
    done = shell('"$@" submit --batch - <&-', HEADRACE_URL=redis_url)
    assert (done.returncode, done.stdout, done.stderr) == (main.OK, "", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_output_takes_anything(closed: str) -> None:
    done = shell(f'"$@" explain {closed}')
    assert (done.returncode, done.stderr) == (main.OK, "")


def test_no_socket_takes_the_number_of_a_closed_stream() -> None:
    opened = "import os; from headrace_cli.streams import prepare; prepare(); print(os.open(os.devnull, os.O_RDONLY))"
    done = shell(f"{sys.executable} -c '{opened}' <&- 2>&-")
    assert int(done.stdout) > 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_said_in_a_sentence() -> None:
    done = shell('"$@" explain > /dev/full')
    assert done.returncode == main.FAILED
    assert done.stderr == (
        "Error: The output cannot be written: No space left on device. Make room where it goes, or send it elsewhere.\n"
    )


def test_what_the_encoding_lacks_is_escaped_so_that_json_stays_json() -> None:
    plain, escaped = shell('"$@" explain -o json'), shell('"$@" explain -o json', PYTHONIOENCODING="latin-1")
    assert "…" in plain.stdout
    assert (escaped.returncode, escaped.stderr) == (main.OK, "")
    assert json.loads(escaped.stdout) == json.loads(plain.stdout)
