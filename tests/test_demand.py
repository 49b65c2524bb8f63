"""What a scaler reads of a queue, and the handshake by which workers leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ("9 1 - nan a=inf:800 b=-5:200", WorkerBeat(9, 1, types=(TypeTime("a", 0.8), TypeTime("b", 0.2)))),
        ("9 1 - 1e300 a=20:1001 b=20:-1", WorkerBeat(9, 1)),
        ("9 -1 d 40", WorkerBeat(0, 1)),
        ("12", WorkerBeat(12, 1)),
        ("?nonce", WorkerBeat(0, 1)),
        ("12 x d", WorkerBeat(0, 1)),
        ("", WorkerBeat(0, 1)),
    ],
)
def test_a_beat_that_does_not_say_counts_as_busy(text: str, beat: WorkerBeat) -> None:
    assert parse_beat(text) == beat


FIGURES = st.sampled_from(["0", "1", "-1", "40", "800", "nan", "inf", "-inf", "1e300", "9" * 400, "", "-", "x"])
WORDS = st.one_of(FIGURES, st.builds("t={}:{}".format, FIGURES, FIGURES))


@given(st.lists(WORDS, max_size=7).map(" ".join))
def test_no_beat_says_what_nobody_can_reckon_with(text: str) -> None:
    beat = parse_beat(text)
    figures = [beat.running, beat.mean_s or 0, *(each.share for each in beat.types)]
    figures += [each.seconds or 0 for each in beat.types]
    assert all(0 <= each <= 366 * 24 * 3_600 for each in figures), beat


async def test_a_request_to_drain_that_cannot_be_read_is_one_of_just_now(client: AsyncClient) -> None:
    queue = Queue("default")
    await client.call(queue.init())
    await client.call(queue.beat("w:1", "7 0 d"))
    await client.command("HSET", queue.keys["drain"], "w:1", "", "w:2", "x 1", "w:3", "9" * 400, "w:4", "5 x")
    seen = await client.call(queue.demand(5))
    assert seen.asked == dict.fromkeys(["w:1", "w:2", "w:3", "w:4"], 0.0)
    assert seen.answered("w:1")


def test_a_beat_reads_back() -> None:
    types = (TypeTime("shop.Resize:v2", 0.75, 0.25), TypeTime("video", 0.25))
    beat = WorkerBeat(9, 2, draining=True, mean_s=0.25, types=types)
    assert parse_beat(beat.text()) == beat
