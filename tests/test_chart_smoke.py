"""What `helm test` runs, against real APIs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from api_kit import running

SCRIPT = Path(__file__).parent.parent / "charts" / "headrace" / "files" / "smoke.py"
SECRET = "a-secret-of-sixteen"
HASHED = f"admin:sha256:{hashlib.sha256(SECRET.encode()).hexdigest()}"


async def smoke(url: str, tokens: str) -> tuple[int | None, str]:
    """(exit code, all it said)."""
    environ = os.environ | {"API": url, "TOKENS": tokens}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_with_a_token_it_submits_and_cancels(redis_url: str) -> None:
    async with running(redis_url, SECRET, tokens=f"admin:{SECRET}") as api:
        code, said = await smoke(api.url, f"admin:{SECRET}")
        assert code == 0, said
        assert "nobody is let in" in said and "A task was taken, and cancelled." in said
        assert (await api.get("/api/v1/stats")).json["cancelled"] == 1


async def test_a_hash_is_no_secret(redis_url: str) -> None:
    async with running(redis_url, SECRET, tokens=HASHED) as api:
        code, said = await smoke(api.url, HASHED)
        assert code == 0, said
        assert "no task was submitted" in said


async def test_a_token_that_may_only_read_will_do(redis_url: str) -> None:
    line = f"reader:{SECRET} scope=read"
    async with running(redis_url, SECRET, tokens=line) as api:
        code, said = await smoke(api.url, line)
        assert code == 0, said
        assert "missing_scope" in said


async def test_an_open_api_needs_none(redis_url: str) -> None:
    async with running(redis_url, auth="none") as api:
        code, said = await smoke(api.url, "")
        assert code == 0, said
        assert "A task was taken, and cancelled." in said


async def test_an_open_api_that_should_have_tokens_fails_it(redis_url: str) -> None:
    async with running(redis_url, auth="none") as api:
        code, said = await smoke(api.url, f"admin:{SECRET}")
        assert code == 1 and "a stranger was let in" in said
