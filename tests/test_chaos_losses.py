"""What is lost under which setting of Redis: it is killed under load, alone and with a replica that takes over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from chaos.rounds import dice, rounds, tell
from conftest import StartRedis
from headrace.broker.broker import NewTask, Queue
from headrace.broker.client import AsyncClient
from headrace.errors import HeadraceError
from headrace.redis_settings import RedisSettings
from headrace.settings import Durability, Fsync, Local, Replicated
from headrace.task import Envelope, encode_envelope, new_id
from headrace_cli.redis_binary import RedisBinary
from redis_server import Options, RedisServer, SentinelSet, await_true
from worker_harness import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

QUEUE = Queue("default")
WRITERS = 8
WITHIN_S = 2.0
"""What `everysec` may lose."""
Acked = dict[str, float]
"""Id → when it was acknowledged."""


def new() -> NewTask:
    id_ = new_id()
    return NewTask(id_, encode_envelope(Envelope(1, 1, id_, type="t", created_ms=1)), 1)


async def acknowledged_until(url: str, durability: Durability, disaster: Callable[[Acked], Awaitable[object]]) -> Acked:
    """Submit with several clients until the disaster is over. What was acknowledged before it."""
    settings = replace(RedisSettings.parse(url, "the test"), connect_timeout_s=0.2)
    acked, over = Acked(), asyncio.Event()

    async def write(client: AsyncClient) -> None:
        while not over.is_set():
            tasks = [new() for _ in range(10)]
            try:
                await client.call(QUEUE.submit(tasks, touch=True), durability, timeout_s=0.3)
            except HeadraceError:
                await asyncio.sleep(0.01)
            else:
                acked.update(dict.fromkeys((task.id for task in tasks), time.monotonic()))

    clients = [AsyncClient(settings) for _ in range(WRITERS)]
    await clients[0].call(QUEUE.init())
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(write(client))
        await disaster(acked)
        over.set()
    for client in clients:
        await client.aclose()
    return acked


async def lost_at(url: str, ids: Iterable[str]) -> set[str]:
    """Which of them are unknown there."""
    client, wanted, lost = AsyncClient(RedisSettings.parse(url, "the test")), list(ids), set[str]()

    async def loaded() -> bool:
        try:
            return bool(await client.command("PING"))
        except HeadraceError:
            return False

    await eventually(loaded)
    for at in range(0, len(wanted), 100):
        some = wanted[at : at + 100]
        found = await client.call(QUEUE.find(some))
        lost |= {id_ for id_, one in zip(some, found, strict=True) if one is None}
    await client.aclose()
    return lost


def follows(replica: RedisServer) -> bool:
    return bool(replica.redis.info("replication")["master_link_status"] == "up")


def _replicated(master: RedisServer) -> float:
    """What the master answered before that time stands on its replica too."""
    now = time.monotonic()
    with master.redis.client() as one:  # WAIT is for what its own connection wrote
        one.set("mark", 1)
        assert one.wait(1, 10_000) == 1
    return now


async def _many(acked: Acked) -> bool:
    return len(acked) > 50


CRASHES: tuple[tuple[str, Options, Durability], ...] = (
    ("no AOF, local", Options(), Local()),
    ("everysec, local", Options(appendfsync="everysec"), Local()),
    ("always, local", Options(appendfsync="always"), Local()),
    ("always, fsync", Options(appendfsync="always"), Fsync()),
    ("everysec, fsync", Options(appendfsync="everysec"), Fsync()),
)


@pytest.mark.parametrize(("name", "options", "durability"), CRASHES, ids=[name for name, *_ in CRASHES])
async def test_a_crash_of_redis_loses_no_more_than_its_setting_says(
    start_redis: StartRedis, name: str, options: Options, durability: Durability
) -> None:
    """kill -9 under eight writers, and started again on what it left."""
    rng, total, missing = dice(name), 0, 0
    for _ in range(rounds(1, 10)):
        server = start_redis(**options)
        if name == "everysec, fsync" and server.version < (7, 2):
            pytest.skip("WAITAOF came with Redis 7.2")

        async def killed(acked: Acked, server: RedisServer = server) -> None:
            await eventually(partial(_many, acked))
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            await asyncio.to_thread(server.kill)

        acked = await acknowledged_until(server.url, durability, killed)
        await asyncio.to_thread(server.start)
        lost = await lost_at(server.url, acked)
        total, missing = total + len(acked), missing + len(lost)
        match name:
            case "no AOF, local":
                assert lost == acked.keys()
            case "everysec, local":
                assert all(max(acked.values()) - acked[each] <= WITHIN_S for each in lost)
            case _:
                assert lost == set()
        server.kill()
    tell(f"crash with {name}: {missing} of {total} lost")


@pytest.mark.parametrize("durability", [Local(), Replicated(1)], ids=["local", "replicated:1"])
async def test_a_failover_loses_no_more_than_its_durability_says(
    start_redis: StartRedis, durability: Durability
) -> None:
    """The replica lags for a moment, the master is killed, the replica is made the master."""
    rng, total, missing = dice(f"failover {durability}"), 0, 0
    for _ in range(rounds(1, 10)):
        master = start_redis(appendfsync="always")
        replica = start_redis(appendfsync="always", replica_of=master)
        await asyncio.to_thread(await_true, partial(follows, replica))
        began = 0.0

        async def failed_over(acked: Acked, master: RedisServer = master, replica: RedisServer = replica) -> None:
            nonlocal began
            await eventually(partial(_many, acked))
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            began = await asyncio.to_thread(_replicated, master)
            replica.freeze()
            await asyncio.sleep(rng.uniform(0.1, 0.4))
            await asyncio.to_thread(master.kill)
            replica.thaw()
            await asyncio.to_thread(replica.redis.replicaof, "NO", "ONE")

        acked = await acknowledged_until(master.url, durability, failed_over)
        lost = await lost_at(replica.url, acked)
        total, missing = total + len(acked), missing + len(lost)
        if isinstance(durability, Replicated):
            assert lost == set()
        else:
            assert all(acked[each] > began for each in lost), "only what was acknowledged while it lagged"
        replica.kill()
    tell(f"failover with {durability}: {missing} of {total} lost")


def cut_off(group: SentinelSet) -> None:
    """Its link to the master ends, and each new one is refused; the sentinels still reach both."""
    group.replica.redis.config_set("masterauth", "what the master does not take")
    group.master.redis.execute_command("CLIENT", "KILL", "TYPE", "replica")
    await_true(lambda: not follows(group.replica))


async def failover(group: SentinelSet, durability: Durability, rng: Random) -> tuple[Acked, set[str]]:
    """The master dies while the replica is cut off, and the sentinels promote that. What was acknowledged, and lost."""
    began = 0.0

    async def killed_behind_the_cut(acked: Acked) -> None:
        nonlocal began
        await eventually(partial(_many, acked))
        await asyncio.sleep(rng.uniform(0.0, 0.4))
        began = await asyncio.to_thread(_replicated, group.master)
        await asyncio.to_thread(cut_off, group)
        # Not longer than four seconds: such a replica is none that Sentinel promotes with its setting in these tests.
        await asyncio.sleep(rng.choice((0.3, 0.6, 1.2, rounds(1, 3))))
        await asyncio.to_thread(group.master.kill)
        group.replica.redis.config_set("masterauth", "")

    acked = await acknowledged_until(group.url, durability, killed_behind_the_cut)

    await asyncio.to_thread(await_true, lambda: group.master_port() == group.replica.port, 30)
    lost = await lost_at(group.url, acked)
    assert all(acked[each] > began for each in lost), "only what was acknowledged while it was cut off"
    return acked, lost


@pytest.mark.parametrize("durability", [Local(), Replicated(1)], ids=["local", "replicated:1"])
@pytest.mark.timeout(900)
async def test_a_failover_by_sentinels_loses_no_more_than_its_durability_says(
    redis_binary: RedisBinary, durability: Durability
) -> None:
    """The control, `local`, loses in each round what was acknowledged behind the cut: else the cut is none."""
    rng, total, missing = dice(f"sentinels {durability}"), 0, 0
    for _ in range(rounds(1, 20)):
        group = SentinelSet(redis_binary)
        await asyncio.to_thread(group.__enter__)
        try:
            acked, lost = await failover(group, durability, rng)
        finally:
            await asyncio.to_thread(group.__exit__)
        assert bool(lost) is isinstance(durability, Local), f"{len(lost)} of {len(acked)} are lost"
        total, missing = total + len(acked), missing + len(lost)
    tell(f"failover by sentinels with {durability}: {missing} of {total} lost")
