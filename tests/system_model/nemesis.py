"""Breaks a system by a plan that the seed makes: what befalls whom, when, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from chaos.nemesis import Fault, plan
from headrace.settings import QueueShare

from .net import CALM, Weather
from .redis_double import Photo
from .system import Place, System


@dataclass(frozen=True)
class Profile:
    """A kind of run: how bad it gets."""

    name: str
    weather: Weather = CALM
    kinds: tuple[str, ...] = ()
    every_s: tuple[float, float] = (0.3, 2.5)
    durability: str = "local"
    pills: float = 0.0
    forgetful: bool = False
    """Whether Redis may lose its last moments when it crashes, as it does under everysec."""
    queues: tuple[QueueShare, ...] = (QueueShare("default"),)
    retention_s: float = 86_400.0
    """Records of completed and cancelled tasks are gone after that."""
    jobs: bool = False
    """Whether somebody cancels many tasks at once, by bulk jobs."""

    @property
    def is_graceful(self) -> bool:
        """Whether nothing is done to workers but that they are asked to stop."""
        return not self.weather.lost_before and set(self.kinds) <= _STOPS


ROUGH: Final = Weather(lost_before=0.002, lost_after=0.003, swallowed=0.0004, late=0.004)
_PROCESSES: Final = ("kill_worker", "kill_worker", "freeze_worker", "stop_worker", "kill_api", "freeze_api")
_NETWORK: Final = ("cut_worker", "swallow_worker", "cut_api", "swallow_api", "cut_client")
_STOPS: Final = {"stop_worker", "hush_worker"}
_CLOCKS: Final = ("skew_worker", "skew_api", "skew_redis")

PROFILES: Final = (
    Profile("calm"),
    Profile("network", ROUGH, _NETWORK),
    Profile("deaths", CALM, _PROCESSES, pills=0.05),
    Profile("restarts", CALM, ("restart_redis", "restart_redis", "kill_worker", *_CLOCKS)),
    Profile("all", ROUGH, (*_PROCESSES, *_NETWORK, *_CLOCKS, "restart_redis"), pills=0.03),
    Profile("failover", ROUGH, ("lag", "fail_over", "fail_over", "kill_worker"), durability="replicated:1"),
    Profile("frozen", CALM, ("freeze_worker", "freeze_worker", "freeze_api"), every_s=(0.3, 1.5)),
    Profile("everysec", ROUGH, ("lose_moments", "kill_worker", "freeze_worker"), forgetful=True),
    Profile("stops", CALM, tuple(sorted(_STOPS))),
    Profile(
        "queues", ROUGH, ("kill_worker", "stop_worker", *_NETWORK), pills=0.03,
        queues=(QueueShare("default", 3), QueueShare("mail"), QueueShare("reports", 2)),
    ),
    Profile("memory", CALM, ("fill_redis", "fill_redis", *_PROCESSES), pills=0.03),
    Profile("jobs", ROUGH, ("kill_api", "freeze_api", "cut_api", "swallow_api", "kill_worker"), jobs=True),
    Profile("expiry", CALM, ("kill_worker", "stop_worker", "kill_api", "cut_client"), retention_s=6.0),
)  # fmt: skip


class Nemesis:
    """Carries out the plan of one run."""

    def __init__(self, system: System, profile: Profile, lasts_s: float) -> None:
        self.lost: list[tuple[float, float]] = []
        """From when to when what Redis was told is gone."""
        self._system = system
        self._world = system.world
        self._dice = Random(f"{system.world.seed} nemesis")
        self._over = False
        faults = plan(system.world.seed, lasts_s, profile.every_s, profile.kinds) if profile.kinds else []
        for fault in faults:
            self._world.after(fault.at_s, partial(self._do, fault))

    def _do(self, fault: Fault) -> None:
        if self._over:
            return
        self._world.note(f"FAULT {fault.kind} {fault.whom} {fault.for_s:.1f} s")
        kind, _, whom = fault.kind.partition("_")
        match whom:
            case "worker" | "api":
                places = self._system.workers if whom == "worker" else self._system.apis
                self._hurt(kind, places[fault.whom % len(places)], fault)
            case "client":
                for transport in list(self._system.clients[fault.whom % len(self._system.clients)].links):
                    transport.cut()
            case _:
                self._hurt_redis(fault)

    def _hurt(self, kind: str, place: Place, fault: Fault) -> None:
        process = place.process
        match kind:
            case "kill":
                process.kill()
            case "stop":
                place.stop()
            case "hush":
                for transport in list(process.links):
                    transport.swallow()
                place.stop()
            case "freeze":
                process.freeze()
                self._world.after(fault.for_s, process.thaw)
            case "cut":
                for transport in list(process.links):
                    transport.cut()
            case "swallow":
                for transport in list(process.links):
                    transport.swallow()
            case "skew":
                process.skew_s = self._jump()

    def _jump(self) -> float:
        return self._dice.choice((-3_600.0, -5.0, 5.0, 3_600.0))

    def _hurt_redis(self, fault: Fault) -> None:
        redis, short = self._system.redis, fault.for_s / 4
        match fault.kind:
            case "skew_redis":
                redis.skew_s = self._dice.choice((-5.0, -1.0, 1.0, 5.0))
            case "fill_redis":
                redis.set_memory(full=True)
                self._world.after(fault.for_s, self._make_room)
            case "lag":
                redis.replica_is_behind = True
                self._world.after(fault.for_s, self._catch_up)
            case "restart_redis":
                self._restart(short, None)
            case "fail_over":
                self._restart(short, lambda: redis.replica)
            case "lose_moments":
                photo = redis.photograph()
                self._world.after(self._dice.uniform(0.01, 2.0), partial(self._restart, short, lambda: photo))

    def _catch_up(self) -> None:
        self._system.redis.replica_is_behind = False

    def _make_room(self) -> None:
        self._system.redis.set_memory(full=False)

    def _restart(self, away_s: float, back_to: Callable[[], Photo | None] | None) -> None:
        redis = self._system.redis
        if not redis.is_up or self._over:
            return
        redis.crash()
        photo = back_to() if back_to is not None else None
        if photo is not None:
            redis.restore(photo)
            self.lost.append((photo.at, self._world.now))
            self._system.observer.forget()
        self._world.after(away_s, redis.start)

    def heal(self) -> None:
        """All faults are over."""
        self._over = True
        self._catch_up()
        self._make_room()
        for place in self._system.places:
            place.process.thaw()
