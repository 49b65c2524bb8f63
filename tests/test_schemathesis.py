"""schemathesis, with all its checks, against a real API process: it knows nothing but the OpenAPI document.

`make schemathesis` sends many more requests than CI does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from command_line import Command, clean_environ
from redis_server import Missing, RedisServer, real_servers

HERE: Final = Path(__file__).parent
TOKEN: Final = "a-token-of-more-than-16-characters"
EXAMPLES: Final = os.environ.get("SCHEMATHESIS_EXAMPLES", "10")
"""Requests of one route and phase."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """An API with an empty Redis of its own; one version of Redis is enough, for it is HTTP that is looked at."""
    binary = list(real_servers().values())[-1]
    if isinstance(binary, Missing):
        pytest.skip(binary.reason)
    with (
        RedisServer(binary) as redis,
        Command(
            *("api", "--port", "0"),
            cwd=tmp_path,
            HEADRACE_URL=redis.url,
            HEADRACE_TOKENS=f"t:{TOKEN}",
            HEADRACE_MAX_QUEUES="100000",
        ) as api,
    ):
        yield api.wait_for(r"listens on (http://[\d.]+:\d+)")[1]


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    """No 5xx, no answer beside the document, nothing wrong taken, nothing right refused."""
    told = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"),
            f"{url}/openapi.json",
            *("--max-examples", EXAMPLES),
            *("--seed", os.environ.get("SCHEMATHESIS_SEED", "1")),
        ],
        cwd=tmp_path,
        env=clean_environ({"PYTHONPATH": str(HERE), "HEADRACE_TOKEN": TOKEN, "COLUMNS": "160"}),
        capture_output=True,
        text=True,
        timeout=None if "SCHEMATHESIS_EXAMPLES" in os.environ else 300,
        check=False,
    )
    sys.stdout.write(told.stdout[-4_000:])
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr[-2_000:]
