"""What people do in a run of the operator's model test: they submit and cancel tasks, and apply specs, good and bad."""

from __future__ import annotations

from operator_model_plan import BAD_SPECS, seasons, template
from operator_model_rule import a_name, a_queue, rule
from operator_model_world import World


@rule(4)
async def submit(world: World) -> None:
    a_queue(world).submit(world.dice.choice((1, 2, 5, 20)))


@rule(2)
async def delay(world: World) -> None:
    a_queue(world).delay(world.now_s + world.dice.choice((1, 5, 30)))


@rule(3)
async def cancel(world: World) -> None:
    a_queue(world).cancel()


@rule(1)
async def park(world: World) -> None:
    a_queue(world).park(2)


@rule(1)
async def pause_or_resume(world: World) -> None:
    queue = a_queue(world)
    queue.pause(not queue.paused)


@rule(1)
async def the_mode_changes(world: World) -> None:
    name = a_name(world)
    mode = world.dice.choice(("Auto", "Auto", "External", "DryRun", "Paused"))
    world.change(name, {**world.plan.specs[name], "mode": mode, "replicas": world.dice.randrange(4)})


@rule(0.7)
async def the_image_changes(world: World) -> None:
    name = a_name(world)
    world.change(name, {**world.plan.specs[name], "template": template(world.dice.randrange(1_000))})


@rule(0.3)
async def the_template_is_bad(world: World) -> None:
    name = a_name(world)
    world.change(name, {**world.plan.specs[name], "template": {"spec": {"containers": []}}})


@rule(0.7)
async def the_limits_change(world: World) -> None:
    name = a_name(world)
    spec = world.plan.specs[name]
    limits = {"minReplicas": world.dice.randrange(2), "maxReplicas": world.dice.randrange(2, 6)}
    world.change(name, {**spec, "scaling": {**spec["scaling"], **limits}})


@rule(0.5)
async def the_schedules_change(world: World) -> None:
    name = a_name(world)
    spec = world.plan.specs[name]
    world.change(name, {**spec, "scaling": {**spec["scaling"], "schedules": seasons(world.dice)}})


@rule(0.5)
async def the_spec_is_bad(world: World) -> None:
    """Nobody can read it; what runs goes on by the one before, until somebody applies another."""
    world.spoil(a_name(world), world.dice.choice(BAD_SPECS))


@rule(0.5)
async def the_spec_is_mended(world: World) -> None:
    name = a_name(world)
    if name in world.bad:
        world.change(name, world.plan.specs[name])
