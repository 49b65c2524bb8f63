"""The model against a Redis that is killed, and answers that replicas must confirm."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import StartRedis
from headrace.broker.broker import Queue
from model_desk import Desk
from model_dump import prepare
from model_end import heal
from model_explorer import Step, wander, weights_of
from model_redis import RefusedError, Wire
from model_task import QUEUE, new, task_id
from model_world import World
from redis_server import RedisServer, await_true

A, B = task_id(1), task_id(2)


def kill_and_start(world: World, server: RedisServer) -> None:
    """All connections break, nothing on the way arrives; what Redis answered must be there again."""
    for conn in list(world.conns):
        if conn.is_open:
            world.cut(conn)
    for conn in world.conns:
        conn.requests.clear()
    world.tidy()
    world.wire.close()
    server.kill()
    server.start()
    world.wire = Wire(server.socket)
    prepare(world.wire)
    world.set_memory(False)
    world.model.forget_idle_consumers()
    world.reread()
    world.at_once(world.calls.init(f"boot {server.pid}"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_an_append_only_file_a_killed_redis_comes_back_as_it_was(start_redis: StartRedis, seed: int) -> None:
    server = start_redis(appendfsync="always")
    dice, trace = random.Random(seed), list[Step]()
    weights = weights_of(dice, "balanced")
    world = World(Wire(server.socket))
    try:
        for restart in range(6):
            wander(world, dice, 80, weights, trace)
            if restart % 2:
                world.wire.command("BGREWRITEAOF")
            kill_and_start(world, server)
        heal(world)
    finally:
        world.wire.close()
    assert world.counts["call cycle"] > 10


@dataclass(frozen=True)
class Photo:
    """An older state, in Redis and in the model."""

    values: dict[bytes, tuple[int, bytes]]
    """Key → time to live in ms (0 = for ever), value as DUMP gives it."""
    model: dict[str, Any]

    @classmethod
    def of(cls, world: World) -> Photo:
        values = {}
        for key in world.wire.command("KEYS", "*"):
            left, value = world.wire.pipeline(("PTTL", key), ("DUMP", key))
            values[key] = (max(0, left), value)
        kept = {name: value for name, value in vars(world.model).items() if name not in {"saw", "full_memory", "keys"}}
        return cls(values, copy.deepcopy(kept))

    def restore(self, world: World) -> None:
        """Redis and model go back; processes and clients remember what they remember."""
        world.wire.command("FLUSHDB")
        for key, (left, value) in self.values.items():
            world.wire.command("RESTORE", key, left, value)
        vars(world.model).update(copy.deepcopy(self.model))
        world.states.clear()
        world.lost_time = True
        world.excused = world.excused_suspects = True
        world.reread()
        world.at_once(world.calls.init(f"restored {world.counts['calls']}"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_redis_that_lost_its_last_moments_is_gone_on_with(redis_server: RedisServer, seed: int) -> None:
    """An older state comes back, as after a crash under everysec or from a backup; nothing gets stuck or disagrees."""
    redis_server.ensure()
    dice, trace = random.Random(seed), list[Step]()
    weights = weights_of(dice, "balanced")
    with Wire(redis_server.socket) as wire:
        world = World(wire)
        try:
            for _ in range(5):
                wander(world, dice, 80, weights, trace)
                photo = Photo.of(world)
                wander(world, dice, 80, weights, trace)
                await_another_ms(wire)
                world.set_memory(False)
                photo.restore(world)
            heal(world)
        finally:
            world.set_memory(False)
    assert world.counts["processing → completed"] > 5


def await_another_ms(wire: Wire) -> None:
    """Else an entry written now could get the id of one that was lost."""
    before = wire.command("TIME")
    while wire.command("TIME")[0] == before[0] and int(wire.command("TIME")[1]) - int(before[1]) < 1_000:
        pass


DeskAt = Callable[[RedisServer], Desk]


@pytest.fixture
def desk_at() -> Iterator[DeskAt]:
    """Desks that are closed at the end."""
    with ExitStack() as stack:

        def open_one(server: RedisServer) -> Desk:
            desk = Desk.at(server.socket)
            stack.callback(desk.wire.close)
            return desk

        yield open_one


def wait(desk: Desk, ms: int) -> int:
    """Replicas that confirm what this connection wrote."""
    return int(desk.wire.command("WAIT", 1, ms))


def test_a_resend_behind_a_frozen_replica_is_not_confirmed(start_redis: StartRedis, desk_at: DeskAt) -> None:
    """The first answer was lost, the second one adds nothing: it must write all the same, or WAIT says yes."""
    master = start_redis()
    replica = start_redis(replica_of=master)
    await_true(lambda: replica.redis.info("replication")["master_link_status"] == "up")
    desk = desk_at(master)
    desk.submit(new(A), new(B))
    report = desk.one().report("completed")
    dead = desk.one()
    desk.report(dead.report("failed"))
    assert wait(desk, 5_000) == 1
    replica.freeze()
    desk.submit(new(task_id(3)))
    desk.report(report)
    desk.replay(B, dead.place)
    resent = desk_at(master)
    assert resent.submit(new(task_id(3)), touch=True) == ["known"]
    assert wait(resent, 50) == 0
    assert resent.cycle("w", 0, [report], touch=True).verdicts == {report.place: b"dup"}
    assert wait(resent, 50) == 0
    assert resent.wire.run(resent.queue.replay(B, dead.place, touch=True)) == "pending"
    assert wait(resent, 50) == 0
    replica.thaw()
    assert wait(resent, 5_000) == 1


def test_too_few_replicas_refuse_what_writes_and_nothing_is_half_done(start_redis: StartRedis, desk_at: DeskAt) -> None:
    desk = desk_at(start_redis())
    desk.submit(new(A))
    claim = desk.one()
    desk.wire.command("CONFIG", "SET", "min-replicas-to-write", "1")
    for refused in (lambda: desk.submit(new(B)), lambda: desk.report(claim.report("completed")), desk.promote):
        with pytest.raises(RefusedError, match="NOREPLICAS"):
            refused()
    assert desk.state(A) == "processing"
    desk.wire.command("CONFIG", "SET", "min-replicas-to-write", "0")
    assert desk.report(claim.report("completed")) == []


def test_an_init_after_a_restart_starts_another_epoch(start_redis: StartRedis) -> None:
    server = start_redis(appendfsync="always")
    with Wire(server.socket) as wire:
        first = wire.run(Queue(QUEUE).init(str(server.redis.info("server")["run_id"])))[0]
    server.kill()
    server.start()
    with Wire(server.socket) as wire:
        second = wire.run(Queue(QUEUE).init(str(server.redis.info("server")["run_id"])))[0]
    assert second > first
