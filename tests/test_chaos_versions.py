"""The last release's API and workers beside today's, on one Redis under load: up, side by side, and back down."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from chaos import ledger, look
from chaos.checker import Facts, check
from chaos.load import Load
from chaos.release import unpack
from chaos.rounds import dice, rounds, tell
from chaos.system import Program, System
from conftest import StartRedis
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from worker_harness import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

TODAY = ""
STEPS = (
    # Whether each of api-0, api-1, worker-0 and worker-1 is today's: one part after another, up and down again.
    (False, False, False, False),
    (True, False, False, False),
    (True, False, True, False),
    (True, True, True, False),
    (True, True, True, True),
    (True, True, False, True),
    (False, True, False, False),
    (False, False, True, True),
)


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of the last release."""
    folder = tmp_path_factory.mktemp("last")
    try:
        return unpack(folder)
    except LookupError as error:
        pytest.skip(str(error))


def test_the_last_release_is_what_runs(last: str) -> None:
    """Else the test below would compare today's code with itself."""
    asked = [sys.executable, "-P", "-c", "import headrace, headrace_api, headrace_cli; print(headrace.__file__)"]
    environ = os.environ | {"PYTHONPATH": last}
    said = subprocess.run(asked, env=environ, capture_output=True, text=True, check=True).stdout
    assert said.startswith(last.partition(os.pathsep)[0])


async def change(system: System, program: Program, path: str) -> None:
    """A rolling update of one process: told to stop, and another release starts in its place."""
    if program in system.workers:
        await system.works(program)
    assert await asyncio.to_thread(program.stop) == 0, program.log.read_text()[-2_000:]
    program.prefer(path)
    program.start()


@pytest.mark.timeout(900)
async def test_two_releases_beside_each_other_lose_nothing(start_redis: StartRedis, tmp_path: Path, last: str) -> None:
    redis = start_redis(appendfsync="always")
    system = System(redis.url, tmp_path, apis=2, workers=2)
    for program in system.programs:
        program.prefer(last)
    running = dict.fromkeys(system.programs, False)
    async with system:
        load = Load(system.urls, dice("versions").randrange(10**6), rate=rounds(15, 40))
        loading = asyncio.create_task(load.run())
        for step in STEPS:
            for number, (program, wanted) in enumerate(zip(system.programs, step, strict=True)):
                if running[program] is not wanted:
                    await change(system, program, TODAY if wanted else last)
                    running[program] = wanted
                    if number < len(system.apis):
                        await system.ready(number)
            before = len(load.heard.acked)
            await eventually(partial(_reached, load, before + rounds(20, 400)), 120)
        load.stop()
        await asyncio.wait([loading], timeout=60)
        client = AsyncClient(RedisSettings.parse(redis.url, "the test"))
        assert await look.drained(client, 60)
        ends, completions = await look.ends_of(client, load.heard.acked), await look.completions(client)
        await client.aclose()
        verdict = check(Facts(load.heard.acked, (), ends, ledger.read(system.ledger), completions))
        assert system.fallen() == []
    assert verdict.wrong == [] and load.heard.refused == [] and load.heard.open == 0
    assert {end.crashes for end in ends.values()} == {0}, "what a stop hands back costs its task nothing"
    tell(f"{len(ends)} tasks through {len(STEPS)} mixes, none lost")


async def _reached(load: Load, enough: int) -> bool:
    return len(load.heard.acked) >= enough
