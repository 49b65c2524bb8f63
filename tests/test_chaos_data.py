"""Failure modes of what lies in Redis: cut files, full disks, dead workers by the hundred, limits, times to live."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import aof
from chaos.calm import Watch
from chaos.rounds import dice, rounds, tell
from chaos.servers import FillableServer
from conftest import StartRedis
from headrace.broker.broker import NewTask, Queue
from headrace.broker.reclaiming import Reclaim, Reclaimed
from headrace_cli.redis_binary import RedisBinary
from model_desk import Desk
from model_dump import complaints, look
from model_redis import RefusedError
from model_task import Claim, new, task_id
from redis_server import RedisServer, await_true

pytestmark = pytest.mark.chaos


@pytest.fixture
def desk(redis_server: RedisServer, redis_url: str) -> Iterator[Desk]:
    desk = Desk.at(redis_server.socket)
    yield desk
    desk.wire.close()


def many(count: int, start: int = 1) -> list[NewTask]:
    return [new(task_id(number)) for number in range(start, start + count)]


def submit_all(desk: Desk, tasks: list[NewTask], max_depth: int = 0) -> list[str]:
    """As many calls as it takes."""
    return [
        said for at in range(0, len(tasks), 100) for said in desk.submit(*tasks[at : at + 100], max_depth=max_depth)
    ]


def claim_all(desk: Desk, worker: str = "w") -> list[Claim]:
    claims: list[Claim] = []
    while some := desk.claim(worker, 100):
        claims += some
    return claims


# F2


def test_two_hundred_dead_workers_are_cleared_away_and_their_tasks_stay(desk: Desk) -> None:
    """Each held a task, and died under a name that never comes again; the cleaner comes ten times to each."""
    submit_all(desk, many(200))
    for number in range(200):
        desk.one(f"dead-{number}")
    for number in range(200):
        assert desk.reclaim(f"dead-{number}") == ("done", 1)
        for _ in range(9):
            desk.reclaim(f"dead-{number}")
    assert desk.depth().live == desk.depth().waiting == 200
    consumers = [each for stream in look(desk.wire, desk.queue).streams.values() for each in stream.consumers]
    assert len(consumers) <= 10
    for number in range(200):
        desk.report(desk.one(f"alive-{number}").report("completed"), worker=f"alive-{number}")
    assert desk.completed() == 200


# F3


def test_a_full_queue_takes_its_limit_and_loses_none_of_it(desk: Desk) -> None:
    """5,000 are offered to a queue of 1,000 while it drains: what was taken is run, all of it and nothing else."""
    offered, taken, ran = many(5_000), set[str](), set[str]()
    for at in range(0, 5_000, 100):
        batch = offered[at : at + 100]
        said = desk.submit(*batch, max_depth=1_000)
        taken |= {task.id for task, status in zip(batch, said, strict=True) if status == "new"}
        assert desk.depth().live <= 1_000
        if at % 500 == 0:
            claims = desk.claim("w", 50)
            desk.report(*(claim.report("completed") for claim in claims))
            ran |= {claim.id for claim in claims}
    while claims := desk.claim("w", 100):
        desk.report(*(claim.report("completed") for claim in claims))
        ran |= {claim.id for claim in claims}
    assert ran == taken and 1_000 < len(taken) < 5_000


# F7


def life(desk: Desk, rng: random.Random, steps: int) -> list[str]:
    """Tasks submitted one by one while others are claimed and end. Returns the ids in order."""
    ids, claims = list[str](), list[Claim]()
    for _ in range(steps):
        match rng.randrange(3):
            case 0:
                ids.append(task_id(len(ids) + 1))
                desk.submit(new(ids[-1], priority=rng.randrange(4), delay_ms=rng.choice((0, 0, 5))))
            case 1:
                claims += desk.claim("w", 2)
            case _ if claims:
                claim = claims.pop(rng.randrange(len(claims)))
                outcome = rng.choice(("completed", "completed", "failed", "retrying"))
                desk.report(claim.report(outcome, 3 if outcome == "retrying" else ""))
    return ids


def test_an_append_only_file_that_was_cut_anywhere_loads(start_redis: StartRedis, tmp_path: Path) -> None:
    """As after a loss of power: a whole state comes up, and only the newest tasks are missing."""
    rng = dice("cut file")
    server = start_redis(appendfsync="always")
    desk = Desk.at(server.socket)
    begins = aof.tail(server).stat().st_size
    ids = life(desk, rng, 300)
    desk.wire.close()
    server.kill()
    size = aof.tail(server).stat().st_size
    aof.copy(server, tmp_path / "kept")
    for _ in range(rounds(5, 200)):
        aof.restore(server, tmp_path / "kept")
        kept = rng.randint(begins, size)
        aof.cut(server, kept)
        server.start()
        desk = Desk.at(server.socket)
        assert complaints(look(desk.wire, desk.queue)) == [], f"cut after {kept} bytes of {size}"
        there = [desk.state(id_) != "absent" for id_ in ids]
        assert there == sorted(there, reverse=True), f"cut after {kept} bytes: an older task is missing, a newer not"
        desk.wire.close()
        server.kill()


def test_a_file_that_is_spoilt_in_the_middle_is_refused_and_nothing_is_made_up(start_redis: StartRedis) -> None:
    """Redis says so and does not start, which is a server that is away."""
    server = start_redis(appendfsync="always")
    desk = Desk.at(server.socket)
    submit_all(desk, many(50))
    desk.wire.close()
    server.kill()
    aof.spoil(server)
    with pytest.raises(AssertionError, match="Bad file format"):
        server.start()


# F8


def test_nothing_that_lives_expires(desk: Desk) -> None:
    """Due in 40 days, running, retried in 30 days, parked: no key of a live task has a time to live."""
    day = 86_400_000
    desk.submit(new(task_id(1), delay_ms=40 * day), *many(3, start=2))
    retried, parked, _ = desk.claim("w", 3)
    desk.report(retried.report("retrying", 30 * day), parked.report("parked", "noop"))
    lives = {key: desk.wire.command("PTTL", key) for key in desk.wire.command("KEYS", "*")}
    assert {key: ttl for key, ttl in lives.items() if ttl != -1} == {}
    desk.now += 41 * day
    assert desk.promote() == 2
    assert desk.depth().live == 4


# F9


def test_dead_letters_replayed_by_fifty_at_once_run_once(desk: Desk) -> None:
    """Each of fifty replays the same thousand dead tasks, in its own order; every task starts over once."""
    count = rounds(200, 1_000)
    submit_all(desk, many(count))
    places = {}
    for claim in claim_all(desk):
        desk.report(claim.report("failed"))
        places[claim.id] = claim.place
    rng, said = dice("replay"), list[str]()
    orders = [(id_, who) for who in range(50) for id_ in rng.sample(sorted(places), count)]
    rng.shuffle(orders)
    for at in range(0, len(orders), 500):
        calls = [desk.queue.replay(id_, places[id_]) for id_, _ in orders[at : at + 500]]
        replies = desk.wire.pipeline(*(call.words for call in calls))
        said += [call.parse(reply) for call, reply in zip(calls, replies, strict=True)]
    assert said.count("replayed") == count and set(said) == {"replayed", "pending"}
    assert len(claim_all(desk)) == count


# F22


@pytest.fixture
def fillable(redis_binary: RedisBinary) -> Iterator[FillableServer]:
    with FillableServer(redis_binary, appendfsync="everysec") as server:
        yield server


def accepted_until_refused(desk: Desk, errors: tuple[type[Exception], ...]) -> list[str]:
    """Submits until one of these errors comes, which must. Ids of what was accepted."""
    accepted = list[str]()
    with pytest.raises(errors):
        for number in range(1, 100_000):
            desk.submit(new(task_id(number)))
            accepted.append(task_id(number))
    return accepted


def takes_one(desk: Desk) -> bool:
    try:
        return bool(desk.submit(new(task_id(200_000))))
    except RefusedError as error:
        assert str(error).startswith("MISCONF"), error
        return False


def missing(server: RedisServer, ids: list[str]) -> list[str]:
    desk = Desk.at(server.socket)
    absent = [id_ for id_ in ids if desk.state(id_) == "absent"]
    desk.wire.close()
    return absent


RECOVERY_S = 5.0


def test_a_full_disk_refuses_and_heals(fillable: FillableServer) -> None:
    """`everysec`: submissions are refused until there is room, and nothing that was accepted is missing."""
    desk = Desk.at(fillable.socket)
    submit_all(desk, many(50))
    fillable.fill_disk()
    accepted = accepted_until_refused(desk, (RefusedError,))
    assert fillable.runs and not takes_one(desk), "it goes on, and takes nothing"
    fillable.free_disk()
    watch = Watch(fillable.pid)
    await_true(lambda: takes_one(desk), 30)
    assert watch.own_s <= RECOVERY_S
    tell(f"full disk, everysec: {len(accepted)} accepted, submissions {watch.wall_s:.1f} s after there was room")
    fillable.kill()
    fillable.start()
    desk.wire.close()
    assert missing(fillable, accepted) == []


def test_a_full_disk_under_always_ends_redis_and_loses_nothing(redis_binary: RedisBinary) -> None:
    with FillableServer(redis_binary, appendfsync="always") as server:
        desk = Desk.at(server.socket)
        submit_all(desk, many(50))
        server.fill_disk(room=5_000)
        accepted = accepted_until_refused(desk, (ConnectionError,))
        assert accepted, "there was room for some"
        await_true(lambda: not server.runs)
        assert "AOF fsync policy is 'always'" in server.log(), "it says why it ended"
        server.kill()  # what is left of it: the new process is bounded by no disk
        watch = Watch()
        server.start()
        desk.wire.close()
        desk = Desk.at(server.socket)
        assert takes_one(desk)
        assert watch.own_s <= RECOVERY_S
        desk.wire.close()
        tell(f"full disk, always: {len(accepted)} accepted, submissions {watch.wall_s:.1f} s after its start")
        assert missing(server, accepted) == []


# F25


def memory_of(desk: Desk) -> dict[bytes, int]:
    """Key → bytes, of all but records."""
    keys = [key for key in desk.wire.command("SCAN", "0", "COUNT", 10_000)[1] if b":t:" not in key]
    return {key: int(desk.wire.command("MEMORY", "USAGE", key, "SAMPLES", 0)) for key in keys}


def run_and_forget(desk: Desk, count: int, start: int) -> None:
    """So many tasks are submitted and completed, a hundred at a time; then the time of their records is over."""
    for first in range(start, start + count, 100):
        tasks = many(min(100, start + count - first), first)
        desk.submit(*tasks)
        claims = desk.claim("w", 100)
        assert len(claims) == len(tasks)
        desk.report(*(claim.report("completed") for claim in claims))
        lives = desk.wire.pipeline(*(("TTL", desk.key("t") + task.id) for task in tasks))
        assert all(0 < seconds <= 86_400 for seconds in lives), "every record expires"
        desk.wire.command("UNLINK", *(desk.key("t") + task.id for task in tasks))


@pytest.mark.timeout(1_800)
def test_memory_does_not_grow_with_the_tasks_that_ended(desk: Desk) -> None:
    """Idle after 12,000 tasks, which fill the journal, and after many more: the same keys, as large as before."""
    count, warm = rounds(2_000, 1_000_000), 12_000
    desk.queue = Queue(desk.queue.name, journal_cap=100)  # lines, each of which tells here of a hundred tasks
    run_and_forget(desk, warm, 1)
    before = memory_of(desk)
    run_and_forget(desk, count, warm + 1)
    after = memory_of(desk)
    assert before.keys() == after.keys() and desk.is_idle()
    least, most = sorted((sum(before.values()), sum(after.values())))
    tell(f"{least:,} and {most:,} bytes in {len(after)} keys before and after {count:,} tasks")
    assert most <= least * 1.02
    assert desk.wire.command("HLEN", desk.queue.keys["loc"]) == 0


# F15


def test_fifty_reclaimers_take_from_the_dead_once_and_from_the_living_nothing(desk: Desk) -> None:
    """All have seen the same beats; the living beat once more before the orders come, in any order."""
    dead, alive = (rounds(4, 200), rounds(1, 50))
    submit_all(desk, many((dead + alive) * 100))
    names = [f"dead-{number}" for number in range(dead)] + [f"alive-{number}" for number in range(alive)]
    held = {}
    for name in names:
        held[name] = {claim.id for claim in desk.claim(name, 100)}
        desk.beat(name, 1)
    looked = {name: seen.beat for name, seen in desk.workers().items()}
    for name in names[dead:]:
        desk.beat(name, 2)
    orders = [(name, f"nonce-{who}") for who in range(50) for name in names]
    dice("reclaimers").shuffle(orders)
    watch, said = Watch(), list[Reclaimed]()
    for at in range(0, len(orders), 500):
        calls = [desk.queue.reclaim(Reclaim(name, looked[name], nonce)) for name, nonce in orders[at : at + 500]]
        replies = desk.wire.pipeline(*(call.words for call in calls))
        said += [call.parse(reply) for call, reply in zip(calls, replies, strict=True)]
    taken = [id_ for each in said for id_ in each.handed_on]
    tell(f"50 reclaimers of {dead * 100:,} tasks of the dead and {alive * 100:,} of the living: {watch.wall_s:.1f} s")
    assert watch.own_s <= 5
    assert sorted(taken) == sorted(id_ for name in names[:dead] for id_ in held[name])
    left = {name: {claim.id for claim in desk.reconcile(name)} for name in names}
    assert left == {name: held[name] if name in names[dead:] else set() for name in names}


# H4


def test_statistics_cost_the_same_at_a_million(desk: Desk, redis_server: RedisServer) -> None:
    """What a look at a queue costs Redis, in its own count: not more with many tasks than with few."""

    def cost() -> float:
        redis_server.redis.config_resetstat()
        for _ in range(200):
            desk.depth()
        stats = redis_server.redis.info("commandstats")
        return float(stats["cmdstat_evalsha"]["usec_per_call"])

    few, many_tasks = 1_000, rounds(20_000, 1_000_000)
    submit_all(desk, many(few))
    before = cost()
    for start in range(few + 1, many_tasks + 1, 1_000):
        submit_all(desk, many(min(1_000, many_tasks + 1 - start), start))
    desk.claim("w", 100)
    after = cost()
    assert desk.depth().live == many_tasks
    tell(f"a look at a queue of {few:,} costs Redis {before:.0f} µs, of {many_tasks:,} {after:.0f} µs")
    assert after < 3 * before
