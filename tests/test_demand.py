"""What a scaler reads of a queue, and the handshake by which workers leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.broker.demand import GroupMissingError, TypeTime, WorkerBeat, parse_beat
from headrace.redis_settings import RedisSettings
from headrace.task import Envelope, encode_envelope, new_id


def task(delay_ms: int = 0) -> NewTask:
    name = new_id()
    return NewTask(name, encode_envelope(Envelope(1, 1, name, type="t")), 1, delay_ms=delay_ms)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[AsyncClient]:
    async with aclosing(AsyncClient(RedisSettings.from_env({}, redis_url))) as made:
        yield made


async def test_a_queue_tells_what_wants_to_run(client: AsyncClient) -> None:
    queue = Queue("default")
    await client.call(queue.init())
    await client.call(queue.submit([task(), task(), task(), task(2_000), task(60_000)]))
    await client.call(queue.cycle("w:1", 1))
    await client.call(queue.beat("w:1", 7))
    seen = await client.call(queue.demand(due_within_s=5))
    assert (seen.waiting, seen.processing, seen.delayed, seen.due_soon) == (2, 1, 2, 1)
    assert 0 <= seen.oldest_s < 60
    assert seen.workers == {"w:1": WorkerBeat(7)}


async def test_a_lost_group_is_no_empty_queue(client: AsyncClient) -> None:
    queue = Queue("default")
    await client.call(queue.init())
    await client.command("XGROUP", "DESTROY", queue.keys["1"], "g")
    with pytest.raises(GroupMissingError):
        await client.call(queue.demand(5))


async def test_only_who_beats_is_asked_to_drain_and_once(client: AsyncClient) -> None:
    queue = Queue("default")
    await client.call(queue.init())
    await client.call(queue.beat("w:1", 1))
    assert await client.call(queue.ask_to_drain(["w:1", "gone:2"], now_ms=5)) == 1
    assert await client.call(queue.ask_to_drain(["w:1"])) == 0
    assert list((await client.call(queue.demand(5))).asked) == ["w:1"]
    assert await client.call(queue.release_from_drain(["w:1", "gone:2"])) == 1
    assert (await client.call(queue.demand(5))).asked == {}


@pytest.mark.parametrize(
    ("text", "beat"),
    [
        ("12 0 d 1400.000", WorkerBeat(12, 0, True, 1.4)),
        ("12 3 -", WorkerBeat(12, 3)),
        (
            "9 1 - 40 a=20.5:800 b=-:200",
            WorkerBeat(9, 1, mean_s=0.04, types=(TypeTime("a", 0.8, 0.0205), TypeTime("b", 0.2))),
        ),
        ("9 1 - 40 what=ever a=20:800", WorkerBeat(9, 1, mean_s=0.04, types=(TypeTime("a", 0.8, 0.02),))),
        ("12", WorkerBeat(12, 1)),
        ("?nonce", WorkerBeat(0, 1)),
        ("12 x d", WorkerBeat(0, 1)),
        ("", WorkerBeat(0, 1)),
    ],
)
def test_a_beat_that_does_not_say_counts_as_busy(text: str, beat: WorkerBeat) -> None:
    assert parse_beat(text) == beat


def test_a_beat_reads_back() -> None:
    types = (TypeTime("shop.Resize:v2", 0.75, 0.25), TypeTime("video", 0.25))
    beat = WorkerBeat(9, 2, draining=True, mean_s=0.25, types=types)
    assert parse_beat(beat.text()) == beat
