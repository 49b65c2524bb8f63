"""What may happen in a run of the operator's model test beside what people do (operator_model_users.py)."""

from __future__ import annotations

from operator_model_rule import a_pool, a_queue, a_worker, rule
from operator_model_work import (
    beat,
    claim,
    control,
    crash,
    evict,
    finish,
    get_ready,
    hear,
    small,
    start_container,
    stop,
    sweep,
)
from operator_model_world import World

# -- the operator


@rule(30)
async def tick(world: World) -> None:
    await world.tick(world.dice.choice((0.1, 1.0, 1.0, 1.0, 5.0)))


@rule(1)
async def a_while_passes(world: World) -> None:
    await world.tick(world.dice.choice((10.0, 20.0, 45.0)))


@rule(2)
async def hand_on(world: World) -> None:
    await world.do_duties()


@rule(1)
async def the_operator_dies(world: World) -> None:
    world.start()


# -- workers


@rule(30)
async def life_goes_on(world: World) -> None:
    for _ in range(world.dice.choice((1, 3, 10))):
        small(world)


@rule(10)
async def all_beat(world: World) -> None:
    for pool in world.pools.values():
        for _, worker in pool.workers:
            hear(worker)
            beat(pool, worker)


@rule(4)
async def all_claim(world: World) -> None:
    for pool in world.pools.values():
        workers = [*pool.workers]
        world.dice.shuffle(workers)
        for pod, worker in workers:
            hear(worker)
            claim(world, pool, pod, worker)


@rule(4)
async def all_is_done(world: World) -> None:
    for pool in world.pools.values():
        for pod, worker in [*pool.workers]:
            finish(world, pool, pod, worker)


@rule(3)
async def one_claims(world: World) -> None:
    found = a_worker(world)
    if found is not None:
        pool, pod, worker = found
        hear(worker)
        claim(world, pool, pod, worker, 1)


@rule(1)
async def who_is_released_claims(world: World) -> None:
    """Before it beats again: its last beat still says that it drains and runs nothing."""
    for pool in world.pools.values():
        for pod, worker in [*pool.workers]:
            if worker.draining and worker.answer is False:
                hear(worker)
                claim(world, pool, pod, worker, 1)


@rule(3)
async def one_has_done_all(world: World) -> None:
    found = a_worker(world)
    if found is not None:
        finish(world, *found)


@rule(1.5)
async def sweeps(world: World) -> None:
    sweep(world, a_queue(world))


@rule(2)
async def crashes(world: World) -> None:
    pool = a_pool(world)
    if pool.pods:
        crash(world, pool, world.dice.choice([*pool.pods.values()]))


# -- Redis


@rule(2)
async def redis_fails(world: World) -> None:
    a_queue(world).fault = world.dice.choice(("away", "group", "slow"))


@rule(4)
async def redis_is_well(world: World) -> None:
    a_queue(world).fault = ""


@rule(0.5)
async def redis_loses_the_beats(world: World) -> None:
    """They come back, one by one."""
    a_queue(world).lose_beats()


# -- the cluster


@rule(6)
async def pods_start(world: World) -> None:
    pool = a_pool(world)
    for _ in range(3):
        control(world, pool)
    for pod in pool.staying:
        start_container(world, pool, pod)


@rule(3)
async def controllers_act(world: World) -> None:
    for pool in world.pools.values():
        control(world, pool)


@rule(3)
async def some_get_ready(world: World) -> None:
    pool = a_pool(world)
    for pod in pool.staying:
        if world.dice.random() < 0.5:
            get_ready(world, pool, pod)


@rule(8)
async def watches_show_all(world: World) -> None:
    for kind in world.watches:
        world.deliver(kind)


@rule(2)
async def deployments_are_shown(world: World) -> None:
    """And pods are not, yet."""
    world.deliver("pools")
    world.deliver("deployments")


@rule(0.7)
async def eviction(world: World) -> None:
    pool = a_pool(world)
    if pool.pods:
        evict(world, pool, world.dice.choice([*pool.pods.values()]))


@rule(1)
async def room_is_made(world: World) -> None:
    for pool in world.pools.values():
        for pod in pool.pods.values():
            pod.stuck = False


@rule(0.7)
async def somebody_scales(world: World) -> None:
    pool = a_pool(world)
    if pool.deployment is not None:
        number = world.dice.randrange(6)
        if number != pool.deployment.replicas:
            pool.foreign = pool.foreign or number < pool.deployment.replicas
            world.set_replicas(pool, number)


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
    pool = a_pool(world)
    if pool.deployment is None:
        return
    world.touch(pool.deployment)
    raw, pool.deployment = pool.deployment_raw(), None
    world.emit("deployments", raw, deleted=True)
    for pod in [*pool.pods.values()]:
        stop(world, pool, pod)
