"""Faults put into the worker and the scripts on purpose: a model that misses one proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from headrace.broker import durability
from headrace.broker.broker import Queue
from headrace.broker.connection import Connection
from headrace.broker.keys import STREAMS
from headrace.broker.replies import WorkerSeen
from headrace.broker.scripts import Script
from headrace.bulk_run import Runner
from headrace.runtime import attempt, claims, reclaimer
from headrace.runtime.claims import QueueClaims
from headrace.runtime.shares import Shares
from headrace.settings import Local
from headrace.task import Counters
from headrace_api.ingest import Door
from model_mutants import MUTANTS, Mutant

from .timed_scripts import TimedScripts

Into = Callable[[pytest.MonkeyPatch], None]
_OF_SCRIPTS: Final = {mutant.name: mutant for mutant in MUTANTS}


def into_scripts(name: str) -> Into:
    """One script with this fault of the first model."""
    mutant: Mutant = _OF_SCRIPTS[name]

    def source_of(self: TimedScripts, script: Script) -> str:
        return mutant.source() if script.name == mutant.script else script.source

    return lambda patch: patch.setattr(TimedScripts, "source_of", source_of)


def judges_by_idle_time(patch: pytest.MonkeyPatch) -> None:
    """Who was first seen to hold something that long ago is dead, whether it beats or not."""

    def judge(self: reclaimer.Watch, now: float, answered: float, seen: WorkerSeen, last: Any) -> Any:
        return sound(self, now, answered, seen, last and reclaimer._Last(seen.beat, last.since))

    sound = reclaimer.Watch._judge
    patch.setattr(reclaimer.Watch, "_judge", judge)


def counts_one_less(patch: pytest.MonkeyPatch) -> None:
    """A failure is no attempt."""

    def fewer(attempts: int, failures: int, crashes: int, interruptions: int) -> Counters:
        return Counters(attempts - 1, failures, crashes, interruptions)

    patch.setattr(attempt, "Counters", fewer)


def _forgets_what_was_sent(patch: pytest.MonkeyPatch) -> None:
    def connected(self: QueueClaims, connection: Any) -> None:
        self._sent.clear()
        sound(self, connection)

    sound = QueueClaims.connected
    patch.setattr(QueueClaims, "connected", connected)


def _claims_at_once(patch: pytest.MonkeyPatch) -> None:
    def connected(self: QueueClaims, connection: Any) -> None:
        sound(self, connection)
        self._ready = True
        self._pump()

    sound = QueueClaims.connected
    patch.setattr(QueueClaims, "connected", connected)


def _adopts_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(QueueClaims, "_adopt", lambda self, unknown: None)


def _asks_for_no_confirmation(patch: pytest.MonkeyPatch) -> None:
    def made(self: Door, *args: Any) -> None:
        sound(self, *args)
        self._durability = Local()

    sound = Door.__init__
    patch.setattr(Door, "__init__", made)


def _confirms_what_was_only_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(durability, "touches", lambda durability: False)


def _gives_nothing_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "give_up", lambda self, seconds: None)


def _lowest_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claims, "order_of", lambda suspects: STREAMS[::-1])


def _all_into_one_queue(patch: pytest.MonkeyPatch) -> None:
    def made(self: Door, *args: Any) -> None:
        sound(self, *args)
        self.queue = Queue("default")

    sound = Door.__init__
    patch.setattr(Door, "__init__", made)


def _starves_all_but_one(patch: pytest.MonkeyPatch) -> None:
    def part(self: Shares, of: QueueClaims, free: int) -> int:
        return sound(self, of, free) if of is self._queues[0] else 0

    sound = Shares.part
    patch.setattr(Shares, "part", part)


def _cancels_nothing(patch: pytest.MonkeyPatch) -> None:
    async def cancelled(self: Runner, each: Any, again: bool) -> None:
        """It says that it has."""

    patch.setattr(Runner, "_cancel", cancelled)


def _keeps_records(patch: pytest.MonkeyPatch) -> None:
    kept = "argument or ttl"

    def source_of(self: TimedScripts, script: Script) -> str:
        assert script.name != "cycle" or kept in script.source
        return script.source.replace(kept, f"{kept} * 100")

    patch.setattr(TimedScripts, "source_of", source_of)


@dataclass(frozen=True)
class Fault:
    """What is changed, and the profile of the runs that should notice soon."""

    name: str
    profile: str
    into: Into

    def __str__(self) -> str:
        return self.name


FAULTS: Final = (
    Fault("acknowledged before the record", "deaths", into_scripts("acknowledged when claimed")),
    Fault("a failure is no attempt", "calm", counts_one_less),
    Fault("beats are not heeded", "calm", judges_by_idle_time),
    Fault("no fence", "frozen", into_scripts("no fence")),
    Fault("submitted without a look at loc", "network", into_scripts("live tasks are not looked up")),
    Fault("no bound of crashes", "deaths", into_scripts("no bound of crashes")),
    Fault("what was sent is forgotten with the connection", "network", _forgets_what_was_sent),
    Fault("claims before it reconciles", "network", _claims_at_once),
    Fault("adopts nothing that it did not know", "network", _adopts_nothing),
    Fault("confirmations are not asked for", "failover", _asks_for_no_confirmation),
    Fault("a repeated call writes nothing, and WAIT says yes", "failover", _confirms_what_was_only_read),
    Fault("a stop keeps connections that swallow all", "stops", _gives_nothing_up),
    Fault("the lowest priority first", "queues", _lowest_first),
    Fault("all tasks go into one queue", "queues", _all_into_one_queue),
    Fault("one queue gets all slots", "queues", _starves_all_but_one),
    Fault("full memory stops reports", "memory", into_scripts("refused at full memory")),
    Fault("a bulk job counts what it did not do", "jobs", _cancels_nothing),
    Fault("records outlive their time", "expiry", _keeps_records),
)
