"""Whatever is wrong with Redis, at no, one and seven replicas: nothing is scaled, it is said, and a tick heals it.

Ten minutes each, by a clock that the test moves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import pytest

from chaos.proxy import FaultProxy
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from operator_kit import Scene
from redis_server import RedisServer

TEN_MINUTES_S: Final = 600
NOWHERE: Final = 1
"""A port on which nobody listens."""


@dataclass
class Bench:
    """A pool that reaches its Redis by a line that can be cut, and a line of the test's own."""

    pool: Scene
    line: FaultProxy
    redis: AsyncClient
    port: int

    @property
    def stream(self) -> str:
        """Where its tasks wait."""
        return self.pool.queue.keys["1"]


@pytest.fixture
async def bench(redis_server: RedisServer, redis_url: str) -> AsyncIterator[Bench]:
    async with FaultProxy(redis_server.port) as line:
        pool, redis = Scene(line.url), AsyncClient(RedisSettings.parse(redis_url, "the test"))
        try:
            yield Bench(pool, line, redis, redis_server.port)
        finally:
            await redis.command("CONFIG", "SET", "requirepass", "")
            await redis.command("ACL", "SETUSER", "default", "+@all")
            await pool.aclose()
            await redis.aclose()


Act = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, what is said of it, and how it ends."""

    name: str
    says: str
    strike: Act
    heal: Act
    tick_s: float = 10.0
    """A look at what does not answer takes two seconds: fewer and longer ticks then."""

    def __str__(self) -> str:
        return self.name


def commands(*lines: str) -> Act:
    """`STREAM` stands for the one with the tasks."""

    async def send(bench: Bench) -> None:
        for line in lines:
            await bench.redis.command(*(bench.stream if word == "STREAM" else word for word in line.split(" ")))

    return send


async def refuse(bench: Bench) -> None:
    bench.line.target = NOWHERE
    bench.line.reset()


async def connect(bench: Bench) -> None:
    bench.line.target = bench.port


async def fall_silent(bench: Bench) -> None:
    bench.line.blackhole()


async def speak(bench: Bench) -> None:
    bench.line.heal()


async def lock_out(bench: Bench) -> None:
    await bench.redis.command("CONFIG", "SET", "requirepass", "another")
    bench.line.reset()


async def let_in(bench: Bench) -> None:
    await bench.redis.command("CONFIG", "SET", "requirepass", "")


async def take_entries(bench: Bench) -> None:
    """Somebody deletes entries that are claimed: fewer are there than are held."""
    await bench.pool.submit()
    await bench.pool.claim("emails-0", 100)
    for entry, *_ in await bench.redis.command("XRANGE", bench.stream, "-", "+"):
        await bench.redis.command("XDEL", bench.stream, entry)


async def acknowledge(bench: Bench) -> None:
    for entry, *_ in await bench.redis.command("XPENDING", bench.stream, "g", "-", "+", "10000"):
        await bench.redis.command("XACK", bench.stream, "g", entry)


TROUBLES: Final = [
    Trouble("unreachable", "", refuse, connect),
    Trouble("silent", "no answer within", fall_silent, speak, tick_s=200),
    Trouble("wrong password", "NOAUTH", lock_out, let_in),
    Trouble("no rights", "NOPERM", commands("ACL SETUSER default -evalsha"), commands("ACL SETUSER default +@all")),
    Trouble("depth below zero", "something foreign deleted", take_entries, acknowledge),
    Trouble("no stream", "WRONGTYPE", commands("DEL STREAM", "SET STREAM x"), commands("DEL STREAM")),
]  # fmt: skip


@pytest.mark.parametrize("replicas", [0, 1, 7])
@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_ten_minutes_of_trouble_scale_nothing(bench: Bench, trouble: Trouble, replicas: int) -> None:
    pool = await with_replicas(bench, replicas)
    before, began = [*pool.cluster.scalings], pool.now.s
    await trouble.strike(bench)
    while pool.now.s - began < TEN_MINUTES_S:
        await pool.tick(trouble.tick_s)
        assert pool.condition("QueueReachable")["status"] == "False"
    assert trouble.says in pool.condition("QueueReachable")["message"]
    assert pool.condition("Ready")["reason"] == "QueueUnreachable"
    assert pool.cluster.scalings == before and pool.replicas == replicas
    assert 1 <= pool.told.count("QueueUnreachable") <= 3, "said, and no flood"
    await trouble.heal(bench)
    await pool.tick()
    assert pool.condition("QueueReachable")["status"] == "True"
    await is_led_on(pool)


@pytest.mark.parametrize("replicas", [0, 1, 7])
@pytest.mark.parametrize("lost", ["XGROUP DESTROY STREAM g", "DEL STREAM"], ids=["NOGROUP", "nil depth"])
async def test_a_group_that_is_lost_is_an_error_of_one_tick(bench: Bench, lost: str, replicas: int) -> None:
    """The next look makes it again; until then nobody knows how much waits."""
    pool = await with_replicas(bench, replicas)
    before = [*pool.cluster.scalings]
    for _ in range(10):
        await commands(lost)(bench)
        await pool.tick()
        assert "lost its consumer group" in pool.condition("QueueReachable")["message"]
        await pool.tick()
        assert pool.condition("QueueReachable")["status"] == "True"
    assert pool.cluster.scalings == before and pool.replicas == replicas
    await is_led_on(pool)


async def with_replicas(bench: Bench, replicas: int) -> Scene:
    await bench.pool.submit(replicas * 50)
    await bench.pool.tick()
    assert bench.pool.replicas == replicas
    return bench.pool


async def is_led_on(pool: Scene) -> None:
    await pool.submit(1_000)
    await pool.tick()
    assert pool.replicas == 20
