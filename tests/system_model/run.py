"""One run: a system under a load and a nemesis, then peace, then the verdict."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from chaos.checker import Verdict

from .clients import Order
from .clock import ruled_by
from .nemesis import PROFILES, Nemesis, Profile
from .net import CALM, Link
from .redis_double import Tap
from .system import Rules, System
from .verdict import judge
from .world import World

FAULTS_S = 15.0
"""For so long, in virtual time, there are faults."""
EACH = 40
"""Tasks that each of three clients submits."""
PEACE_S = 120.0
"""Within this time after them everything has come to its end."""


REST_S = 2.0
"""Long enough for everybody to be connected again."""


class BrokenError(AssertionError):
    """A promise was broken; the message says which, and how to see it again."""


@dataclass(frozen=True)
class Outcome:
    """Of a run that kept every promise."""

    seed: int
    profile: str
    accepted: int
    verdict: Verdict
    counts: dict[str, int]
    virtual_s: float
    steps: int
    history: str

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"seed {self.seed} {self.profile}: {self.accepted} accepted, {self.verdict.reruns} run again, "
            f"{counts.get('reclaimed', 0)} reclaimed, {sum(counts.values())} scripts, {self.steps} steps, "
            f"{self.virtual_s:.0f} s, history {self.history[:12]}"
        )


def profile_of(seed: int, name: str = "") -> Profile:
    """The one that is named, else one by the seed."""
    return next((each for each in PROFILES if each.name == name), None) or PROFILES[seed % len(PROFILES)]


def simulate(seed: int, tap: Tap, name: str = "") -> Outcome:
    """Raises BrokenError."""
    profile, world = profile_of(seed, name), World(seed)
    with ruled_by(world):
        # An exception would keep all processes as they are.
        try:
            return _run(world, profile, tap)
        except Exception as error:
            said = _told(world, profile, error)
        finally:
            Link.weather = CALM
            tap.command("CONFIG", "SET", "maxmemory", "0")
    raise BrokenError(said)


def _run(world: World, profile: Profile, tap: Tap) -> Outcome:
    system = System(world, tap, Rules(profile.durability, profile.queues, profile.retention_s))
    for _ in range(2):
        system.add_api()
    for _ in range(3):
        system.add_worker()
    world.run(lambda: world.now > 1_001, 2, "the start")
    Link.weather = profile.weather
    nemesis = Nemesis(system, profile, FAULTS_S)
    order = Order(EACH, FAULTS_S / 50, profile.pills, tuple(share.name for share in profile.queues))
    for by_library in (False, False, True):
        system.add_client(order, by_library=by_library)
    if profile.jobs:
        system.add_canceller(FAULTS_S)
    began = world.now
    world.run(lambda: world.now > began + FAULTS_S, FAULTS_S + 2, "the time of faults")
    nemesis.heal()
    Link.weather = CALM
    world.run(system.is_served, PEACE_S, "the end of all tasks")
    system.observer.look()
    world.run(system.is_tidy, PEACE_S, "the end of who is dead")
    rested = world.now + REST_S
    world.run(lambda: world.now > rested, 2 * REST_S, "rest")
    system.stop_workers()
    world.run(system.has_left, 30, "the end of all workers")
    if profile.retention_s < PEACE_S:
        expired = world.now + profile.retention_s + REST_S
        world.run(lambda: world.now > expired, profile.retention_s + 2 * REST_S, "the end of all records")
        system.redis.expire()
    verdict = judge(system, profile, nemesis.lost)
    observer = system.observer
    return Outcome(
        world.seed, profile.name, len(system.heard.acked), verdict, dict(observer.counts), world.now - began,
        world.steps, observer.history.hexdigest(),
    )  # fmt: skip


def _told(world: World, profile: Profile, error: Exception) -> str:
    lines = "\n".join(list(world.lines)[-60:])
    where = "".join(traceback.format_exception(error)[-6:])
    return (
        f"{type(error).__name__}: {error}\n{lines}\n{where}\n"
        f"Again: PYTHONPATH=tests python -m system_model --seed {world.seed} --profile {profile.name}"
    )
