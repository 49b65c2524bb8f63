"""Pools that have nothing to do cost a look and no more, nobody notices that they rest; no Redis delays another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from headrace.broker.demand import Demand, GroupMissingError, Unchanged
from headrace.redis_settings import RedisSettings
from headrace_operator.caps import Caps
from headrace_operator.cluster import ClusterError
from headrace_operator.decide import Decision, Reason
from headrace_operator.fleet import Key
from headrace_operator.history import History, remember, rested
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.manifests import Ref
from headrace_operator.observed import Observed, QueueLoad
from headrace_operator.spec import read_spec
from operator_kit import KEY, MemoryCluster, Opener, Scene, resource


def rests(pool: Scene) -> bool:
    """Whether the next tick leaves the pool out, if nothing changes."""
    return pool.loop.pools[KEY].rests(pool.loop.look, pool.cluster.fleet(KEY), pool.now.s)


async def at_rest(pool: Scene) -> Scene:
    await pool.ticks(3)
    assert rests(pool)
    return pool


async def test_a_pool_at_rest_wakes_by_a_task(scene: Opener) -> None:
    pool = await at_rest(scene())
    await pool.submit(5)
    await pool.tick()
    assert (pool.replicas, pool.condition("Ready")["reason"]) == (1, "Progressing")
    assert not rests(pool)


async def test_a_pool_at_rest_wakes_by_a_change_of_its_resource(scene: Opener) -> None:
    pool = await at_rest(scene())
    pool.change(scaling={"minReplicas": 2})
    await pool.tick()
    assert pool.replicas == 2


async def test_a_pool_at_rest_sees_that_its_deployment_is_gone(scene: Opener) -> None:
    pool = await at_rest(scene())
    del pool.cluster.fleets[KEY]
    await pool.tick()
    assert pool.cluster.writes.count(("apply", KEY)) == 2


async def test_a_pool_at_rest_sees_who_writes_its_number(scene: Opener) -> None:
    pool = await at_rest(scene())
    pool.cluster.fleets[KEY] = replace(pool.cluster.fleet(KEY), asked_for=3)
    await pool.ticks(2)
    assert "ReplicasConflict" in pool.told


async def test_a_pool_at_rest_tells_that_redis_is_away(scene: Opener, redis_server: Any) -> None:
    pool = await at_rest(scene())
    await pool.client.command("CONFIG", "SET", "requirepass", "changed")
    try:
        await pool.looker.aclose()
        await pool.tick()
        assert pool.condition("QueueReachable")["status"] == "False"
    finally:
        await pool.client.command("CONFIG", "SET", "requirepass", "")


@pytest.mark.parametrize(
    "spec",
    [
        {"scaling": {"minReplicas": 1}},
        {"scaling": {"schedules": [{"name": "day", "start": "0 8 * * *", "end": "0 18 * * *", "minReplicas": 1}]}},
    ],
    ids=["runs something", "moved by time"],
)
async def test_who_does_not_rest(scene: Opener, spec: dict[str, Any]) -> None:
    pool = scene(**spec)
    await pool.ticks(5)
    assert not rests(pool)


async def test_a_pool_of_nothing_rests_while_its_rollout_is_not_over(scene: Opener) -> None:
    """A thousand new Deployments keep the controllers busy for minutes; the end of each rollout is a change."""
    pool = scene()
    await pool.tick()
    pool.cluster.fleets[KEY] = replace(pool.cluster.fleet(KEY), rollout=True)
    await at_rest(pool)
    assert pool.loop.resting == 1
    pool.cluster.fleets[KEY] = replace(pool.cluster.fleet(KEY), rollout=False, version="9")
    assert not rests(pool)
    await at_rest(pool)
    await pool.submit(5)
    await pool.tick()
    assert pool.loop.resting == 0


async def test_what_was_not_shown_yet_keeps_a_pool_awake(scene: Opener) -> None:
    pool = scene()
    pool.cluster.broken = ClusterError("the API server does not answer")
    await pool.ticks(3)
    assert not rests(pool)
    pool.cluster.broken = None
    await at_rest(pool)
    assert pool.cluster.statuses["emails"]["conditions"]


@pytest.mark.parametrize("window_s", [0, 30, 300])
@pytest.mark.parametrize("pause_s", [1, 29, 31, 400])
def test_a_rest_leaves_the_history_of_all_the_looks_it_spared(window_s: int, pause_s: int) -> None:
    scaling = read_spec(
        resource(scaling={"behavior": {"scaleUp": {"stabilizationWindowSeconds": window_s}}})["spec"]
    ).scaling
    idle = Decision(0, 0, Reason.IDLE, "")
    seen = Observed((QueueLoad("default", 0),), 0)
    start = remember(History(0.0), scaling, seen, Decision(0, 4, Reason.QUEUE_WAIT, ""), 1.0)
    start = remember(start, scaling, seen, idle, 2.0)
    closely = start
    for second in range(3, 3 + pause_s):
        closely = remember(closely, scaling, seen, idle, float(second))
    lazily = rested(start, scaling, float(2 + pause_s))
    for now_s in range(3 + pause_s, 3 + pause_s + window_s + 2):
        for width in (0, window_s, 300):
            assert set(lazily.needed_since(now_s - width, 0)) == set(closely.needed_since(now_s - width, 0))
    assert lazily.idle_since_s == closely.idle_since_s


# a Redis that never answers


async def until(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not good():  # noqa: ASYNC110 - the loop of the operator makes it so
            await asyncio.sleep(0.01)


@asynccontextmanager
async def mute() -> AsyncIterator[int]:
    """A port that takes connections and says nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_a_redis_that_never_answers_delays_only_its_own_pools(redis_url: str) -> None:
    """Ten looks a second at the sound one go on, while every look at the other one ends by its time limit."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(mute())
        looker = Looker({
            "default": RedisSettings.parse(redis_url, "the test"),
            "mute": RedisSettings.parse(f"redis://127.0.0.1:{port}", "the test"),
        })  # fmt: skip
        stack.push_async_callback(looker.aclose)
        cluster = MemoryCluster()
        loop = ControlLoop(cluster, looker, tick_s=0.1, caps=Caps())
        stack.push_async_callback(loop.aclose)
        loop.saw_pool(resource(scaling={"minReplicas": 1}))
        other = resource(redis={"connection": "mute"})
        other["metadata"] |= {"name": "stuck", "uid": "uid-2"}
        loop.saw_pool(other)
        began = time.monotonic()
        running = asyncio.create_task(loop.run())
        stack.callback(running.cancel)
        await until(lambda: cluster.fleet(KEY).asked_for == 1)
        assert time.monotonic() - began < 1, "its first step did not wait for the other Redis"
        await until(lambda: "stuck" in cluster.statuses)
        conditions = {each["type"]: each for each in cluster.statuses["stuck"]["conditions"]}
        assert conditions["QueueReachable"]["status"] == "False"
        assert "no answer within" in conditions["QueueReachable"]["message"]
        assert not cluster.fleet(Key("shop", "stuck")).asked_for
        before = loop.numbers.ticks
        await asyncio.sleep(1)
        assert loop.numbers.ticks - before >= 5


def reply(now_ms: int, waiting: int = 0, oldest: bytes = b"", asked: tuple[bytes, ...] = ()) -> list[Any]:
    """What Redis says of a queue of one stream."""
    return [[b"1", waiting, 0, oldest], 0, 0, 0, 0, str(now_ms).encode(), [], list(asked)]


def test_a_look_that_finds_nothing_new_gives_the_same_object() -> None:
    read = Unchanged()
    first = read(reply(1_000))
    assert read(reply(2_000)) is first
    assert read(reply(3_000, waiting=1, oldest=b"2500-0")) == Demand(
        1, 0, 0, 0, 0, 0.5, False, {}, {}, plain_oldest_s=0.5
    )
    assert read(reply(4_000)) == first


def test_what_grows_with_time_is_read_anew_each_time() -> None:
    read = Unchanged()
    ages = [read(reply(now_ms, waiting=1, oldest=b"1000-0")).oldest_s for now_ms in (2_000, 3_000)]
    asked = [read(reply(now_ms, asked=(b"w", b"1000 7"))).asked for now_ms in (2_000, 3_000)]
    assert (ages, asked) == ([1.0, 2.0], [{"w": 1.0}, {"w": 2.0}])


def test_a_lost_group_is_told_also_after_a_good_look() -> None:
    read = Unchanged()
    read(reply(1_000))
    lost = reply(2_000)
    lost[0] = [b"1", 0, b"", b""]
    with pytest.raises(GroupMissingError, match="lost its consumer group"):
        read(lost)


async def test_a_resource_that_changes_while_its_status_is_written_is_carried_on(scene: Opener) -> None:
    """Else the pool would rest as it was decided before, and nothing would wake it."""
    pool = scene(mode="External", replicas=0)
    shown = pool.cluster.show

    async def show(ref: Ref, status: dict[str, Any]) -> None:
        await shown(ref, status)
        if pool.generation == 1:
            pool.change(mode="External", replicas=2)

    pool.cluster.show = show  # type: ignore[assignment,method-assign] # the moment that matters
    await pool.ticks(3)
    assert pool.replicas == 2
