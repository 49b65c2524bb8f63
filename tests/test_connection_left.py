"""What becomes of a connection whose callers left before their answers came. Redis is the test itself."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from dataclasses import dataclass, field, replace

import pytest

from headrace.broker.connection import Connection
from headrace.errors import StoreTimeout, StoreUnavailable
from headrace.redis_settings import RedisSettings

SETTINGS = replace(RedisSettings.parse("redis://127.0.0.1:1/0", "the test"), timeout_s=5.0)


class Wire(asyncio.Transport):
    """Takes all, and says nothing by itself."""

    def write(self, data: object) -> None:
        return

    def abort(self) -> None:
        return


@dataclass
class Clock:
    now: float = field(default_factory=time.monotonic)

    async def pass_s(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time, which passes only when told; the event loop goes by it too."""
    one = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: one.now)
    return one


def connected() -> Connection:
    connection = Connection(SETTINGS)
    connection.connection_made(Wire())
    return connection


def answer(connection: Connection, data: bytes = b"+PONG\r\n") -> None:
    connection.get_buffer(0)[: len(data)] = data
    connection.buffer_updated(len(data))


async def asked(connection: Connection, timeout_s: float) -> asyncio.Task[object]:
    task = asyncio.create_task(connection.command("PING", timeout_s=timeout_s))
    await asyncio.sleep(0)
    return task


async def left(connection: Connection, timeout_s: float) -> None:
    task = await asked(connection, timeout_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_answer_that_comes_while_its_caller_leaves_is_an_answer(clock: Clock) -> None:
    """Between the cancelling and the caller's hearing of it: nothing is owed, and nothing ends the connection later."""
    connection = connected()
    task = await asked(connection, 1)
    task.cancel()
    answer(connection)
    with pytest.raises(asyncio.CancelledError):
        await task
    other = await asked(connection, 4)
    await clock.pass_s(2)
    assert connection.lost is None
    answer(connection)
    assert await other == b"PONG"


async def test_an_answer_that_comes_with_the_end_of_the_time_is_given(clock: Clock) -> None:
    """In the same turn of a busy loop, before it: the answer is there, so the connection is not deaf."""
    connection = connected()
    asyncio.get_running_loop().call_at(clock.now + 0.9, answer, connection)
    task = await asked(connection, 1)
    clock.now += 2
    assert await task == b"PONG"
    assert connection.lost is None


async def test_all_whose_time_is_up_at_once_hear_so(clock: Clock) -> None:
    """The first of them ends the connection, which is no news to the others: their submissions may have been done."""
    connection = connected()
    tasks = [await asked(connection, 1) for _ in range(8)]
    await clock.pass_s(1.1)
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in told] == [StoreTimeout] * 8
    assert connection.lost is not None


async def test_a_connection_whose_callers_left_is_not_left_to_the_collector(clock: Clock) -> None:
    """In an outage that would be many, each kept by the error that one of its callers got."""
    connection = connected()
    task = await asked(connection, 1)
    gone = weakref.ref(connection)
    gc.collect()
    gc.disable()
    try:
        await clock.pass_s(1.1)
        with pytest.raises(StoreTimeout):
            await task
        connection.connection_lost(None)
        del connection, task
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()


async def test_a_slow_connection_that_answers_is_kept(clock: Clock) -> None:
    """One read that takes too long must not take the others with it: the last of ten leaves, and each gets its own."""
    connection = connected()
    first = [await asked(connection, 5) for _ in range(10)]
    await left(connection, 1)
    late = await asked(connection, 1)
    for task in first:
        await clock.pass_s(0.4)
        answer(connection)
        assert await task == b"PONG"
    with pytest.raises(StoreTimeout):
        await late
    assert connection.lost is None and connection.outstanding == 2


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_connection_that_falls_silent_is_given_up(clock: Clock, leaves: bool) -> None:
    """Whether its caller left before the time was up or not; as long after the last byte as the caller would wait."""
    connection = connected()
    before, patient = await asked(connection, 5), await asked(connection, 5)
    if leaves:
        await left(connection, 1)
    else:
        late = await asked(connection, 1)
    await clock.pass_s(0.7)
    answer(connection)
    assert await before == b"PONG"
    await clock.pass_s(0.7)
    assert connection.lost is None
    if not leaves:
        with pytest.raises(StoreTimeout):
            await late
    await clock.pass_s(0.4)
    with pytest.raises(StoreUnavailable, match="no answer within 1 s"):
        await patient
    assert connection.lost is not None


async def test_an_answer_that_is_owed_for_ever_ends_the_connection(clock: Clock) -> None:
    """However steadily others come: what was left would pile up in a Redis that cannot keep pace."""
    connection = connected()
    first = [await asked(connection, 60) for _ in range(20)]
    await left(connection, 1)
    for task in first[:12]:
        await clock.pass_s(0.4)
        answer(connection)
        assert await task == b"PONG"
    await clock.pass_s(0.4)
    for task in first[12:]:
        with pytest.raises(StoreUnavailable, match="an answer is owed for 5 s"):
            await task


async def test_an_impatient_caller_takes_no_connection_for_deaf(clock: Clock) -> None:
    """Whose own deadline has almost passed says nothing about the others' connection."""
    connection = connected()
    patient = await asked(connection, 5)
    await left(connection, 0.05)
    await clock.pass_s(0.2)
    assert connection.lost is None
    await clock.pass_s(0.4)
    with pytest.raises(StoreUnavailable):
        await patient


async def test_a_replica_that_was_the_master_is_left(clock: Clock) -> None:
    """The refusal of a write tells that who is the master must be asked again."""
    connection = connected()
    task = await asked(connection, 5)
    answer(connection, b"-READONLY You can't write against a read only replica.\r\n")
    with pytest.raises(StoreUnavailable, match="READONLY"):
        await task
    assert connection.lost is not None and connection.lost.answered
