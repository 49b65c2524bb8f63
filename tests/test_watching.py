"""The tasks that end, as a program sees them: `app.watch()`, with real workers on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from itertools import pairwise

import pytest

from chaos.proxy import FaultProxy
from headrace import App, Ctx, InvalidRequest, State, StoreUnavailable, TaskCall, UnknownTask, WrongCaller, watching
from headrace.broker.broker import TaskView
from headrace.broker.client import AsyncClient
from headrace.broker.keys import QueueKeys
from headrace.ended import Ended, Place
from headrace.queues import Caller, names
from headrace.redis_settings import RedisSettings
from headrace.task import new_id
from headrace.testing import Testing
from headrace.watching import EndedTask, Watchers, _told
from redis_server import RedisServer
from worker_harness import eventually, shares, working

BEGINNING = "0-0/default"
"""Before all that the journals hold."""
BOTH = shares("default", "mail")
Calls = tuple[App[None], Callable[[int], TaskCall[None]], Callable[[], TaskCall[None]]]


def shop(url: str) -> Calls:
    """An application with a type in the default queue, whose negative numbers fail, and one in `mail`."""
    app = App("shop", url=url)

    @app.task(max_retries=0)
    async def count(number: int) -> None:
        if number < 0:
            raise ValueError(f"{number} is below zero")

    @app.task(queue="mail")
    async def send() -> None: ...

    return app, count.call, send.call


async def take(tasks: AsyncGenerator[EndedTask, None], count: int) -> list[EndedTask]:
    """The next so many, and the end of the watch."""
    found: list[EndedTask] = []
    async with asyncio.timeout(10), aclosing(tasks):
        async for task in tasks:
            found.append(task)
            if len(found) == count:
                break
    return found


async def ended(app: App[None], url: str, *calls: TaskCall[None]) -> list[str]:
    """Tasks that were submitted and have ended, in this order."""
    async with working(app, url, queues=BOTH):
        ids = []
        for call in calls:
            batch = await app.abatch([call])
            await batch.aoutcomes(timeout=10)
            ids.append(batch[0].id)
    return ids


async def test_tasks_are_told_as_they_end(redis_url: str) -> None:
    app, count, send = shop(redis_url)
    async with app, working(app, redis_url, queues=BOTH):
        tasks = app.watch()
        first = asyncio.create_task(anext(tasks))
        await eventually(lambda: _is_read(redis_url))
        batch = await app.abatch([count(-1)])
        failed = await asyncio.wait_for(first, 10)
        sent = await app.abatch([send()])
        [done] = await take(tasks, 1)
    assert (failed.id, failed.queue, failed.type, failed.status) == (batch[0].id, "default", "count", State.FAILED)
    assert failed.at is not None and datetime.fromisoformat(failed.at).tzinfo is not None
    assert (done.id, done.queue, done.type, done.status, done.gap) == (
        sent[0].id,
        "mail",
        "send",
        State.COMPLETED,
        False,
    )


async def _is_read(url: str) -> int:
    """How many connections wait for what ends."""
    client = AsyncClient(RedisSettings.parse(url, "the test"))
    try:
        lines = (await client.command("CLIENT", "LIST")).decode().splitlines()
    finally:
        await client.aclose()
    return sum(" name=headrace-ended " in line and " cmd=xread " in line for line in lines)


async def test_another_watch_goes_on_behind_the_last_one(redis_url: str) -> None:
    app, count, _ = shop(redis_url)
    async with app:
        ids = await ended(app, redis_url, *map(count, range(6)))
        whole = await take(app.watch(last_id=BEGINNING), 6)
        for at, seen in enumerate(whole[:-1]):
            rest = await take(app.watch(last_id=seen.last_id), 5 - at)
            assert [(task.id, task.gap) for task in rest] == [(each, False) for each in ids[at + 1 :]]
    assert [task.id for task in whole] == ids


async def test_only_the_wanted_queues_and_types_are_told(redis_url: str) -> None:
    app, count, send = shop(redis_url)
    async with app:
        ids = await ended(app, redis_url, count(1), send(), count(2), send())
        for options, wanted in (
            ({"queues": ["mail"]}, ids[1::2]),
            ({"queues": "mail"}, ids[1::2]),
            ({"types": ["cou*"]}, ids[::2]),
            ({"queues": ["mail"], "types": ["send"]}, ids[1::2]),
        ):
            assert [task.id for task in await take(app.watch(**options, last_id=BEGINNING), 2)] == wanted


async def test_many_watches_cost_redis_one_reader(redis_url: str) -> None:
    app, count, _ = shop(redis_url)
    async with app, working(app, redis_url):
        watching = [asyncio.create_task(take(app.watch(), 1)) for _ in range(5)]
        await eventually(lambda: _is_read(redis_url))
        batch = await app.abatch([count(1)])
        told = await asyncio.gather(*watching)
        assert await _is_read(redis_url) <= 1
    assert {task.id for [task] in told} == {batch[0].id}


async def test_who_is_slow_is_told_all_the_same(redis_url: str) -> None:
    """Only a few wait in memory; the others are read again from the journals."""
    app, count, _ = shop(redis_url)
    async with app:
        client, settings = app.connections.reach()
        watchers = Watchers(client, settings.namespace, most=3)
        found = []
        async with aclosing(watchers.follow((), (), Place(0, 0, "default"))) as tasks:
            ids = await ended(app, redis_url, *map(count, range(4)))
            found += [(await anext(tasks)).id]
            [watch] = watchers._open
            async with asyncio.timeout(20):
                while not watch._behind:
                    ids += await ended(app, redis_url, count(1), count(2))
            found += [(await asyncio.wait_for(anext(tasks), 10)).id for _ in ids[1:]]
        await watchers.aclose()
    assert found == ids


async def test_a_connection_that_is_lost_loses_no_task(redis_url: str) -> None:
    app, count, _ = shop(redis_url)
    async with app:
        await ended(app, redis_url, count(0))  # so that there is a journal to read
        watching = asyncio.create_task(take(app.watch(), 2))
        await eventually(lambda: _is_read(redis_url))
        first = await ended(app, redis_url, count(1))
        client, _ = app.connections.reach()
        lines = (await client.command("CLIENT", "LIST")).decode().splitlines()
        [reader] = [line.split(" ")[0].removeprefix("id=") for line in lines if " name=headrace-ended " in line]
        await client.command("CLIENT", "KILL", "ID", reader)
        second = await ended(app, redis_url, count(2))
        assert [task.id for task in await watching] == first + second


async def test_what_the_journal_holds_no_more_is_a_gap(redis_url: str) -> None:
    app, count, _ = shop(redis_url)
    async with app:
        ids = await ended(app, redis_url, *map(count, range(4)))
        first, *_ = await take(app.watch(last_id=BEGINNING), 1)
        client, settings = app.connections.reach()
        await client.command("XTRIM", QueueKeys(settings.namespace, "default")["journal"], "MAXLEN", 1)
        [last] = await take(app.watch(last_id=first.last_id), 1)
    assert (last.id, last.gap) == (ids[-1], True)


def test_one_goes_on_only_behind_the_last_task_of_a_place() -> None:
    """Workers report several ends at once, which are one entry of the journal."""
    together, later = Place(5, 0, "default"), Place(6, 1, "default")
    rows = [
        Ended(place, name, "count", State.COMPLETED) for place, name in ((together, "a"), (together, "b"), (later, "c"))
    ]
    told = list(_told(rows, Place(4, 2, "mail"), gap=True))
    assert [(task.id, task.last_id, task.gap) for task in told] == [
        ("a", "4-2/mail", True),
        ("b", "5-0/default", False),
        ("c", "6-1/default", False),
    ]


async def test_closing_the_app_ends_its_watches(redis_url: str) -> None:
    app, count, _ = shop(redis_url)
    await ended(app, redis_url, count(1))  # so that there is a journal to read
    watching = asyncio.create_task(take(app.watch(), 1))
    await eventually(lambda: _is_read(redis_url))
    await app.aclose()
    assert await asyncio.wait_for(watching, 10) == []
    assert await _is_read(redis_url) == 0


async def test_one_task_is_followed_to_its_end(redis_url: str) -> None:
    """Each change once, with its progress; its end at once."""
    app: App[None] = App("shop", url=redis_url)
    go_on = asyncio.Event()

    @app.task()
    async def paint(ctx: Ctx) -> int:
        await ctx.progress(1, 2)
        await go_on.wait()
        return 7

    async with app:
        handle = await paint.aenqueue()
        seen: list[TaskView] = []
        async with asyncio.timeout(20), aclosing(handle.awatch()) as changes:
            seen.append(await anext(changes))
            async with working(app, redis_url):
                async for each in changes:
                    seen.append(each)
                    if each.progress is not None:
                        go_on.set()
    assert list(dict.fromkeys(each.state for each in seen)) == [State.PENDING, State.PROCESSING, State.COMPLETED]
    assert all(one != other for one, other in pairwise(seen))
    assert [each.progress.done for each in seen if each.progress] == [1.0]
    assert bytes(seen[-1].result or b"") == b"7"


async def test_closing_the_app_ends_the_watch_of_a_task(redis_url: str) -> None:
    app, count, _ = shop(redis_url)
    [handle] = await app.abatch([count(1)])
    changes = handle.awatch()
    assert (await anext(changes)).state is State.PENDING
    following = asyncio.create_task(anext(changes, None))
    await asyncio.sleep(0)
    await app.aclose()
    assert await asyncio.wait_for(following, 5) is None


async def test_an_unknown_task_cannot_be_followed(redis_url: str) -> None:
    app: App[None] = App("shop", url=redis_url)

    @app.task()
    async def paint() -> None: ...

    async with app:
        with pytest.raises(UnknownTask):
            await anext(paint.handle(new_id("default")).awatch())


async def test_a_task_is_followed_without_a_server(headrace: Testing) -> None:
    app, count, _ = shop("redis://127.0.0.1:1")
    [handle] = await app.abatch([count(1)])
    assert [seen.state async for seen in handle.awatch()] == [State.PENDING, State.COMPLETED]


@pytest.mark.parametrize("last_id", ["", BEGINNING])
async def test_closing_the_app_ends_a_watch_that_has_not_begun_because_redis_went_away(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch, last_id: str
) -> None:
    """Away between its first look, which would have said so, and the reading."""
    gone = asyncio.Event()

    async def look(client: Caller, namespace: str) -> list[str]:
        found = await names(client, namespace)
        proxy.blackhole()
        gone.set()
        return found

    monkeypatch.setattr(watching, "names", look)
    async with FaultProxy(redis_server.port) as proxy:
        app = App("shop", url=proxy.url)
        tasks = asyncio.create_task(take(app.watch(last_id=last_id), 1))
        await gone.wait()
        await asyncio.sleep(0)  # from the look's end to where it waits for the reader
        await app.aclose()
        assert await asyncio.wait_for(tasks, 5) == []


async def test_closing_the_app_ends_a_watch_that_takes_its_first_look(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def look(client: Caller, namespace: str) -> list[str]:
        looking.set()
        await go_on.wait()
        return []

    monkeypatch.setattr(watching, "names", look)
    app = App("shop", url=redis_url)
    tasks = asyncio.create_task(take(app.watch(), 1))
    await looking.wait()
    await app.aclose()
    go_on.set()
    assert await asyncio.wait_for(tasks, 5) == []
    assert await _is_read(redis_url) == 0


@pytest.mark.parametrize("last_id", ["7", "0-0", "0-0/No Queue", "nonsense"])
def test_a_last_id_that_is_none_is_refused_at_the_call(last_id: str) -> None:
    with pytest.raises(InvalidRequest, match="/last_id"):
        App("shop", url="redis://127.0.0.1:1").watch(last_id=last_id)


async def test_a_redis_that_is_away_is_told_where_it_begins() -> None:
    async with App("shop", url="redis://127.0.0.1:1") as app:
        with pytest.raises(StoreUnavailable):
            await anext(app.watch())


async def test_a_test_without_a_server_has_nothing_to_watch(headrace: Testing) -> None:
    with pytest.raises(WrongCaller, match=r"headrace\.testing has tasks to run"):
        await anext(App("shop", url="redis://127.0.0.1:1").watch())
