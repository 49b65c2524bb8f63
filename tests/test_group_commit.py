"""What coroutines of one loop submit at the same time shares calls; each hears of its own tasks only."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace import App, QueueFull, StoreFull, TaskConflict
from headrace.broker.broker import NewTask, Submitted
from headrace.broker.group_commit import GroupCommit
from headrace.handle import Handle
from redis_server import RedisServer


def counting(url: str) -> tuple[App[None], Any]:
    app = App("shop", url=url)

    @app.task()
    async def count(number: int) -> None: ...

    return app, count


def calls(server: RedisServer) -> int:
    """Script calls so far."""
    return int(server.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


async def payload_of(app: App[None], handle: Handle[None]) -> bytes:
    seen = await app.connections.arun(lambda client: client.look("default", handle.id))
    assert seen.envelope is not None
    return bytes(seen.envelope.payload)


async def test_who_submits_at_once_shares_calls(redis_server: RedisServer, redis_url: str) -> None:
    """The first goes at once, the others a hundred a call; each has the handle of a task of its own."""
    app, count = counting(redis_url)
    async with app:
        await count.aenqueue(0)
        before = calls(redis_server)
        handles: list[Handle[None]] = await asyncio.gather(*(count.aenqueue(number) for number in range(150)))
        assert calls(redis_server) - before == 3
        assert len({handle.id for handle in handles}) == 150
        payloads = [await payload_of(app, handle) for handle in handles[::50]]
    assert payloads == [b'{"number":0}', b'{"number":50}', b'{"number":100}']


async def test_a_full_queue_takes_what_fits_and_refuses_the_rest(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "7")
    app, count = counting(redis_url)
    async with app:
        answers = await asyncio.gather(*(count.aenqueue(n) for n in range(20)), return_exceptions=True)
    assert Counter(map(type, answers)) == {Handle: 7, QueueFull: 13}


async def test_a_conflict_is_told_to_its_own_caller_alone(redis_url: str) -> None:
    app, count = counting(redis_url)
    async with app:
        first = await count.using(key="order-1").aenqueue(1)
        mixed = (count.aenqueue(2), count.using(key="order-1").aenqueue(3), count.using(key="order-1").aenqueue(1))
        plain, conflict, same = list[Any](await asyncio.gather(*mixed, return_exceptions=True))
    assert isinstance(plain, Handle) and isinstance(conflict, TaskConflict)
    assert same.id == first.id


async def test_a_batch_is_stored_whole_or_not_at_all_beside_others(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that does not fit leaves its room to those who do."""
    monkeypatch.setenv("HEADRACE_MAX_DEPTH", "7")
    app, count = counting(redis_url)
    async with app:
        await count.aenqueue(0)
        several = [count.aenqueue(n) for n in range(3)]
        batch = app.abatch(count.call(n) for n in range(5))
        answers = await asyncio.gather(*several, batch, *(count.aenqueue(n) for n in range(2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Handle] * 3 + [QueueFull] + [Handle] * 2


async def test_who_leaves_disturbs_nobody(redis_url: str) -> None:
    app, count = counting(redis_url)
    async with app:
        tasks = [asyncio.create_task(count.aenqueue(n)) for n in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Handle] * 3 + [asyncio.CancelledError] + [Handle] * 6


async def test_at_full_memory_every_caller_is_told_so_with_an_error_of_its_own(start_redis: StartRedis) -> None:
    server = start_redis()
    app, count = counting(server.url)
    async with app:
        await count.aenqueue(0)
        server.redis.config_set("maxmemory", "1")
        answers = await asyncio.gather(*(count.aenqueue(n) for n in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreFull] * 5
    assert len({id(answer) for answer in answers}) == 5


class Way:
    """A group commit, and how many tasks each of its calls had."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.group_commit = GroupCommit(self._send, "here")

    async def _send(self, tasks: list[NewTask], began: float) -> list[Submitted]:
        self.sizes.append(len(tasks))
        await asyncio.sleep(0)
        return [Submitted(task.id, "new") for task in tasks]

    async def submit(self, name: str) -> None:
        [answer] = await self.group_commit.submit([NewTask(name, b"", 0)])
        assert answer == Submitted(name, "new")


async def a_crowd(way: Way) -> None:
    await asyncio.gather(*(way.submit(name) for name in "abc"))
    assert way.sizes == [1, 2]


async def test_who_comes_alone_after_a_group_waits_for_the_end_of_this_turn_and_no_longer() -> None:
    way = Way()
    await a_crowd(way)
    lone = asyncio.create_task(way.submit("d"))
    await asyncio.sleep(0)  # it has come
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn
    assert way.sizes == [1, 2, 1]
    await lone
    # Nobody shared its call, so the next one goes at once again: before anything else of the loop is done.
    following = way.submit("e")
    following.send(None)
    assert way.sizes == [1, 2, 1, 1]
    following.close()


async def test_closing_waits_also_for_what_has_not_set_out_yet() -> None:
    way = Way()
    await a_crowd(way)
    lone = asyncio.create_task(way.submit("d"))
    await asyncio.sleep(0)
    assert way.sizes == [1, 2]
    await way.group_commit.aclose()
    assert (way.sizes, way.group_commit.busy) == ([1, 2, 1], False)
    await lone


async def test_closing_an_app_first_stores_what_was_submitted(redis_server: RedisServer, redis_url: str) -> None:
    """Else those who wait would try again, by a connection that nobody closes."""
    async with FaultProxy(redis_server.port) as proxy:
        app, count = counting(proxy.url)
        async with app:
            await count.aenqueue(0)
            proxy.delay_s = 0.05
            calls = [asyncio.create_task(count.aenqueue(number)) for number in range(3)]
            await asyncio.sleep(0)  # they have set out
        handles = await asyncio.gather(*calls)
        assert len({handle.id for handle in handles}) == 3
        async with asyncio.timeout(20):
            while proxy._writers:  # noqa: ASYNC110 - it notices by itself
                await asyncio.sleep(0.005)


async def test_callers_that_come_back_go_in_two_groups_by_turns() -> None:
    """In one group Redis and they would wait for each other; few of them go together all the same."""

    async def come_back(way: Way) -> None:
        for _ in range(20):
            await way.submit("t")

    async def groups(callers: int) -> list[int]:
        way = Way()
        await asyncio.gather(*(come_back(way) for _ in range(callers)))
        await way.group_commit.aclose()
        return way.sizes[5:-5]

    assert set(await groups(64)) == {32}
    assert max(await groups(5)) == 4
