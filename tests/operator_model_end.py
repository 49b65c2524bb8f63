"""How a run ends: everything becomes well, everybody works, and then there must be nothing left to do."""

from __future__ import annotations

from typing import Final

from headrace_operator.caps import Caps
from headrace_operator.spec import read_spec
from operator_model_cluster import Raw
from operator_model_plan import in_season, limits_of, template
from operator_model_work import beat, claim, control, finish, get_ready, hear, start_container, sweep
from operator_model_world import World

AWAKE: Final = 5
"""Ticks within which a pool with waiting tasks has a replica."""
DONE: Final = 150
"""Ticks within which all tasks have ended and the pools are small again."""

LASTS: Final = 8
"""Ticks for which the end has to last."""


async def heal(world: World) -> None:
    """Raises AssertionError if the operator does not bring everything to a good end."""
    world.calm = True
    for queue in world.queues.values():
        queue.recover()
    for pool in world.pools.values():
        for pod in pool.pods.values():
            pod.stuck = False
    for name, spec in [*world.plan.specs.items()]:
        world.change(name, _healed(world, spec))
    world.list_all()
    await _a_season(world)
    for name, spec in [*world.plan.specs.items()]:
        world.change(name, {**spec, "scaling": {**spec["scaling"], "schedules": []}})
    for tick in range(DONE):
        await one_calm_tick(world)
        if tick >= AWAKE:
            _check_awake(world)
        if tick % 8 == 7 and _is_over(world):
            break
    for _ in range(LASTS):
        await one_calm_tick(world)
    check_end(world)


def _healed(world: World, spec: Raw) -> Raw:
    """Half of the runs end without a rollout, which would replace pods that went wrong."""
    mode = "External" if spec.get("mode") == "External" else "Auto"
    rolls = not spec["template"]["spec"]["containers"] or world.dice.random() < 0.5
    return {**spec, "mode": mode, "template": template(7) if rolls else spec["template"]}


async def _a_season(world: World) -> None:
    """Floors of schedules are reached, whatever was before."""
    floors = {
        name: [each for each in spec["scaling"].get("schedules", ()) if "minReplicas" in each]
        for name, spec in world.plan.specs.items()
        if spec["mode"] == "Auto" and world.plan.caps == Caps()
    }
    waits = [(name, each) for name, some in floors.items() for each in some]
    for name, schedule in waits:
        while in_season(schedule, world.now_s):
            await one_calm_tick(world)
        while not in_season(schedule, world.now_s):
            await one_calm_tick(world)
        for _ in range(AWAKE):
            await one_calm_tick(world)
        least, _ = limits_of(world.plan.specs[name]["scaling"], world.now_s)
        made = world.pools[name].deployment
        assert made is not None and made.replicas >= least, f"{name} stays below the floor {least} of a schedule"
        world.counts["a season's floor"] += 1


def _is_over(world: World) -> bool:
    if any(queue.delayed for queue in world.queues.values()):
        return False
    try:
        check_end(world)
    except AssertionError:
        return False
    return True


async def one_calm_tick(world: World) -> None:
    """A second in which everybody does what is his."""
    for kind in world.watches:
        world.deliver(kind)
    world.list_fully()
    await world.do_duties()
    await world.tick(1.0)
    for pool in world.pools.values():
        control(world, pool)
        for pod in [*pool.pods.values()]:
            start_container(world, pool, pod)
            get_ready(world, pool, pod)
            worker = pod.worker
            if worker is None:
                continue
            hear(worker)
            claim(world, pool, pod, worker)
            beat(pool, worker)
            hear(worker)
            finish(world, pool, pod, worker, 1)
    for queue in world.queues.values():
        sweep(world, queue)


def _enough(world: World, name: str) -> bool:
    """Whether tasks wait that must wake this pool."""
    spec = read_spec(world.plan.specs[name])
    return world.pools[name].queue.pending >= spec.scaling.activation_tasks


def _check_awake(world: World) -> None:
    for name, pool in world.pools.items():
        if world.plan.specs[name].get("mode") == "External" or world.plan.caps != Caps():
            continue
        if _enough(world, name):
            assert pool.deployment is not None, f"tasks wait, and {name} is not there"
            assert pool.deployment.replicas, f"{pool.queue.pending} tasks wait, and {name} stays at zero"


def _capped(world: World, name: str, replicas: int) -> int:
    steering = world.steering(name)
    assert steering is not None
    return replicas if steering.granted is None else min(replicas, steering.granted)


def check_end(world: World) -> None:
    """Nothing is left of all that happened."""
    for name, pool in world.pools.items():
        spec = read_spec(world.plan.specs[name])
        external = spec.mode == "External"
        least = _capped(world, name, spec.replicas) if external else spec.scaling.min_replicas
        assert pool.deployment is not None, f"{name} is not there"
        if not external or spec.replicas:
            assert not _enough(world, name), f"{pool.queue.pending} tasks of {name} were never run"
        assert pool.deployment.replicas == least, f"{name} ends with {pool.deployment.replicas} instead of {least}"
        assert not [pod.name for pod in pool.staying if pod.cheap], f"pods of {name} are still marked to go first"
        asked = [worker.name for _, worker in pool.workers if worker.draining or worker.name in pool.queue.asked()]
        assert not asked, f"{asked} are still asked to drain"
        _check_status(world, name, least)


def _check_status(world: World, name: str, least: int) -> None:
    shown = world.statuses[name]
    conditions = {each["type"]: each["status"] for each in shown["conditions"]}
    assert shown["desiredReplicas"] == shown["replicas"] == shown["readyReplicas"] == least, f"{name}: {shown}"
    assert shown["observedGeneration"] == world.generations[name], f"{name}: {shown}"
    assert conditions["Ready"] == conditions["QueueReachable"] == conditions["AbleToScale"] == "True", f"{shown}"


def end_of(world: World) -> dict[str, object]:
    """What is left of a run, without times."""
    found: dict[str, object] = {}
    for name, pool in world.pools.items():
        shown = world.statuses[name]
        conditions = {(each["type"], each["status"], each["reason"]) for each in shown["conditions"]}
        counts = {each: shown[each] for each in ("replicas", "readyReplicas", "desiredReplicas", "busyReplicas")}
        asked = [worker.draining for _, worker in pool.workers]
        made = pool.deployment
        found[name] = (made and made.replicas, len(pool.staying), conditions, counts, asked, pool.queue.unfinished)
    return found
