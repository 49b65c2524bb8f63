"""What workers, kubelet and controllers do in a run of the operator's model test, one small thing at a time."""

from __future__ import annotations

from typing import Final

from operator_model_cluster import TruePod, TruePool, rfc3339
from operator_model_plan import CONCURRENCY
from operator_model_queue import TrueQueue, Worker
from operator_model_world import World

RESTART_S: Final = 0.5
"""No container runs again sooner."""


# -- workers


def beat(pool: TruePool, worker: Worker) -> None:
    if pool.queue.fault != "away":
        worker.answer = pool.queue.beat(worker)


def hear(worker: Worker) -> None:
    if worker.answer is not None:
        worker.draining, worker.answer = worker.answer, None


def claim(world: World, pool: TruePool, pod: TruePod, worker: Worker, slots: int = CONCURRENCY) -> None:
    queue = pool.queue
    if worker.draining or pod.leaving or queue.fault or queue.paused or not queue.beats(worker.name):
        return
    queue.claim(worker.name, slots, world.now_s)


def finish(world: World, pool: TruePool, pod: TruePod, worker: Worker, most: int = 10) -> None:
    queue = pool.queue
    if not queue.fault:
        queue.finish(worker.name, most)
    if pod.leaving and not queue.running(worker.name):
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
    if queue.fault or not any(queue.beats(name) for name in living):
        return
    for each in queue.seen():
        if each.name not in living:
            queue.hand_on(each.name)


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
    pod.died_unheard = not pool.queue.beats(pod.worker.name)
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
        world.changed(pool)
    for pod in [pod for pod in pool.pods.values() if pod.failed]:
        remove(world, pool, pod)
    if pool.rolling:
        _roll(world, pool)
        return
    surplus = len(pool.staying) - made.replicas
    for pod in sorted(pool.staying, key=lambda pod: pod.order)[: max(0, surplus)]:
        world.promises.stopped(pool, pod)
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
            beat(pool, worker)
        case 3 | 4:
            hear(worker)
        case 5 | 6:
            claim(world, pool, pod, worker)
        case 7:
            finish(world, pool, pod, worker, 1)
        case 8:
            get_ready(world, pool, pod)
        case 9:
            if world.dice.random() < 0.1:
                crash(world, pool, pod)
