"""The soak: a system under load for as long as it is told, with one fault after another, and the report of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer

from . import ledger, look, usage
from .checker import Facts, Verdict, check
from .load import Heard, Load
from .nemesis import Done, Nemesis, plan
from .proxy import FaultProxy
from .system import System

DRAIN_S = 90.0


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    seed: int
    minutes: float = 30.0
    rate: float = 40.0
    """Submissions a second."""
    every_s: tuple[float, float] = (20.0, 40.0)
    """Seconds between the beginnings of two faults."""
    appendfsync: Literal["always", "everysec"] = "always"
    workers: int = 3
    apis: int = 2


@dataclass(frozen=True)
class Report:
    """The result of a soak."""

    options: Options
    heard: Heard
    verdict: Verdict
    ends: Counter[str]
    """State → tasks."""
    failures: int
    """Attempts that failed, as their tasks asked."""
    done: Sequence[Done]
    left: look.Left
    usage: Sequence[usage.Samples]
    consuming_after_s: Sequence[float]
    """For each fault: seconds from its heal to the next run that began."""
    fallen: Sequence[str]
    """Programs that ended by themselves or badly, and submissions that nobody answered."""

    @property
    def wrong(self) -> list[str]:
        """Why it failed; empty if it did not."""
        unexpected = [f"key {key} is left" for key in look.unexpected_keys(self.left)]
        refused = [f"refused: {each}" for each in self.heard.refused[:5]]
        return [*self.verdict.wrong, *unexpected, *refused, *self.fallen]

    def numbers(self) -> dict[str, Any]:
        """As JSON takes it."""
        late = sorted(self.consuming_after_s)
        verdict = self.verdict
        return {
            "seed": self.options.seed,
            "minutes": self.options.minutes,
            "appendfsync": self.options.appendfsync,
            "accepted": len(self.heard.acked),
            "requests repeated": self.heard.repeated,
            "ended as": dict(self.ends),
            "faults": dict(Counter(each.fault.kind for each in self.done)),
            "lost": len(verdict.lost),
            "duplicated": len(verdict.duplicated),
            "second completions": len(verdict.second_completions),
            "stale completions": len(verdict.stale),
            "unexpected": len(verdict.unexpected),
            "re-runs (of these after failures on purpose)": [verdict.reruns, self.failures],
            "consuming again after, s (median, worst)": [round(late[len(late) // 2], 2), round(late[-1], 2)]
            if late
            else [],
            "memory, MiB an hour": {each.name: round(each.mib_an_hour(), 2) for each in self.usage},
            "memory, MiB, in each fifth": {
                each.name: [round(rss / 1024**2, 1) for rss in each.fifths(each.rss)] for each in self.usage
            },
            "open files, in each fifth": {each.name: each.fifths(each.fds) for each in self.usage},
            "keys left": len(self.left.keys),
            "records": self.left.records,
            "consumers left": self.left.consumers,
            "workers remembered": self.left.beats,
        }

    def text(self) -> str:
        lines = [f"{name:46} {json.dumps(value)}" for name, value in self.numbers().items()]
        return "\n".join([*lines, *(f"WRONG {each}" for each in self.wrong[:50])])


async def soak(options: Options, binary: RedisBinary, folder: Path) -> Report:
    """Run it. Whatever happened is in the report; raises only if the system does not start."""
    # Records are kept until they were looked at: the check is over every task.
    with RedisServer(binary, appendfsync=options.appendfsync) as redis:
        async with (
            FaultProxy(redis.port) as proxy,
            System(proxy.url, folder, apis=options.apis, workers=options.workers) as system,
        ):
            return await _judged(options, system, redis, proxy)


async def _judged(options: Options, system: System, redis: RedisServer, proxy: FaultProxy) -> Report:
    load = Load(system.urls, options.seed, options.rate)
    nemesis = Nemesis(system, redis, proxy)
    steady = [system.apis[0], system.workers[0]]
    samples = [usage.Samples(each.name) for each in steady]
    watching = asyncio.create_task(usage.watch(steady, samples))
    loading = asyncio.create_task(load.run())
    try:
        faults = plan(options.seed, options.minutes * 60, options.every_s)
        await asyncio.gather(nemesis.carry_out(faults), asyncio.sleep(options.minutes * 60))
        load.stop()
        await asyncio.wait([loading], timeout=DRAIN_S)
    finally:
        watching.cancel()
        loading.cancel()
    client = AsyncClient(RedisSettings.parse(redis.url, "the soak"))
    try:
        await look.drained(client, DRAIN_S)
        ends = await look.ends_of(client, load.heard.acked)
        completions, left = await look.completions(client), await look.left_in(client)
    finally:
        await client.aclose()
    noted = ledger.read(system.ledger)
    forgetful = options.appendfsync != "always"
    unanswered = [f"{load.heard.open} submissions were never answered"] if load.heard.open else []
    return Report(
        options,
        load.heard,
        check(Facts(load.heard.acked, (), ends, noted, completions, forgetful)),
        Counter(str(each.state) for each in ends.values()),
        sum(each.failures for each in ends.values()),
        nemesis.done,
        left,
        [each.after(min(60.0, options.minutes * 12)) for each in samples],
        _consuming_after(nemesis.done, noted),
        [*nemesis.complaints, *system.fallen(), *unanswered],
    )


def _consuming_after(done: Sequence[Done], noted: ledger.Ledger) -> list[float]:
    began = sorted(note.at for note in noted.begun)
    after = (next((at - each.healed for at in began if at >= each.healed), None) for each in done)
    return [seconds for seconds in after if seconds is not None]
