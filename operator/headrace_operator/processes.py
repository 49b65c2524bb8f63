"""The port of the control loop, by processes of this machine: each is what a pod is in a cluster.

A process that ended is started again under the same name, after a pause that doubles, unless it was to leave. Its end
is told before it is started again, so that what its worker held is handed on first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from itertools import count
from typing import Any, Final, Protocol

from .cluster import ClusterError, Conflict
from .fleet import Ended, Fleet, Key, Pod
from .manifests import Pool, Ref
from .news import News
from .orders import Order, order_of

logger = logging.getLogger("headrace.operator")

STEADY_S: Final = 30.0
"""A process that lived so long is started again at once; others after a pause that doubles, as kubelet does."""
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 30.0
OVERTIME_S: Final = 8.0
"""Beyond its grace a worker may take so long to report and sign off; then it is killed."""
LOOK_S: Final = 0.1


class Process(Protocol):
    """One child."""

    async def run(self) -> int:
        """Start it, and return when it ended: its exit code, or minus the signal that killed it."""
        ...

    def terminate(self) -> None:
        """SIGTERM."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...


class Host(Protocol):
    """What the port needs of the program around it."""

    default_grace_s: float
    """For pools that name no grace of their own."""

    def launch(self, pool: Pool, name: str, order: Order) -> Process:
        """A process that is not started yet; `name` is its WORKER_ID."""
        ...

    def describe(self, code: int) -> str:
        """How a process ended, in words."""
        ...

    def beating(self, key: Key) -> AbstractSet[str]:
        """Processes whose workers give signs of life: they are ready."""
        ...

    async def ended(self, key: Key, pod: Pod) -> None:
        """Hand on what this one held; it is started again when that is done."""
        ...

    async def show(self, pool: Ref, status: dict[str, Any]) -> None: ...

    async def tell(self, pool: Ref, news: News) -> None: ...


class _Replica:
    def __init__(self, name: str, order: Order) -> None:
        self.name = name
        self.order = order
        self.born_s = time.time()
        self.process: Process | None = None
        self.ended: Ended | None = None
        self.waiting = ""
        self.cheap = False
        self.old = False
        """A newer template or newer code is to replace it."""
        self.leave = asyncio.Event()
        self.keeper: asyncio.Task[None] | None = None

    def pod(self, beating: Collection[str] = ()) -> Pod:
        leaving = self.leave.is_set()
        ready = self.process is not None and self.name in beating
        return Pod(
            self.name, self.born_s, ready=ready, leaving=leaving, cheap=self.cheap, waiting=self.waiting,
            ended=self.ended,
        )  # fmt: skip


class _Crew:
    """What runs of one pool."""

    def __init__(self, pool: Pool, order: Order) -> None:
        self.key = Key(pool.namespace, pool.name)
        self.pool = pool
        self.order = order
        self.asked_for = 0
        self.replicas: list[_Replica] = []
        self.rollout: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._run = secrets.token_hex(2)

    @property
    def staying(self) -> list[_Replica]:
        return [each for each in self.replicas if not each.leave.is_set()]

    @property
    def current(self) -> list[_Replica]:
        return [each for each in self.staying if not each.old]

    def next_name(self) -> str:
        """No two runs on one Redis take each other's workers for their own."""
        return f"dev-{self.pool.name}-{self._run}-{next(self._numbers)}"


class ProcessCluster:
    """All pools whose processes this program runs. For one event loop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._crews: dict[Key, _Crew] = {}
        self._closed = False

    @property
    def names(self) -> list[str]:
        """Processes that run now."""
        return [each.name for crew in self._crews.values() for each in crew.replicas if each.process is not None]

    # the port

    def fleet(self, key: Key) -> Fleet:
        crew = self._crews.get(key)
        if crew is None:
            return Fleet(exists=False)
        beating = self._host.beating(key)
        pods = tuple(each.pod(beating) for each in crew.replicas)
        return Fleet(crew.asked_for, pods, rollout=crew.rollout is not None)

    async def apply(self, pool: Pool) -> None:
        """Raises InvalidTemplate, and ClusterError at the end of everything."""
        if self._closed:
            raise ClusterError("everything is being stopped")
        order = order_of(pool, self._host.default_grace_s)
        key = Key(pool.namespace, pool.name)
        crew = self._crews.setdefault(key, _Crew(pool, order))
        changed, crew.pool, crew.order = order != crew.order, pool, order
        if changed:
            self.renew(key)

    async def scale(self, key: Key, replicas: int, fleet: Fleet) -> None:
        crew = self._crews.get(key)
        if crew is None or crew.asked_for != fleet.asked_for:
            raise Conflict(f"{fleet.asked_for} replicas of {key.name} are not what is asked for any more")
        crew.asked_for = replicas
        self._fill(crew)
        surplus = max(0, len(crew.current) - replicas)
        for each in sorted(crew.current, key=_first_to_go)[:surplus]:
            self._stop(each)

    async def look_again(self, key: Key) -> None:
        """What `fleet` says is always so."""

    async def mark(self, key: Key, pods: Sequence[str], *, cheap: bool) -> None:
        crew = self._crews.get(key)
        for each in crew.replicas if crew else ():
            each.cheap = cheap if each.name in pods else each.cheap

    async def guard(self, key: Key, pods: Sequence[str], *, busy: bool) -> None:
        """Nobody moves the processes of a machine."""

    async def show(self, pool: Ref, status: dict[str, Any]) -> None:
        await self._host.show(pool, status)

    async def tell(self, pool: Ref, news: News) -> None:
        await self._host.tell(pool, news)

    # what no control loop asks for

    def renew(self, key: Key) -> None:
        """Replace all processes of a pool: new ones start beside the old ones, which leave when those work."""
        crew = self._crews.get(key)
        if crew is None or not crew.replicas:
            return
        if crew.rollout is not None:
            crew.rollout.cancel()
        beating = self._host.beating(key)
        for each in crew.staying:
            each.old = True
            if each.name not in beating:
                self._stop(each)
        crew.rollout = asyncio.create_task(self._roll(crew), name=f"rollout {key}")

    async def remove(self, key: Key) -> None:
        """The pool is gone: let its processes end within their grace."""
        crew = self._crews.pop(key, None)
        if crew is not None:
            await self._close([crew])

    async def aclose(self, at_once: asyncio.Event) -> None:
        """Let everything end within its grace, or, when `at_once` is set, end it now."""
        self._closed = True
        crews, self._crews = self._crews, {}
        closing = asyncio.create_task(self._close(crews.values()))
        hurry = asyncio.create_task(at_once.wait())
        await asyncio.wait([closing, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for each in [each for crew in crews.values() for each in crew.replicas]:
            if each.process is not None:
                each.process.kill()
        await closing

    async def _close(self, crews: Collection[_Crew]) -> None:
        for crew in crews:
            if crew.rollout is not None:
                crew.rollout.cancel()
            for each in crew.staying:
                self._stop(each)
        keepers = [each.keeper for crew in crews for each in crew.replicas if each.keeper is not None]
        await asyncio.gather(*keepers)

    async def _roll(self, crew: _Crew) -> None:
        self._fill(crew)
        while not self._host.beating(crew.key) >= {each.name for each in crew.current}:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        for each in [each for each in crew.staying if each.old]:
            self._stop(each)
        crew.rollout = None

    def _fill(self, crew: _Crew) -> None:
        for _ in range(crew.asked_for - len(crew.current)):
            replica = _Replica(crew.next_name(), crew.order)
            crew.replicas.append(replica)
            replica.keeper = asyncio.create_task(self._keep(crew, replica), name=replica.name)

    def _stop(self, replica: _Replica) -> None:
        replica.leave.set()
        if replica.process is not None:
            replica.process.terminate()
            asyncio.get_running_loop().call_later(replica.order.grace_s + OVERTIME_S, replica.process.kill)

    # one replica, from its start to its end

    async def _keep(self, crew: _Crew, replica: _Replica) -> None:
        early = 0
        while not replica.leave.is_set():
            began = time.monotonic()
            cause, harmless = await self._run(crew, replica)
            replica.ended = Ended(time.time(), cause, harmless or replica.leave.is_set())
            await self._tell_end(crew.key, replica.pod())
            early = 0 if time.monotonic() - began >= STEADY_S else early + 1
            pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** (early - 2)) if early > 1 else 0.0
            await _rest(replica, cause, pause_s)
        crew.replicas.remove(replica)

    async def _tell_end(self, key: Key, pod: Pod) -> None:
        try:
            await self._host.ended(key, pod)
        except Exception:
            logger.exception(
                "what %s held was not handed on at once; that is done when its beats were missed", pod.name
            )

    async def _run(self, crew: _Crew, replica: _Replica) -> tuple[str, bool]:
        """One life of its process. Returns how it ended, and whether that was in order."""
        replica.process = self._host.launch(crew.pool, replica.name, replica.order)
        replica.waiting = ""
        try:
            code = await replica.process.run()
        except OSError as error:
            return f"it cannot be started: {error}", True
        finally:
            replica.process = None
        return self._host.describe(code), code == 0


async def _rest(replica: _Replica, cause: str, pause_s: float) -> None:
    if not pause_s or replica.leave.is_set():
        return
    replica.waiting = f"CrashLoopBackOff: {replica.name} ended ({cause}) and is started again in {pause_s:g} s"
    try:
        async with asyncio.timeout(pause_s):
            await replica.leave.wait()
    except TimeoutError:
        return


def _first_to_go(replica: _Replica) -> tuple[bool, bool, float]:
    """Marked ones, then those that do not run, then the newest."""
    return (not replica.cheap, replica.process is not None, -replica.born_s)
