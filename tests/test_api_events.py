"""Watching over HTTP: one task until it ends, all as they end; what is resumed, dropped, hidden, and what it costs."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import aiohttp
import pytest

import openapi_check
from api_kit import EMAIL, Api, Claim, running
from conftest import StartRedis
from headrace import ended
from headrace.broker.broker import Queue
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_api import bulk_driver, follow, hub, overview, services, sse
from headrace_api.server import serving

EVENTS: Final = "/api/v1/events"


async def eventually(look: Callable[[], Any], timeout_s: float = 5.0) -> None:
    """Until what has arrived is as it should be."""
    async with asyncio.timeout(timeout_s):
        while not look():  # noqa: ASYNC110 - it happens on the other side of a socket
            await asyncio.sleep(0.005)


@dataclass
class Event:
    """One event as a browser would tell it."""

    name: str
    data: Any
    id: str


@dataclass
class Stream:
    """What arrives on one stream."""

    reply: aiohttp.ClientResponse
    path: str
    events: list[Event] = field(default_factory=list)
    comments: int = 0
    over: bool = False
    _last_id: str = ""

    async def read(self) -> None:
        """Until the server ends it."""
        name, data = "message", []
        async for raw in self.reply.content:
            line = raw.decode().rstrip("\n")
            key, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif key == "event":
                name = value
            elif key == "id":
                self._last_id = value
            elif key == "data":
                data.append(value)
            elif not line and data:
                self._take(name, json.loads("\n".join(data)))
                name, data = "message", []
        self.over = True

    def _take(self, name: str, data: Any) -> None:
        """The OpenAPI document has to know it."""
        found = openapi_check.operation_of("GET", self.path)
        assert found is not None
        kinds = found[1]["responses"]["200"]["content"]["text/event-stream"]["schema"]["oneOf"]
        told = {each["properties"]["event"]["const"]: each["properties"]["data"]["contentSchema"] for each in kinds}
        schema = told[name]
        assert openapi_check.mismatch(schema, data) is None
        self.events.append(Event(name, data, self._last_id))

    def of(self, name: str) -> list[Any]:
        """The data of all events of this name."""
        return [each.data for each in self.events if each.name == name]

    @property
    def ended(self) -> list[str]:
        return [each["id"] for each in self.of("ended")]


@asynccontextmanager
async def watching(api: Api, path: str = EVENTS, last_id: str = "", token: str = "") -> AsyncIterator[Stream]:
    """A stream that has begun: its first event is there."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    async with api.session.get(api.url + path, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        assert reply.headers["Content-Type"] == "text/event-stream"
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Request-Id"]
        stream = Stream(reply, path.partition("?")[0])
        reading = asyncio.create_task(stream.read())
        try:
            await eventually(lambda: bool(stream.events) or stream.over)
            yield stream
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def ends(api: Api, count: int = 1, outcome: str = "completed", **task: Any) -> list[str]:
    """Tasks that a worker ends, each with a call of its own. Their ids."""
    made = [await api.submitted(EMAIL | task) for _ in range(count)]
    for claim in await api.worker.claim(count, task.get("queue", "default")):
        await api.worker.report(claim.report(outcome), queue=task.get("queue", "default"))
    return made


class Gate:
    """A sleep that lasts until the test ends it."""

    def __init__(self) -> None:
        self._asleep: set[asyncio.Event] = set()

    async def sleep(self, seconds: float) -> None:
        awake = asyncio.Event()
        self._asleep.add(awake)
        try:
            await awake.wait()
        finally:
            self._asleep.discard(awake)

    async def round(self) -> None:
        """Whoever sleeps wakes and does what it does, until somebody sleeps again."""
        await eventually(lambda: self._asleep)
        awake = self._asleep.copy()
        for each in awake:
            each.set()
        await eventually(lambda: self._asleep - awake)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> tuple[Gate, Gate]:
    """What is done again and again for streams is done when the test says so: what a hub does, and what a follow."""
    hubs, follows = Gate(), Gate()
    monkeypatch.setattr(services, "Hub", partial(hub.Hub, sleep=hubs.sleep))
    monkeypatch.setattr(services, "Follow", partial(follow.Follow, sleep=follows.sleep))
    for module, name, value in ((ended, "BLOCK_MS", 60_000), (ended, "NAMES_S", 3_600), (overview, "FRESH_S", 0),
                                (bulk_driver, "LOOK_S", 3_600)):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    return hubs, follows


async def test_tasks_are_told_as_they_end(redis_url: str) -> None:
    """With queue, type and how; also those of a queue that is new, and those that were cancelled."""
    async with running(redis_url) as api, watching(api) as stream:
        [done] = await ends(api)
        [failed] = await ends(api, outcome="failed", queue="other", type="resize")
        cancelled = await api.submitted(EMAIL)
        await api.ask("DELETE", f"/api/v1/tasks/{cancelled}")
        await eventually(lambda: len(stream.ended) == 3)
    told = {each["id"]: (each["queue"], each["type"], each["status"]) for each in stream.of("ended")}
    assert told == {
        done: ("default", "send_email", "completed"),
        failed: ("other", "resize", "failed"),
        cancelled: ("default", "send_email", "cancelled"),
    }


async def test_the_overview_comes_first_and_when_it_changes(redis_url: str) -> None:
    """The same as /api/v1/stats."""
    async with running(redis_url) as api:
        await api.submitted()
        async with watching(api) as stream:
            assert stream.of("overview") == [(await api.get("/api/v1/stats")).json]
            await api.submitted()
            await eventually(lambda: stream.of("overview")[-1]["pending"] == 2)
            assert stream.of("overview")[-1]["queues"]["default"]["pending"] == 2


async def test_an_overview_that_has_not_changed_is_not_told_again(redis_url: str, by_hand: tuple[Gate, Gate]) -> None:
    """Neither to who has just come, nor to those who see the same since longer."""
    async with running(redis_url) as api:
        await api.submitted()
        async with watching(api) as first:
            await by_hand[0].round()
            await api.submitted()
            async with watching(api) as second:
                await by_hand[0].round()
                [_] = await ends(api)
                await eventually(partial(all_heard, [first, second], 1))
    assert [each["pending"] for each in first.of("overview")] == [1, 2]
    assert [each["pending"] for each in second.of("overview")] == [2]


async def test_a_stream_goes_on_where_it_broke_off(redis_url: str) -> None:
    """From any event on: all that follows it, once, in the same order; also from the first overview on."""
    async with running(redis_url) as api:
        await ends(api, queue="quiet")
        async with watching(api) as first:
            for queue in ("default", "other", "default", "third", "other"):
                await ends(api, 2, queue=queue)
            await eventually(lambda: len(first.ended) == 10)
        begun, *later = [each for each in first.events if each.name == "ended" or each is first.events[0]]
        for at, each in enumerate([begun, *later]):
            async with watching(api, last_id=each.id) as again:
                assert again.ended == first.ended[at:]
                assert not again.of("gap")
        async with watching(api, last_id=begun.id) as again:
            [more] = await ends(api)
            await eventually(lambda: len(again.ended) == 11)
            assert again.ended == [*first.ended, more]


async def test_one_report_of_many_tasks_is_resumed_whole(redis_url: str) -> None:
    """Its tasks have one place; whoever saw a part of them is told all again, rather than miss some."""
    async with running(redis_url) as api, watching(api) as stream:
        for _ in range(5):
            await api.submitted()
        claims = await api.worker.claim()
        await api.worker.report(*(claim.report("completed") for claim in claims))
        await eventually(lambda: len(stream.ended) == 5)
        told = [each for each in stream.events if each.name == "ended"]
        assert len({each.id for each in told[:4]}) == 1
        assert told[3].id == stream.events[0].id
        assert told[4].id != told[3].id


@pytest.mark.parametrize(("query", "expected"), [
    ("?queue=a", {"a1", "a2"}),
    ("?queue=a,b", {"a1", "a2", "b1"}),
    ("?type=image.*", {"a2", "b1"}),
    ("?type=send_email&queue=a", {"a1"}),
])  # fmt: skip
async def test_queues_and_types_are_chosen(redis_url: str, query: str, expected: set[str]) -> None:
    """A parameter each; the overview counts the same queues."""
    async with running(redis_url) as api:
        await api.submitted(EMAIL | {"queue": "a"})
        await api.submitted(EMAIL | {"queue": "c"})
        await api.worker.claim(9, "a")
        async with watching(api, EVENTS + query) as stream, watching(api) as everything:
            made = {
                "a1": await ends(api, queue="a"),
                "a2": await ends(api, queue="a", type="image.resize"),
                "b1": await ends(api, queue="b", type="image.crop"),
                "c1": await ends(api, queue="c"),
            }
            await eventually(lambda: len(everything.ended) == 4)
            await eventually(lambda: len(stream.ended) == len(expected))
        assert set(stream.ended) == {id_ for name in expected for id_ in made[name]}
        seen = stream.of("overview")[0]["queues"]
        assert set(seen) == ({"a", "c"} if "queue" not in query else {"a"})


async def test_a_token_sees_the_queues_that_it_covers(redis_url: str) -> None:
    """In events, in overviews, and in what was missed; a queue that it names and does not cover is 403."""
    mine, all_ = "the-secret-of-mine-0123456789", "the-secret-of-all-0123456789"
    tokens = f"mine:{mine} scope=read queue=mine-*, all:{all_}"
    async with running(redis_url, all_, tokens=tokens) as api:
        async with watching(api) as everything, watching(api, token=mine) as stream:
            [hidden], [shown] = await ends(api, queue="hidden"), await ends(api, queue="mine-1")
            await eventually(lambda: set(everything.ended) == {hidden, shown} and stream.ended == [shown])
            await eventually(lambda: set(stream.of("overview")[-1]["queues"]) == {"mine-1"})
        async with watching(api, last_id="0-0/mine-1", token=mine) as again:
            assert again.ended == [shown]
        async with watching(api, token=mine) as new:
            assert new.events[0].id.endswith("/mine-1"), "an id names no queue that is hidden"
        refused = await api.get(EVENTS + "?queue=hidden", headers={"Authorization": f"Bearer {mine}"})
    assert refused.code == "forbidden_queue"
    assert hidden not in str(stream.events)


@pytest.mark.parametrize(("query", "code"), [
    ("?queue=UPPER", "invalid_filter"),
    ("?type=a b", "invalid_filter"),
    ("?seconds=-1", "bad_query"),
    ("?since=1h", "bad_query"),
])  # fmt: skip
async def test_what_cannot_be_watched_is_refused(redis_url: str, query: str, code: str) -> None:
    """Before the stream begins."""
    async with running(redis_url) as api:
        answer = await api.get(EVENTS + query)
    assert (answer.status, answer.code) == (400, code)


async def test_a_gap_is_told_when_the_journal_was_cut(redis_url: str) -> None:
    """And when the id is none; what is left of the journal follows."""
    async with running(redis_url) as api:
        async with watching(api) as stream:
            await ends(api, 3)
            await eventually(lambda: len(stream.ended) == 3)
        before, last = stream.events[0].id, next(each.id for each in stream.events[::-1] if each.name == "ended")
        await api.worker.client.command("XTRIM", Queue("default").keys["journal"], "MAXLEN", 1)
        async with watching(api, last_id=before) as cut, watching(api, last_id=last) as whole:
            assert len(cut.of("gap")) == 1
            assert cut.ended == stream.ended[-1:]
            assert [each.name for each in whole.events] == ["overview"]


@pytest.mark.parametrize("last_id", ["x\u00e4", f"1-{2**64}/default", f"{2**64}-1/default"])
async def test_an_id_that_is_none_of_the_stream_is_told(redis_url: str, last_id: str) -> None:
    """Redis is not asked for places that cannot be."""
    async with running(redis_url) as api:
        await ends(api)
        async with watching(api, last_id=last_id) as stream:
            assert "none of this stream" in stream.of("gap")[0]["detail"]


async def test_who_comes_again_before_anything_has_ended_missed_nothing(redis_url: str) -> None:
    """There is a queue, and no journal of it yet."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        async with watching(api) as first:
            last_id = first.events[0].id
        async with watching(api, last_id=last_id) as again:
            assert [each.name for each in again.events] == ["overview"]
        assert (await api.ask("DELETE", f"/api/v1/tasks/{task_id}")).status == 200
        async with watching(api, last_id=last_id) as later:
            assert [each.name for each in later.events] == ["ended", "overview"]
            assert later.ended == [task_id]


def narrow(port: int) -> socket.socket:
    """A connection for which the kernel takes little: else it may take all that the test sends."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
    made.connect(("127.0.0.1", port))
    made.setblocking(False)
    return made


async def test_a_client_that_does_not_read_is_told_and_let_go(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number of bytes waits for it; then it has to come again. Others are not held up."""
    monkeypatch.setattr(hub, "MAX_WAITING", 200_000)
    async with running(redis_url) as api, watching(api) as good:
        await api.submitted()
        await eventually(lambda: good.of("overview")[-1]["queues"])
        reader, writer = await asyncio.open_connection(sock=narrow(api.port), limit=4_096)
        writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await reader.readuntil(b"event: overview")
        for n in range(200):  # more than the kernel takes for it
            line = f"{n} 2-1 completed {'x' * 100_000}"
            await api.worker.client.command("XADD", Queue("default").keys["journal"], "*", "e", line)
            if n % 10 == 9:  # not all in one batch, which would be sent whole
                await eventually(partial(all_heard, [good], n + 1), 20)
        told = b""
        async with asyncio.timeout(30):
            while chunk := await reader.read(1 << 20):
                told = told[-1_000:] + chunk
        assert b"event: lagged\n" in told
        assert told.endswith(b"0\r\n\r\n"), "the answer ends as it should"
        writer.close()
        await writer.wait_closed()


async def commands_of(api: Api, act: Callable[[], Any]) -> Counter[str]:
    """What Redis carried out meanwhile, by command."""

    async def counts() -> Counter[str]:
        text = (await api.worker.client.command("INFO", "commandstats")).decode()
        return Counter({name: int(n) for name, n in re.findall(r"cmdstat_([\w|]+):calls=(\d+)", text)})

    before = await counts()
    await act()
    return await counts() - before


def all_heard(streams: list[Stream], count: int) -> bool:
    return all(len(each.ended) == count for each in streams)


async def cost_of(redis_url: str, clients: int, by_hand: tuple[Gate, Gate]) -> Counter[str]:
    """What Redis carries out while so many watch all tasks, and so many one of them, and five tasks end."""
    hubs, follows = by_hand
    async with running(redis_url) as api, AsyncExitStack() as stack:
        await api.worker.client.command("FLUSHALL")
        paths = [EVENTS, f"/api/v1/tasks/{await api.submitted(EMAIL | {'queue': 'slow'})}/events"] * clients
        for _ in range(6):
            await api.submitted()
        claims = iter(await api.worker.claim())
        connector = aiohttp.TCPConnector(limit=0)
        many = Api(api.url, await stack.enter_async_context(aiohttp.ClientSession(connector=connector)), api.worker)
        streams = [await stack.enter_async_context(watching(many, path)) for path in paths]

        async def end_one(count: int) -> None:
            await api.worker.report(next(claims).report("completed"))
            await eventually(partial(all_heard, streams[::2], count))
            await hubs.round()
            await follows.round()
            await api.worker.somebody_blocks()

        await api.worker.somebody_blocks()
        await end_one(1)  # scripts are loaded once

        async def act() -> None:
            for count in range(2, 7):
                await end_one(count)

        return await commands_of(api, act)


async def test_a_hundred_clients_cost_redis_what_one_costs(redis_url: str, by_hand: tuple[Gate, Gate]) -> None:
    """Of both kinds of stream: what they look at is read once for all, to the last command."""
    one = await cost_of(redis_url, 1, by_hand)
    assert await cost_of(redis_url, 100, by_hand) == one
    assert one["xread"] == 5


async def test_heartbeats_keep_an_idle_stream(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, which no client is told of."""
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.02)
    async with running(redis_url) as api:
        task_id = await api.submitted()
        async with watching(api, f"/api/v1/tasks/{task_id}/events") as one, watching(api) as all_:
            await eventually(lambda: one.comments > 1 and all_.comments > 1)
            assert [each.name for each in one.events] == ["task"]


async def test_streams_end_when_the_process_stops(redis_url: str) -> None:
    """At once and properly: the last chunk comes, so no client takes it for a broken connection."""
    redis = RedisSettings.parse(redis_url, "the test")
    async with aiohttp.ClientSession() as session:
        async with serving(ApiSettings.from_env({}, port=0), redis, stop_s=10) as url:
            async with session.post(f"{url}/api/v1/tasks", json=EMAIL) as reply:
                task_id = (await reply.json())["task_id"]
            paths = (EVENTS, f"/api/v1/tasks/{task_id}/events")
            streams = [Stream(await session.get(url + path), path) for path in paths]
            reading = [asyncio.create_task(each.read()) for each in streams]
            await eventually(lambda: all(each.events for each in streams))
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 2
        await asyncio.gather(*reading)
        assert [each.over for each in streams] == [True, True]


async def test_a_stream_that_begins_while_the_process_stops_ends_at_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that there are were let go already when it begins."""
    asked, let_go = asyncio.Event(), asyncio.Event()
    sight, leave = services.Namespace.sight, services.Services.let_go

    async def sight_later(self: services.Namespace, task_id: str) -> follow.Sight:
        asked.set()
        await let_go.wait()
        return await sight(self, task_id)

    async def then_go_on(self: services.Services) -> None:
        await leave(self)
        let_go.set()

    monkeypatch.setattr(services.Namespace, "sight", sight_later)
    monkeypatch.setattr(services.Services, "let_go", then_go_on)
    redis = RedisSettings.parse(redis_url, "the test")
    async with aiohttp.ClientSession() as session:
        async with serving(ApiSettings.from_env({}, port=0), redis, stop_s=10) as url:
            async with session.post(f"{url}/api/v1/tasks", json=EMAIL) as reply:
                path = f"{reply.headers['Location']}/events"
            opening = asyncio.create_task(session.get(url + path))
            await asked.wait()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5
        stream = Stream(await opening, path)
        await stream.read()
        assert [each.name for each in stream.events] == ["task"]


async def test_a_stream_ends_with_its_token(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A token that was taken away sees nothing more."""
    monkeypatch.setattr("headrace_api.event_stream.HEARTBEAT_S", 0.02)
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr("headrace_api.token_file.LOOK_EVERY_S", 0.0)
    secret = "the-secret-of-one-0123456789"
    path = tmp_path / "tokens"
    path.write_text(f"one:{secret}\n")
    async with running(redis_url, secret, tokens_file=str(path)) as api, watching(api) as stream:
        path.write_text("other:the-secret-of-other-0123456789\n")
        await eventually(lambda: stream.over, 5)


async def test_when_redis_is_away_that_is_told(start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """And afterwards the overview, and what ended meanwhile; a stream that begins meanwhile is 503."""
    monkeypatch.setattr("headrace_api.store.DEADLINE_S", 30.0)  # for a machine that is busy
    redis = start_redis()
    async with running(redis.url) as api, watching(api) as stream:
        redis.kill()
        await eventually(lambda: bool(stream.of("unavailable")), 10)
        assert (await api.get(EVENTS)).status == 503
        redis.start()
        count = len(stream.of("overview"))
        await eventually(lambda: len(stream.of("overview")) > count, 10)
        [made] = await ends(api)
        await eventually(lambda: stream.ended == [made], 10)


# -- one task


def said_last(stream: Stream, done: int) -> bool:
    return [each["done"] for each in stream.of("progress")[-1:]] == [done]


async def claim_one(api: Api) -> Claim:
    [claim] = await api.worker.claim(1)
    return claim


async def test_a_task_is_watched_until_it_ends(redis_url: str) -> None:
    """All its states and its progress; then the stream ends, and who comes again is told to come no more."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        path = f"/api/v1/tasks/{task_id}/events"
        async with watching(api, path) as stream:
            claim = await claim_one(api)
            await eventually(lambda: stream.of("task")[-1]["status"] == "processing")
            for done in (1, 2):
                said = json.dumps({"done": done, "total": 9, "message": "m", "at": 1, "attempt": 1}).encode()
                await api.worker.client.call(Queue("default").progress("worker-1", (task_id, said)))
                await eventually(partial(said_last, stream, done))
            await api.worker.report(claim.report("completed", result=[1]))
            await eventually(lambda: stream.over)
        states = [each["status"] for each in stream.of("task")]
        assert states == ["pending", "processing", "completed"]
        assert stream.of("task")[-1] == await api.task(task_id)
        assert stream.events[-1].name == "task"
        again = await api.get(path, headers={"Last-Event-ID": stream.events[-1].id})
        assert (again.status, again.text) == (204, "")
        async with watching(api, path, last_id=stream.events[0].id) as once_more:
            await eventually(lambda: once_more.over)
            assert [each["status"] for each in once_more.of("task")] == ["completed"]


async def test_nothing_is_told_twice_to_who_comes_again(redis_url: str) -> None:
    """A task that has not changed since is not told anew; a running one, whose start is measured each time, neither."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        await claim_one(api)
        path = f"/api/v1/tasks/{task_id}/events"
        async with watching(api, path) as stream:
            await asyncio.sleep(0.6)
            assert [each.name for each in stream.events] == ["task"]
        answer = await api.get(path + "?seconds=0.6", headers={"Last-Event-ID": stream.events[0].id})
        assert "event:" not in answer.text


async def test_a_payload_with_line_breaks_stays_what_it_was(redis_url: str) -> None:
    """They are the client's own bytes, and would otherwise end a line of the stream."""
    body = b'{"type": "t",\n "payload": {"a":\r\n 1,\r"b": "\\n"}}'
    async with running(redis_url) as api:
        task_id = await api.submitted(body)
        async with watching(api, f"/api/v1/tasks/{task_id}/events") as stream:
            assert stream.of("task")[0]["payload"] == {"a": 1, "b": "\n"}


async def test_a_task_that_is_forgotten_ends_its_stream(redis_url: str) -> None:
    """It is gone, which is told."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        async with watching(api, f"/api/v1/tasks/{task_id}/events") as stream:
            await api.worker.client.command("FLUSHALL")
            await eventually(lambda: stream.over)
            assert stream.of("gone") == [{"id": task_id}]
        assert (await api.get(f"/api/v1/tasks/{task_id}/events")).code == "unknown_task"


async def test_head_of_a_stream_has_no_body(redis_url: str) -> None:
    """It ends at once."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        for path in (EVENTS, f"/api/v1/tasks/{task_id}/events"):
            answer = await api.ask("HEAD", path)
            assert (answer.status, answer.headers["Content-Type"], answer.text) == (200, "text/event-stream", "")
