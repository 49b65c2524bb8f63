"""`headrace token new`: the secret it prints is the one whose hash is in the line, and the API takes that line."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import get_args

import pytest

from api_kit import EMAIL, running
from command_line import run
from headrace.tokens import Scope, parse_tokens
from headrace_cli.token import SCOPES


def test_the_command_has_the_scopes_that_there_are() -> None:
    """It names them itself, for `--help` has to be quick."""
    assert get_args(Scope) == SCOPES


async def test_the_api_takes_the_token_as_it_was_made(redis_url: str, tmp_path: Path) -> None:
    """Made for one queue, added to a file: that queue is open to it, another is not, and the secret is in no file."""
    made = run("token", "new", "--subject", "ci", "--scope", "submit", "--queue", "emails-*", "--add", "tokens",
               "-o", "json", cwd=tmp_path)  # fmt: skip
    told, file = json.loads(made.stdout), tmp_path / "tokens"
    assert file.read_text() == told["line"] + "\n"
    assert told["secret"] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with running(redis_url, told["secret"], tokens_file=str(file)) as api:
        assert (await api.submit(EMAIL | {"queue": "emails-eu"})).status == 201
        assert (await api.submit()).code == "forbidden_queue"
        assert (await api.get("/api/v1/stats")).code == "missing_scope"


def test_people_see_secret_and_line_and_what_to_do(tmp_path: Path) -> None:
    """The secret once, on standard output; the sentence beside it in no pipe."""
    made = run("token", "new", "--subject", "ops", "--scope", "read", "--scope", "submit", "--rate", "100/s",
               HEADRACE_NAMESPACE="team-a", cwd=tmp_path)  # fmt: skip
    secret, line = (each.split(None, 1)[1] for each in made.stdout.splitlines())
    [token] = parse_tokens(line)
    assert secret.startswith("hr_")
    assert line.endswith(" scope=read scope=submit rate=100/s")
    assert (token.who, str(token.rate)) == ("team-a/ops", "100/s")
    assert made.stderr.startswith("Put the line into the file of HEADRACE_TOKENS_FILE.")


def test_a_script_takes_the_secret_alone(tmp_path: Path) -> None:
    """And lines are added, whatever the file ended with."""
    (tmp_path / "tokens").write_text("# ours")
    secrets = {
        run("token", "new", "--subject", "ci", "--scope", "admin", "--add", "tokens", "-o", "name", cwd=tmp_path).stdout
        for _ in range(2)
    }
    assert len(secrets) == 2
    assert all(secret.startswith("hr_") and len(secret.split()) == 1 for secret in secrets)
    assert len(parse_tokens((tmp_path / "tokens").read_text())) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--subject", "a b", "--scope", "read"], "'a b' holds a space or a comma"),
        (["--subject", "a/b", "--scope", "read"], "Write each token as NAME:SECRET"),
        (["--subject", "ci", "--scope", "all"], "'all' is not one of 'read', 'submit', 'operate', 'admin'"),
        (["--subject", "ci"], "Error: Say what it may do, by --scope with one of read, submit, operate, admin."),
        (["--subject", "ci", "--scope", "read", "--queue", "Emails"], "'Emails' is no pattern of queues"),
        (["--subject", "ci", "--scope", "read", "--queue", "a,b"], "'queue=a,b' holds a space or a comma"),
        (["--subject", "ci", "--scope", "read", "--rate", "fast"], "'fast' is no rate"),
        (["--subject", "ci", "--scope", "read", "--rate", "1/s queue=b"], "'rate=1/s queue=b' holds a space"),
    ],
)
def test_what_the_api_would_refuse_is_refused_here(tmp_path: Path, args: list[str], said: str) -> None:
    """With exit code 2, and no file is touched."""
    made = run("token", "new", *args, "--add", "tokens", cwd=tmp_path)
    assert made.returncode == 2
    assert said in " ".join(made.stderr.split())
    assert not (tmp_path / "tokens").exists()


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    made = run("token", "new", "--subject", "ci", "--scope", "read", "--add", "none/tokens", cwd=tmp_path)
    assert made.returncode == 2
    assert made.stderr.startswith(
        "Error: The file none/tokens cannot be written: No such file or directory. Name another"
    )
