"""A worker whose Redis refuses, hangs or answers late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import worker_harness
from chaos.proxy import FaultProxy
from headrace.runtime import drain
from headrace.settings import Durabilities, Fsync, Replicated
from headrace.task import State
from redis_server import RedisServer, await_true
from worker_harness import Desk, counting, endless, eventually, working

impatient = partial(worker_harness.impatient, durability_timeout_s=0.1)


async def test_a_replica_costs_no_connections(start_redis: Callable[..., RedisServer], caplog: Any) -> None:
    """A worker that was sent to a replica tries again and again, with one connection at a time and few words."""
    replica = start_redis(replica_of=start_redis())
    await asyncio.to_thread(await_true, lambda: replica.redis.info("replication")["master_link_status"] == "up")
    app, _ = counting()
    with caplog.at_level(logging.INFO):
        async with working(app, replica.url) as one:

            async def tried() -> bool:
                return one.stats.redis_errors >= 6

            await eventually(tried)
            held = [each for each in replica.redis.client_list() if each["name"] == "headrace-claims"]
            assert len(held) <= 1
    said = [record for record in caplog.records if "READONLY" in record.getMessage()]
    assert 1 <= len(said) <= 2


@pytest.mark.parametrize(("denied", "said"), [("-blpop", "permission"), ("-xreadgroup", "XREADGROUP is refused")])
async def test_denied_commands_do_not_make_a_worker_spin(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture, denied: str, said: str
) -> None:
    """Without the right to wait, or to claim, it reconnects ever more slowly and says why once."""
    server = start_redis(acl=["user default on nopass ~* &* +@all", f"user shop on >w0rd ~hr:* +@all {denied}"])
    app, _ = counting()
    with caplog.at_level(logging.INFO):
        async with Desk(server.url) as desk, working(app, server.url_for("shop", "w0rd")):
            await desk.submit("count")

            async def refused() -> bool:
                return said in caplog.text

            await eventually(refused)
            before = server.redis.info("stats")["total_connections_received"]
            await asyncio.sleep(1.0)
            after = server.redis.info("stats")["total_connections_received"]
    assert after - before < 10
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) <= 4, caplog.text


async def test_fsync_without_an_aof_claims_nothing_and_says_what_to_set(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as the server can keep the promise, work goes on."""
    server = start_redis()
    app, runs = counting()
    durability = Durabilities({"default": Fsync()})
    async with Desk(server.url) as desk, working(app, server.url, durability=durability):
        task = await desk.submit("count")

        async def said() -> bool:
            return "appendonly yes" in caplog.text

        await eventually(said)
        assert runs == []
        server.redis.config_set("appendonly", "yes")
        server.redis.config_set("appendfsync", "always")
        assert (await desk.ended(task)).state is State.COMPLETED


async def test_a_drain_hands_back_though_reports_cannot_be_confirmed(
    desk: Desk, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its replica nothing is confirmed; what outlasts the grace is returned free of charge all the same."""
    monkeypatch.setattr(drain, "REPORT_S", 0.5)
    app, _ = counting()
    begun = endless(app)

    lonely = Durabilities({"default": Replicated(1)})
    slow = {"beat_s": 30, "dead_after_s": 100}  # no beat comes and returns it by reconciling
    async with working(app, redis_url, grace_s=0.05, durability=lonely, durability_timeout_s=0.05, **slow) as one:
        done, kept = await desk.submit("count"), await desk.submit("endless")
        await begun.wait()
        assert (await desk.ended(done)).state is State.COMPLETED
        assert one._claims["default"].unreported == 1
    seen = await desk.look(kept)
    assert seen.state is State.PENDING and (seen.counters.crashes, seen.counters.interruptions) == (0, 1)


async def test_half_open_connections_are_noticed(desk: Desk, redis_server: RedisServer, redis_url: str) -> None:
    """Nobody resets them: the worker itself gives a request up that has no answer, and connects anew."""
    app, runs = counting()
    async with FaultProxy(redis_server.port) as proxy, impatient(app, proxy.url, dead_after_s=60):
        await desk.ended(await desk.submit("count"))
        proxy.forget()
        task = await desk.submit("count")
        assert (await desk.ended(task)).state is State.COMPLETED
    assert len(runs) == 2


async def test_a_claim_that_is_out_when_the_stop_comes_is_returned(desk: Desk, redis_server: RedisServer) -> None:
    """Its reply is late: what it brings is handed back, not begun, while what ran before ends within the grace."""
    app, runs = counting()
    begun, go = asyncio.Event(), asyncio.Event()

    @app.task()
    async def held() -> None:
        begun.set()
        await go.wait()

    async with LateReplies(redis_server.port) as proxy:
        async with working(app, proxy.url, concurrency=2) as one:
            first = await desk.submit("held")
            await begun.wait()
            proxy.hold()
            task = await desk.submit("count")
            await desk.until(task, lambda seen: seen.state is State.PROCESSING)
            one.stop()
            await asyncio.sleep(0)
            proxy.pass_on()
            seen = await desk.until(task, lambda seen: seen.state is not State.PROCESSING)
            go.set()
        assert (await desk.look(first)).state is State.COMPLETED
    assert runs == [] and seen.state is State.PENDING and seen.counters.interruptions == 1
    assert await desk.client.call(desk.queue.workers()) == []


class LateReplies(FaultProxy):
    """Requests pass; replies of cycles wait while they are held."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.go = asyncio.Event()
        self.go.set()

    def hold(self) -> None:
        self.go.clear()

    def pass_on(self) -> None:
        self.go.set()

    async def _hold(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        claim = data.count(b"\r\n") > 8 and b'"t":"count"' in data
        if claim and self._is_home(writer):
            await self.go.wait()
