"""What clients, workers, reclaimers and administrators do in a world, and what goes wrong: each rule with its weight.

The same rules serve the seeded explorer and the Hypothesis machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from headrace.broker.broker import MAX_ITEMS, NewTask, Reclaim
from headrace.broker.keys import STREAMS
from model_net import Dice, Request, chance, pick
from model_task import new, task_id
from model_worker import Worker
from model_world import HOUR_MS, Look, World

IDS: Final = tuple(task_id(n) for n in range(1, 11))
TYPES: Final = ("a", "b")
KEYS: Final = ("k", "l")
HOSTS: Final = ("w1", "w2", "w3")
PAYLOADS: Final = (
    b"{}",
    b'{"big":90071992547409931234,"none":[],"one":1.0,"text":"\\u0000\xc3\xa9"}',
    b'{\n"forged":\n{"p":"1-1","o":"completed"},\n"crlf":\r\n"1,1,1,1"}',
)
DELAYS: Final = (0, 1, 1_000, HOUR_MS)
JUNK: Final = (("x", "1"), ("d", "{}"), ("d", "no", "n", "1,2,3,4"), ("d", '{"v":1,"p":9,"i":"x"}', "n", "many"))


@dataclass(frozen=True)
class Rule:
    """Something that may happen. `do` answers whether it did: there may be nothing to do it with."""

    name: str
    weight: float
    do: Callable[[World, Dice], bool]


RULES: Final[list[Rule]] = []


def rule(weight: float) -> Callable[[Callable[[World, Dice], bool]], Callable[[World, Dice], bool]]:
    """Adds a function to RULES under its own name."""

    def add(do: Callable[[World, Dice], bool]) -> Callable[[World, Dice], bool]:
        RULES.append(Rule(do.__name__, weight, do))
        return do

    return add


# -- the network


@rule(140)
def execute(world: World, dice: Dice) -> bool:
    """Redis carries out what somebody waits for."""
    return _execute(world, dice, open_ones=True)


@rule(12)
def execute_late(world: World, dice: Dice) -> bool:
    """What a connection sent before it was closed arrives after all."""
    return _execute(world, dice, open_ones=False)


def _execute(world: World, dice: Dice, open_ones: bool) -> bool:
    ready = [conn for conn in world.conns if conn.is_open == open_ones and conn.is_ready]
    if ready:
        world.execute(pick(dice, ready))
    return bool(ready)


@rule(130)
def deliver(world: World, dice: Dice) -> bool:
    frozen = tuple(worker.name + " " for worker in world.workers if worker.frozen)
    ready = [c for c in world.conns if c.replies and not c.name.startswith(frozen)]
    if ready:
        world.deliver(pick(dice, ready))
    return bool(ready)


@rule(1.2)
def cut(world: World, dice: Dice) -> bool:
    """A connection breaks, with whatever is on it."""
    busy = [conn for conn in world.conns if conn.is_open and (conn.requests or conn.replies)]
    claiming = [conn for conn in busy if conn.name.endswith(" claims")]
    if busy:
        world.cut(pick(dice, claiming if claiming and chance(dice, 60) else busy))
    return bool(busy)


@rule(2)
def lose(world: World, dice: Dice) -> bool:
    """Requests of a closed connection never arrive."""
    late = [conn for conn in world.conns if not conn.is_open and conn.requests]
    if late:
        pick(dice, late).requests.clear()
        world.tidy()
    return bool(late)


# -- workers


def _awake(world: World, wanted: Callable[[Worker], object]) -> list[Worker]:
    return [worker for worker in world.workers if not worker.frozen and not worker.gone and wanted(worker)]


@rule(60)
def cycle(world: World, dice: Dice) -> bool:
    """Report some of what ended, claim into some of the free slots."""
    able = _awake(world, lambda worker: worker.has_work)
    if not able:
        return False
    worker = pick(dice, able)
    slots = worker.may_claim - (dice.below(worker.may_claim + 1) if chance(dice, 40) else 0)
    reports = len(worker.finished) + len(worker.unsure)
    said = reports - (dice.below(reports + 1) if chance(dice, 30) else 0)
    if not (slots or said or worker.debt):
        return False
    worker.cycle(slots, said, _order(dice), chance(dice, 20))
    return True


def _order(dice: Dice) -> str:
    """Nine times of ten the strict one, else the oldest first or any other."""
    return STREAMS if chance(dice, 90) else pick(dice, ("0rs321", "0123rs", "s3210r", "r1s320"))


@rule(80)
def finish(world: World, dice: Dice) -> bool:
    able = _awake(world, lambda worker: worker.running)
    if not able:
        return False
    worker = pick(dice, able)
    claim = worker.running[pick(dice, sorted(worker.running))]
    outcome = pick(
        dice, ("completed", "completed", "completed", "retrying", "retrying", "failed", "parked", "cancelled")
    )
    argument: int | str = pick(dice, DELAYS) if outcome == "retrying" else ""
    worker.finish(claim.place, outcome, pick(dice, (*TYPES, "!v2")) if outcome == "parked" else argument)
    return True


@rule(4)
def beat(world: World, dice: Dice) -> bool:
    able = _awake(world, lambda worker: len(worker.beats.requests) < 2)
    if able:
        worker = pick(dice, able)
        if not worker.beats.is_open:
            worker.beats = world.connect(f"{worker.name} beats")
        worker.beat(pick(dice, (b"", b'{"slots":3}')))
    return bool(able)


@rule(3)
def reconcile(world: World, dice: Dice) -> bool:
    able = _awake(world, lambda worker: not worker.reconciling)
    if able:
        pick(dice, able).reconcile()
    return bool(able)


@rule(15)
def arm(world: World, dice: Dice) -> bool:
    able = _awake(world, lambda worker: worker.may_arm)
    if able:
        pick(dice, able).arm()
    return bool(able)


@rule(0.7)
def stop_waiting(world: World, dice: Dice) -> bool:
    """The blocking read outlives its time, by the worker's own clock: it closes the connection."""
    able = _awake(world, lambda worker: worker.wait is not None)
    if able:
        wait = pick(dice, able).wait
        assert wait is not None
        world.cut(wait)
        world.saw("V20")
    return bool(able)


@rule(20)
def make_again(world: World, dice: Dice) -> bool:
    """A worker that met a missing group makes it, and goes on."""
    able = _awake(world, lambda worker: worker.missing)
    if able:
        pick(dice, able).init()
    return bool(able)


@rule(0.7)
def crash(world: World, dice: Dice) -> bool:
    if world.workers:
        world.crash(pick(dice, world.workers))
    return bool(world.workers)


@rule(15)
def start(world: World, dice: Dice) -> bool:
    if len(world.workers) >= len(HOSTS):
        return False
    world.start_worker(pick(dice, HOSTS))
    return True


@rule(0.7)
def freeze(world: World, dice: Dice) -> bool:
    able = _awake(world, lambda worker: True)
    if able:
        pick(dice, able).frozen = True
    return bool(able)


@rule(6)
def thaw(world: World, dice: Dice) -> bool:
    frozen = [worker for worker in world.workers if worker.frozen]
    if frozen:
        pick(dice, frozen).frozen = False
    return bool(frozen)


@rule(0.5)
def stop(world: World, dice: Dice) -> bool:
    """SIGTERM."""
    able = _awake(world, lambda worker: not worker.draining)
    if able:
        worker = pick(dice, able)
        worker.stop()
        if worker.wait is not None:
            world.cut(worker.wait)
    return bool(able)


@rule(15)
def drain(world: World, dice: Dice) -> bool:
    able = [worker for worker in world.workers if worker.draining and not worker.frozen]
    if able:
        worker = pick(dice, able)
        if worker.gone:
            world.leave(worker)
            world.saw("left")
        else:
            worker.drain(chance(dice, 50))
    return bool(able)


# -- reclaimers


@rule(3)
def look_at_workers(world: World, dice: Dice) -> bool:
    """A reclaimer looks; what it saw may be long ago when it acts."""
    del dice
    request = world.calls.workers()

    def note(raw: list[Any]) -> None:
        for name, seen in sorted(zip(raw[::4], raw[1::4], strict=True)):
            world.looks.append(Look(name.decode(), seen.decode(), world.model.beaten[name.decode()]))
        del world.looks[:-12]

    request.note = note
    _send(world, request)
    return True


@rule(5)
def reclaim(world: World, dice: Dice) -> bool:
    """No change was seen for the time that counts as death."""
    if not world.looks:
        return False
    seen = pick(dice, world.looks[-3:] if chance(dice, 60) else world.looks)
    nonce = f"n{world.counts['calls']}"
    order = Reclaim(
        seen.worker, seen.beat, nonce, limit=pick(dice, (MAX_ITEMS, 1, 2)), backoff_ms=pick(dice, (5_000, 0))
    )
    request = world.calls.reclaim(order)
    request.note = lambda raw: _check_reclaim(world, seen, raw)
    _send(world, request)
    return True


def _check_reclaim(world: World, seen: Look, raw: list[Any]) -> None:
    beaten = world.model.beaten[seen.worker] != seen.beaten
    if beaten and raw[0] in {b"moved", b"done"}:
        raise AssertionError(f"{seen.worker} has beaten since it was looked at, and was taken for dead")
    world.saw("V7", beaten and raw[0] == b"alive")
    world.saw("V8", seen.beat.startswith("?") and raw[0] == b"done" and raw[1] > 0)


@rule(2)
def hand_on(world: World, dice: Dice) -> bool:
    """Whoever watched it die hands on its tasks."""
    if not world.proven_dead:
        return False
    name = pick(dice, sorted(world.proven_dead))
    order = Reclaim(name, "*", "watched", cause="exit code 1", limit=pick(dice, (MAX_ITEMS, 1)), backoff_ms=5_000)
    _send(world, world.calls.reclaim(order))
    return True


# -- clients


def _send(world: World, request: Request) -> None:
    """On one of three connections, in whatever order they get through."""
    at = world.counts["calls"] % 3
    conn = next((c for c in world.conns if c.is_open and c.name == f"client {at}"), None)
    (conn or world.connect(f"client {at}")).send(request)
    if request.kind in {"submit", "cancel", "replay", "promote", "release", "reclaim", "hand_back", "purge"}:
        world.past.append(request)
        del world.past[:-20]


def _task(dice: Dice) -> NewTask:
    payload = pick(dice, PAYLOADS)
    delay = pick(dice, DELAYS) if chance(dice, 25) else 0
    key = pick(dice, KEYS) if chance(dice, 20) else None
    id_, priority, kind = pick(dice, IDS), dice.below(4), pick(dice, TYPES)
    return new(id_, priority, type_=kind, unique=key, delay_ms=delay, payload=payload)


@rule(35)
def submit(world: World, dice: Dice) -> bool:
    batch = [_task(dice) for _ in range(pick(dice, (1, 1, 2, 3, 6)))]
    _send(world, world.calls.submit(batch, pick(dice, (0, 0, 3, 6)), chance(dice, 20)))
    return True


@rule(2)
def again(world: World, dice: Dice) -> bool:
    """An old request is made again, as it was."""
    if not world.past:
        return False
    old = pick(dice, world.past)
    _send(world, Request(old.kind, old.call, old.predict, shape=old.shape, note=old.note))
    return True


@rule(2)
def report_again(world: World, dice: Dice) -> bool:
    """Old reports come once more, some twice in one call; whose they were may be dead, or run something else."""
    if not world.reports:
        return False
    chosen = [pick(dice, world.reports[-40:]) for _ in range(1 + dice.below(4))]
    owner = chosen[0][0]
    said = [report for name, report in chosen if name == owner]
    said += said[: dice.below(2)]
    _send(world, world.calls.cycle(owner, 0, said, STREAMS, chance(dice, 20)))
    return True


@rule(3)
def cancel(world: World, dice: Dice) -> bool:
    _send(world, world.calls.cancel(pick(dice, IDS), chance(dice, 15)))
    return True


@rule(4)
def replay(world: World, dice: Dice) -> bool:
    from headrace.task import parse_attempts

    dead = world.model.dead()
    task = pick(dice, dead) if dead and chance(dice, 80) else None
    attempts = parse_attempts(task.carried) if task else []
    place = pick(dice, attempts[-2:]).place if attempts and chance(dice, 80) else ""
    _send(world, world.calls.replay(task.id if task else pick(dice, IDS), place, chance(dice, 20)))
    return True


@rule(8)
def promote(world: World, dice: Dice) -> bool:
    ids = [pick(dice, IDS) for _ in range(2)] if chance(dice, 30) else []
    _send(world, world.calls.promote(ids, pick(dice, (MAX_ITEMS, 1))))
    return True


@rule(5)
def release(world: World, dice: Dice) -> bool:
    keys = [pick(dice, (*TYPES, "!v2")) for _ in range(1 + dice.below(2))]
    _send(world, world.calls.release(keys, pick(dice, (MAX_ITEMS, 1))))
    return True


@rule(5)
def purge(world: World, dice: Dice) -> bool:
    ids = [pick(dice, IDS) for _ in range(3)] if chance(dice, 70) else []
    before = world.calls.now if chance(dice, 30) else 0
    _send(world, world.calls.purge(ids, before, pick(dice, (100, 1)), MAX_ITEMS))
    return True


@rule(1)
def ask(world: World, dice: Dice) -> bool:
    """Looks that change nothing."""
    calls = world.calls
    _send(world, pick(dice, (calls.depth(), calls.demand(), calls.workers(), calls.get(pick(dice, IDS)))))
    return True


# -- administrators, time, and the server


@rule(0.4)
def pause(world: World, dice: Dice) -> bool:
    del dice
    if world.model.paused:
        return False
    _send(world, world.calls.pause(True))
    return True


@rule(12)
def resume(world: World, dice: Dice) -> bool:
    del dice
    if not world.model.paused:
        return False
    _send(world, world.calls.pause(False))
    return True


@rule(5)
def pass_time(world: World, dice: Dice) -> bool:
    """The clock goes on, or jumps, also back."""
    world.calls.now += pick(dice, (1, 1_000, 1_000, 10_000, HOUR_MS, -HOUR_MS))
    return True


@rule(60)
def expire(world: World, dice: Dice) -> bool:
    """The time of a record is over."""
    ended = sorted(t.id for t in world.model.tasks.values() if t.state in {"completed", "cancelled"})
    if ended:
        world.expire(pick(dice, ended))
    return bool(ended)


@rule(0.3)
def fill_memory(world: World, dice: Dice) -> bool:
    del dice
    if world.model.full_memory:
        return False
    world.set_memory(True)
    return True


@rule(8)
def free_memory(world: World, dice: Dice) -> bool:
    del dice
    if not world.model.full_memory:
        return False
    world.set_memory(False)
    return True


@rule(0.15)
def destroy_group(world: World, dice: Dice) -> bool:
    digit = pick(dice, sorted(world.model.groups) or [""])
    if digit:
        world.destroy_group(digit)
    return bool(digit)


@rule(1)
def init(world: World, dice: Dice) -> bool:
    """Another process touches the queue for the first time, perhaps after Redis started anew."""
    _send(world, world.calls.init(pick(dice, ("", "first", "second"))))
    return True


@rule(0.5)
def write_foreign(world: World, dice: Dice) -> bool:
    if world.model.full_memory:
        return False
    world.write_foreign(pick(dice, tuple(STREAMS)), pick(dice, JUNK))
    return True
