"""The end of a run: all faults are over, whoever lives goes on by its rules, and everything must come to an end."""

from __future__ import annotations

from typing import Final

from headrace.broker.broker import MAX_ITEMS, Reclaim
from headrace.broker.keys import STREAMS
from model_net import Conn
from model_rules import TYPES
from model_worker import Worker
from model_world import HOUR_MS, BrokenError, World

ROUNDS: Final = 60
"""More than any task needs: three crashes, a backoff each."""


def heal(world: World) -> None:
    """Raises BrokenError if a task is stuck or something is left behind."""
    world.set_memory(False)
    for conn in [conn for conn in world.conns if not conn.is_open]:
        conn.requests.clear()
    world.tidy()
    for worker in world.workers:
        worker.frozen = False
    settle_down(world)
    world.at_once(world.calls.pause(False))
    for _ in range(ROUNDS):
        if not any(world.model.live()) and not any(world.model.streams[digit] for digit in STREAMS):
            break
        _round(world)
    else:
        stuck = [(task.id, task.state, task.entry and task.entry.place) for task in world.model.live()]
        raise BrokenError(f"not at an end after {ROUNDS} rounds: {stuck}")
    _check_rest(world)


def _check_rest(world: World) -> None:
    """Nobody is left over but the living."""
    live = {worker.name for worker in world.workers}
    for name in {name.decode() for name in world.model.workers()} - live:
        world.at_once(world.calls.reclaim(Reclaim(name, "*", "end")))
    left = set().union(*world.model.consumers.values()) | world.model.beats.keys()
    if not left <= live:
        raise BrokenError(f"somebody is left over: {left - live}")


def _round(world: World) -> None:
    """Every living process acts once by its rules, everything sent arrives; the dead are handed on."""
    calls = world.calls
    calls.now += 10 * HOUR_MS
    if not any(not worker.draining for worker in world.workers):
        world.start_worker("healthy")
    for name in sorted(world.proven_dead):
        world.at_once(calls.reclaim(Reclaim(name, "*", "watched")))
    for request in (calls.promote([], MAX_ITEMS), calls.release([*TYPES, "!v2"], MAX_ITEMS)):
        world.at_once(request)
    for worker in list(world.workers):
        _act(world, worker)
        arrive_all(world)


def _act(world: World, worker: Worker) -> None:
    if worker.gone:
        world.leave(worker)
        return
    worker.beat(b"")
    if worker.missing:
        worker.init()
    for place in sorted(worker.running):
        worker.finish(place, "completed", "")
    if worker.draining:
        worker.drain(leave_to_redis=True)
    if worker.has_work:
        worker.cycle(worker.may_claim, len(worker.finished) + len(worker.unsure), STREAMS, touch=False)


def arrive_all(world: World) -> None:
    """Until nothing is on the way. What workers do at an answer arrives too."""

    def next_one() -> Conn | None:
        return next((conn for conn in world.conns if conn.is_ready or conn.replies), None)

    while conn := next_one():
        if conn.is_ready:
            world.execute(conn)
        else:
            world.deliver(conn)


QUIET_AFTER: Final = 100
"""Cycles that a fleet of three idle processes may make before it rests."""


def settle_down(world: World) -> None:
    """Nothing comes from outside: markers go round until nobody is woken any more. Raises BrokenError if they spin."""
    for made in range(QUIET_AFTER):
        arrive_all(world)
        worker = next((w for w in world.workers if not (w.frozen or w.gone) and _is_owing(w)), None)
        if worker is not None:
            worker.cycle(worker.may_claim, 0, STREAMS, touch=False)
            continue
        armed = [worker for worker in world.workers if not worker.frozen and worker.may_arm]
        if not armed:
            world.saw("rested after cycles", made > 3)
            return _check_idle(world)
        armed[0].arm()
    raise BrokenError(f"markers still go round after {QUIET_AFTER} cycles")


def _is_owing(worker: Worker) -> bool:
    """It took a marker, or has not looked yet whether there is something for it."""
    return worker.debt is not None or (worker.may_claim > 0 and not worker.short and worker.cycles_out == 0)


def _check_idle(world: World) -> None:
    """Nobody who could work waits beside work."""
    waiting = any(world.model.waiting(digit) for digit in "r3210")
    if waiting and not world.model.paused and any(worker.wait and not worker.frozen for worker in world.workers):
        raise BrokenError("a process waits beside claimable work")
