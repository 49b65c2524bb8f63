"""The worker processes of `headrace dev`: kept running, replaced when the code changes, their tasks handed on at once.

A process that ended is proof, so nobody waits for its heartbeat to be missed: what it held is handed on as soon as its
end is seen, and the record of each attempt tells what ended it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from prometheus_client import CollectorRegistry

from headrace.broker.broker import Reclaimed
from headrace.errors import HeadraceError
from headrace.metrics import WorkerCollector, exposition
from headrace.runtime.reclaimer import NAMED, NOTHING
from headrace.runtime.stats import TypeStats, WorkerStats

from .dev_lines import Screen, short
from .dev_metrics import Sums
from .dev_probe import IMPORT_S
from .dev_process import WorkerCommand, WorkerProcess, describe_exit
from .dev_store import Store, session_name

READY_S: Final = 30.0
"""How long the first workers may take until their first sign of life; then the screen comes without it."""
RELOADED_S: Final = IMPORT_S + READY_S
"""How long those of new code may take: an import that took the look at the application a minute takes them as long."""
STEADY_S: Final = 10.0
"""A process that lived so long is restarted at once; others after a pause that doubles."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 10.0
OVERTIME_S: Final = 8.0
"""Beyond its grace a worker may take so long to report and sign off; then it is killed."""
_LOOK_S: Final = 0.05
_OWN: Final = "headrace dev"


@dataclass(frozen=True)
class Crew:
    """Workers of one version of the application."""

    command: WorkerCommand
    processes: int
    slots: int
    """Of each process."""
    grace_s: float


class _Slot:
    """The place of one process: when that ends, another takes it."""

    def __init__(self, number: int, crew: Crew) -> None:
        self.name = f"w{number}"
        self.crew = crew
        self.process: WorkerProcess | None = None
        self.closing = asyncio.Event()
        self.keeper: asyncio.Task[None] | None = None


class Workers:
    """All worker processes of one `headrace dev`."""

    def __init__(self, store: Store, screen: Screen) -> None:
        self.sums = Sums()
        self.deaths = 0
        """Processes that ended without being asked to."""
        self._store = store
        self._screen = screen
        self._own = _Own()
        self._session = session_name()
        self._starts = itertools.count(1)
        self._slots: list[_Slot] = []

    @property
    def processes(self) -> list[WorkerProcess]:
        """Those that run now."""
        return [slot.process for slot in self._slots if slot.process is not None and slot.process.alive]

    async def start(self, crew: Crew, patience_s: float = READY_S) -> bool:
        """Start a crew beside those that run. Returns whether all of it showed a sign of life."""
        slots = [_Slot(number, crew) for number in range(1, crew.processes + 1)]
        self._slots += slots
        for slot in slots:
            slot.keeper = asyncio.create_task(self._keep(slot), name=slot.name)
        return await self._ready(slots, patience_s)

    async def replace(self, crew: Crew) -> bool:
        """Start this crew; once it works, stop the others. If it does not, it is stopped and the others stay."""
        earlier = list(self._slots)
        works = await self.start(crew, RELOADED_S)
        leaving = earlier if works else [slot for slot in self._slots if slot not in earlier]
        await self._close(leaving)
        return works

    async def stop(self, at_once: asyncio.Event) -> None:
        """Let all finish within their grace, or, when `at_once` is set, end them now."""
        closing = asyncio.create_task(self._close(list(self._slots)))
        hurry = asyncio.create_task(at_once.wait())
        await asyncio.wait([closing, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for process in self.processes:
            process.kill()
        await closing

    def kill_one(self, rng: Random) -> WorkerProcess | None:
        """SIGKILL for one of those that run, as the kernel does when memory runs out. None if none runs."""
        running = self.processes
        if not running:
            return None
        victim = rng.choice(running)
        victim.kill()
        return victim

    # keeping them

    async def _keep(self, slot: _Slot) -> None:
        early_deaths = 0
        while not slot.closing.is_set():
            process = WorkerProcess(
                f"{self._session}-{slot.name}.{next(self._starts)}", slot.crew.command, self._screen.child(slot.name)
            )
            slot.process = process
            began = asyncio.get_running_loop().time()
            try:
                await self._ended(slot, process, await process.run())
            except OSError as error:  # of its start: no memory or no process to be had for the moment
                self._screen.say(f"{slot.name} cannot be started ({error}); it is tried again", level="error")
            steady = asyncio.get_running_loop().time() - began >= STEADY_S
            early_deaths = 0 if steady else early_deaths + 1
            if early_deaths:
                await _event_or_time(slot.closing, min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** (early_deaths - 1)))

    async def _ended(self, slot: _Slot, process: WorkerProcess, code: int) -> None:
        self.sums.ended(process.worker_id)
        asked = process.expected_to_end
        how = describe_exit(code)
        if not asked:
            self.deaths += 1
        try:
            if asked or code == 0:
                await self._store.hand_back(process.worker_id)
                done = NOTHING
            else:
                done = await self._store.hand_on(process.worker_id, how)
                self.sums.heard(_OWN, self._own.text(done))
        except HeadraceError as error:
            self._screen.say(f"the tasks of {slot.name} go on in some seconds: {error}", level="warning")
            return
        if not asked:
            self._screen.say(f"{slot.name} ended ({how});{_told(done)} it is started again", level="warning")

    async def _ready(self, slots: Sequence[_Slot], patience_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + patience_s
        while asyncio.get_running_loop().time() < deadline:
            if any(slot.process and slot.process.pid and not slot.process.alive for slot in slots):
                return False
            seen = await self._beating()
            if all(slot.process is not None and slot.process.worker_id in seen for slot in slots):
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def _beating(self) -> set[str]:
        try:
            return {each.id for each in await self._store.workers() if each.worker.beat}
        except HeadraceError:
            return set()  # Redis is away for a moment; the deadline of who asks holds

    async def _close(self, slots: Sequence[_Slot]) -> None:
        for slot in slots:
            slot.closing.set()
            if slot.process is not None:
                slot.process.expected_to_end = True
                slot.process.terminate()
        keepers = [slot.keeper for slot in slots if slot.keeper is not None]
        if keepers:
            patience = max(slot.crew.grace_s for slot in slots) + OVERTIME_S
            _, left = await asyncio.wait(keepers, timeout=patience)
            for slot in slots:
                if slot.keeper in left and slot.process is not None:
                    self._screen.say(f"{slot.name} does not stop; it is ended now", level="warning")
                    slot.process.kill()
            await asyncio.gather(*keepers)
        self._slots = [slot for slot in self._slots if slot not in slots]


def _told(done: Reclaimed) -> str:
    parts = []
    if moved := len(done.handed_on):
        named = ", ".join(short(task_id) for task_id in done.handed_on[:NAMED])
        more = ", …" if moved > NAMED else ""
        parts.append(f"{moved} task{'' if moved == 1 else 's'} handed on ({named}{more})")
    if done.buried:  # each has a line of its own
        parts.append(f"{len(done.buried)} failed")
    return f" {', '.join(parts)};" if parts else ""


class _Own:
    """What this process itself did to tasks, as the metrics of one more worker."""

    def __init__(self) -> None:
        self._stats = WorkerStats(())
        self._registry = CollectorRegistry()
        self._registry.register(WorkerCollector(self._stats))

    def text(self, done: Reclaimed) -> str:
        """All of it, with this added."""
        for dead in done.buried:
            self._stats.types.setdefault(dead.type, TypeStats())
        self._stats.reclaimed(done)
        return exposition(self._registry)[0].decode()


async def _event_or_time(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
