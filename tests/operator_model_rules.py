"""What may happen in a run of the operator's model test, big and small; and how everything becomes well again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from operator_model_cluster import EPOCH, Raw, TruePod, TruePool, TrueQueue, Worker, rfc3339
from operator_model_world import World, beat_of

CONCURRENCY: Final = 3
RESTART_S: Final = 0.5
"""No container runs again sooner."""


# -- workers


def beat(world: World, pool: TruePool, worker: Worker) -> None:
    queue = pool.queue
    if queue.fault == "away":
        return
    worker.counter += 1
    queue.beats[worker.name] = beat_of(worker, queue.held[worker.name])
    queue.began_ms[worker.name] = int((EPOCH + worker.began_s) * 1_000)
    worker.answer = worker.name in queue.asked


def hear(pool: TruePool, worker: Worker) -> None:
    if worker.answer is not None:
        worker.draining, worker.answer = worker.answer, None


def claim(world: World, pool: TruePool, pod: TruePod, worker: Worker) -> None:
    queue = pool.queue
    if worker.draining or pod.leaving or queue.fault or queue.paused or worker.name not in queue.beats:
        return
    queue.promote(world.now_s)
    taken = min(CONCURRENCY - queue.held[worker.name], queue.pending)
    queue.held[worker.name] += taken
    queue.pending -= taken


def finish(world: World, pool: TruePool, pod: TruePod, worker: Worker, most: int = 10) -> None:
    queue = pool.queue
    if not queue.fault:
        queue.held[worker.name] -= min(most, queue.held[worker.name])
    if pod.leaving and not queue.held[worker.name]:
        leave(world, pool, pod, worker)


def leave(world: World, pool: TruePool, pod: TruePod, worker: Worker) -> None:
    """A worker that got SIGTERM has nothing more to do."""
    if not pool.queue.fault:
        pool.queue.hand_on(worker.name)
    pod.worker = None
    remove(world, pool, pod)


def sweep(world: World, queue: TrueQueue) -> None:
    """A living worker takes over what dead ones held, as it does when their beats have been missed."""
    living = {worker.name for pool in world.pools.values() for _, worker in pool.workers if pool.queue is queue}
    if queue.fault or not living & set(queue.beats):
        return
    for name in [name for name in {*queue.beats, *queue.held} if name not in living]:
        queue.hand_on(name)


# -- kubelet


def start_container(world: World, pool: TruePool, pod: TruePod) -> None:
    if pod.leaving or pod.worker is not None or pod.stuck:
        return
    if pod.crashed_s is not None and world.now_s < pod.crashed_s + RESTART_S:
        return
    pod.boots += 1
    pod.running_since_s = world.now_s
    pod.worker = Worker(f"{pod.name}:{pod.boots}", world.now_s)
    world.pod_changed(pool, pod)


def get_ready(world: World, pool: TruePool, pod: TruePod) -> None:
    if pod.worker is not None and not pod.ready:
        pod.ready = True
        world.pod_changed(pool, pod)


def crash(world: World, pool: TruePool, pod: TruePod) -> None:
    if pod.worker is None:
        return
    world.counts["crashes"] += 1
    pod.died_unheard = pod.worker.name not in pool.queue.beats
    pod.crashed_s = world.now_s
    pod.worker, pod.ready, pod.running_since_s = None, False, None
    reason, code = world.dice.choice((("OOMKilled", 137), ("Error", 1)))
    pod.ended = {"reason": reason, "exitCode": code, "finishedAt": rfc3339(world.now_s)}
    if pod.leaving:
        remove(world, pool, pod)
    else:
        world.pod_changed(pool, pod)


def evict(world: World, pool: TruePool, pod: TruePod) -> None:
    if pod.leaving:
        return
    pod.ended = {"reason": "Error", "exitCode": 137, "finishedAt": rfc3339(world.now_s)}
    pod.worker, pod.ready, pod.leaving, pod.failed = None, False, True, True
    world.pod_changed(pool, pod)


def remove(world: World, pool: TruePool, pod: TruePod) -> None:
    del pool.pods[pod.name]
    world.pod_changed(pool, pod, deleted=True)


# -- controllers


def control(world: World, pool: TruePool) -> None:
    """Deployment and ReplicaSet controller: one step towards the number."""
    made = pool.deployment
    if made is None:
        return
    if made.observed != made.generation:
        made.observed = made.generation
        world._changed(pool)
    for pod in [pod for pod in pool.pods.values() if pod.failed]:
        remove(world, pool, pod)
    if pool.rolling:
        _roll(world, pool)
        return
    surplus = len(pool.staying) - made.replicas
    for pod in sorted(pool.staying, key=lambda pod: pod.order)[: max(0, surplus)]:
        world.stopping(pool, pod)
        stop(world, pool, pod)
    for _ in range(-surplus):
        create(world, pool)
    pool.foreign = False
    pool.excused.clear()


def _roll(world: World, pool: TruePool) -> None:
    made = pool.deployment
    assert made is not None
    old = [pod for pod in pool.staying if pod.template != made.template]
    fresh = [pod for pod in pool.staying if pod.template == made.template]
    if len(fresh) < made.replicas and len(pool.staying) <= made.replicas:
        create(world, pool)
    elif all(pod.ready for pod in fresh):
        stop(world, pool, min(old, key=lambda pod: pod.order))


def create(world: World, pool: TruePool) -> None:
    assert pool.deployment is not None
    pool.made += 1
    pod = TruePod(f"{pool.name}-{pool.made}", world.now_s, pool.deployment.template)
    pod.stuck = not world.calm and world.dice.random() < 0.1
    pool.pods[pod.name] = pod
    world.pod_changed(pool, pod)


def stop(world: World, pool: TruePool, pod: TruePod) -> None:
    pod.leaving = True
    if pod.worker is None:
        remove(world, pool, pod)
        return
    pod.ready = False
    world.pod_changed(pool, pod)


def small(world: World) -> None:
    """One thing that happens by itself."""
    dice = world.dice
    pool = dice.choice([*world.pools.values()])
    what = dice.randrange(12)
    if what < 3:
        world.deliver(dice.choice(("pools", "deployments", "pods", "pods")), dice.choice((1, 2, 10)))
        return
    if what < 5:
        control(world, pool)
        return
    if not pool.pods:
        return
    pod = dice.choice([*pool.pods.values()])
    if pod.worker is None:
        start_container(world, pool, pod)
        return
    _work(world, pool, pod, pod.worker)


def _work(world: World, pool: TruePool, pod: TruePod, worker: Worker) -> None:
    match world.dice.randrange(10):
        case 0 | 1 | 2:
            beat(world, pool, worker)
        case 3 | 4:
            hear(pool, worker)
        case 5 | 6:
            claim(world, pool, pod, worker)
        case 7:
            finish(world, pool, pod, worker, 1)
        case 8:
            get_ready(world, pool, pod)
        case 9:
            if world.dice.random() < 0.1:
                crash(world, pool, pod)


# -- rules


@dataclass(frozen=True)
class Rule:
    name: str
    weight: float
    do: Callable[[World], Awaitable[None]]


RULES: list[Rule] = []
QUIET: Final = {
    "tick", "life_goes_on", "all_beat", "all_claim", "all_is_done", "pods_start", "watches_show_all", "submit",
    "cancel", "redis_loses_the_beats", "an_older_view", "the_operator_dies",
}  # fmt: skip
"""What happens every day: pools grow and shrink all the time."""


def rule(weight: float) -> Callable[[Callable[[World], Awaitable[None]]], Callable[[World], Awaitable[None]]]:
    def add(do: Callable[[World], Awaitable[None]]) -> Callable[[World], Awaitable[None]]:
        RULES.append(Rule(do.__name__, weight, do))
        return do

    return add


def _queue(world: World) -> TrueQueue:
    return world.queues[world.dice.choice(sorted(world.queues))]


def _pool(world: World) -> TruePool:
    return world.pools[world.dice.choice(sorted(world.pools))]


@rule(30)
async def tick(world: World) -> None:
    await world.tick(world.dice.choice((0.1, 1.0, 1.0, 1.0, 5.0)))


@rule(30)
async def life_goes_on(world: World) -> None:
    for _ in range(world.dice.choice((1, 3, 10))):
        small(world)


@rule(10)
async def all_beat(world: World) -> None:
    for pool in world.pools.values():
        for _, worker in pool.workers:
            hear(pool, worker)
            beat(world, pool, worker)


@rule(6)
async def pods_start(world: World) -> None:
    pool = _pool(world)
    for _ in range(3):
        control(world, pool)
    for pod in pool.staying:
        start_container(world, pool, pod)


@rule(8)
async def watches_show_all(world: World) -> None:
    for kind in world.watches:
        world.deliver(kind)


@rule(4)
async def submit(world: World) -> None:
    _queue(world).pending += world.dice.choice((1, 2, 5, 20))


@rule(4)
async def all_is_done(world: World) -> None:
    for pool in world.pools.values():
        for pod, worker in [*pool.workers]:
            finish(world, pool, pod, worker)


@rule(4)
async def all_claim(world: World) -> None:
    for pool in world.pools.values():
        for pod, worker in pool.workers:
            hear(pool, worker)
            claim(world, pool, pod, worker)


@rule(2)
async def delay(world: World) -> None:
    _queue(world).delayed.append(world.now_s + world.dice.choice((1, 5, 30)))


@rule(3)
async def cancel(world: World) -> None:
    queue = _queue(world)
    queue.pending, queue.delayed = 0, []


@rule(1)
async def park(world: World) -> None:
    queue = _queue(world)
    taken = min(queue.pending, 2)
    queue.pending, queue.parked = queue.pending - taken, queue.parked + taken


@rule(1)
async def pause_or_resume(world: World) -> None:
    queue = _queue(world)
    queue.paused = not queue.paused


@rule(2)
async def redis_fails(world: World) -> None:
    _queue(world).fault = world.dice.choice(("away", "group", "slow"))


@rule(4)
async def redis_is_well(world: World) -> None:
    _queue(world).fault = ""


@rule(2)
async def hand_on(world: World) -> None:
    await world.hand_on_all()


@rule(0.5)
async def redis_loses_the_beats(world: World) -> None:
    """They come back, one by one."""
    queue = _queue(world)
    queue.beats.clear()
    queue.asked.clear()


@rule(1.5)
async def sweeps(world: World) -> None:
    sweep(world, _queue(world))


@rule(2)
async def crashes(world: World) -> None:
    pool = _pool(world)
    if pool.pods:
        crash(world, pool, world.dice.choice([*pool.pods.values()]))


@rule(0.7)
async def eviction(world: World) -> None:
    pool = _pool(world)
    if pool.pods:
        evict(world, pool, world.dice.choice([*pool.pods.values()]))


@rule(1)
async def room_is_made(world: World) -> None:
    for pool in world.pools.values():
        for pod in pool.pods.values():
            pod.stuck = False


@rule(0.7)
async def somebody_scales(world: World) -> None:
    pool = _pool(world)
    if pool.deployment is not None:
        number = world.dice.randrange(6)
        if number != pool.deployment.replicas:
            pool.foreign = pool.foreign or number < pool.deployment.replicas
            world.set_replicas(pool, number)


@rule(1)
async def the_operator_dies(world: World) -> None:
    world.start()


@rule(0.7)
async def watches_begin_anew(world: World) -> None:
    """After a gap: no word of what was deleted in it."""
    world.list_all()


@rule(0.7)
async def an_older_view(world: World) -> None:
    """A watch goes on at an API server that is behind: what was shown comes again."""
    watch = world.watches[world.dice.choice(("pools", "deployments", "pods"))]
    watch.seen = max(0, watch.seen - world.dice.choice((1, 3, 10)))


@rule(0.3)
async def the_deployment_is_deleted(world: World) -> None:
    pool = _pool(world)
    if pool.deployment is None:
        return
    world.touch(pool.deployment)
    raw, pool.deployment = pool.deployment_raw(), None
    world.emit("deployments", raw, deleted=True)
    for pod in [*pool.pods.values()]:
        stop(world, pool, pod)


@rule(1)
async def the_mode_changes(world: World) -> None:
    name = _name(world)
    mode = world.dice.choice(("Auto", "Auto", "External", "DryRun", "Paused"))
    world.change(name, {**world.plan.specs[name], "mode": mode, "replicas": world.dice.randrange(4)})


def _name(world: World) -> str:
    return world.dice.choice(sorted(world.pools))


@rule(0.7)
async def the_image_changes(world: World) -> None:
    name = _name(world)
    world.change(name, {**world.plan.specs[name], "template": template(world.dice.randrange(1_000))})


@rule(0.3)
async def the_template_is_bad(world: World) -> None:
    name = _name(world)
    world.change(name, {**world.plan.specs[name], "template": {"spec": {"containers": []}}})


@rule(0.7)
async def the_limits_change(world: World) -> None:
    name = _name(world)
    spec = world.plan.specs[name]
    limits = {"minReplicas": world.dice.randrange(2), "maxReplicas": world.dice.randrange(2, 6)}
    world.change(name, {**spec, "scaling": {**spec["scaling"], **limits}})


def template(number: int) -> Raw:
    return {"spec": {"containers": [{"name": "worker", "image": f"shop:{number}"}]}}


def scaling_of(dice: Any, *, eager: bool) -> Raw:
    """`eager` shrinks as soon as it can."""
    policies: list[Raw] = dice.choice(([], [{"type": "Percent", "value": 50, "periodSeconds": 15}]))
    found: Raw = {
        "minReplicas": dice.choice((0, 0, 1)), "maxReplicas": dice.choice((3, 6)),
        "activationTasks": dice.choice((1, 1, 2)), "idleSeconds": dice.choice((0, 5)),
        "behavior": {
            "scaleDown": {"stabilizationWindowSeconds": dice.choice((0, 0, 10)), "policies": policies},
            "scaleUp": {"stabilizationWindowSeconds": dice.choice((0, 0, 3))},
        },
    }  # fmt: skip
    if eager:
        found["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": []}}
        found |= {"idleSeconds": 0, "targetTasksPerReplica": 2}
    fallback = dice.choice(("Hold", "Static", "AtLeast"))
    if fallback != "Hold":
        found["fallback"] = {"policy": fallback, "replicas": 2, "failureThreshold": 3}
    return found
