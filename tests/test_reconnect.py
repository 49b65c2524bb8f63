"""What a worker says while Redis is away."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headrace import App
from headrace.redis_settings import RedisSettings
from headrace.runtime.reconnect import SPEAK_S, Voice
from headrace.runtime.worker import Worker
from worker_harness import eventually, quick, shares


async def test_a_worker_whose_redis_is_away_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Though it has a connection for claims and one for each queue that waits."""
    worker = Worker(App("t"), quick(queues=shares("a", "b")), RedisSettings.parse("redis://127.0.0.1:1/0", "the test"))
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        running = asyncio.create_task(worker.run())

        async def failed_often() -> bool:
            return worker.stats.redis_errors >= 3

        await eventually(failed_often)
        lines = [entry.getMessage() for entry in caplog.records]
        worker.stop()
        await running
    assert len(lines) == 1 and "127.0.0.1:1" in lines[0], lines


def test_a_voice_says_each_thing_once_in_a_while() -> None:
    """Another reason is another thing; after the time it may be said again."""
    voice = Voice()
    assert [voice.may_speak(at, text) for at, text in [(0, "a"), (0, "a"), (1, "a"), (1, "b")]] == [
        True, False, False, True,
    ]  # fmt: skip
    assert voice.may_speak(SPEAK_S, "a") and not voice.may_speak(SPEAK_S, "b")
