"""A container that ended is proof: what its worker ran is handed on at once, with the cause on the attempt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.broker.broker import Queue, Reclaim, WorkerSeen
from headrace.broker.client import AsyncClient
from headrace.errors import HeadraceError
from headrace.runtime.reclaimer import new_nonce, reclaim

from .fleet import Ended, Key, Pod
from .looker import Looker, Place
from .news import Event, News
from .workforce import pod_of

logger = logging.getLogger("headrace.operator")

EARLY: Final = 1_000
"""Ends of pods are kept for so many pools that are not known; most of those will never be."""


class HandOn:
    """Remembers which ends it has acted on; the watch shows each of them many times."""

    def __init__(self, looker: Looker) -> None:
        self._looker = looker
        self._done: dict[tuple[Key, str], Ended] = {}
        self._early: dict[Key, dict[str, tuple[Pod, bool]]] = {}
        """Ends that were shown before the pool was, whose queues nobody knew then."""
        self.handed_on = 0
        """Tasks, since this process began."""
        self.buried = 0
        """Of these, tasks that went to the dead letter because of too many crashes."""

    def is_new(self, key: Key, pod: Pod) -> bool:
        """Whether this pod shows an end that was not acted on yet."""
        if pod.ended is None:
            return False
        known = self._done.get((key, pod.name))
        return known is None or (known.at_s, known.cause) != (pod.ended.at_s, pod.ended.cause)

    def keep(self, key: Key, pod: Pod, deleted: bool) -> None:
        """Its pool is not known yet: at a start, the watches show what there is in any order."""
        self._early.setdefault(key, {})[pod.name] = (pod, deleted)
        while len(self._early) > EARLY:
            del self._early[next(iter(self._early))]

    def early(self, key: Key) -> list[tuple[Pod, bool]]:
        """What was kept of a pool that is known now, and whether the pod is gone; once."""
        return [*self._early.pop(key, {}).values()]

    def forget(self, key: Key, name: str) -> None:
        """The pod is gone."""
        self._done.pop((key, name), None)

    async def act(self, key: Key, pod: Pod, places: Iterable[Place]) -> list[News]:
        """Hand on what the dead workers of this pod held, in all its queues. Returns what people should know."""
        assert pod.ended is not None
        self._done[key, pod.name] = pod.ended
        counts = await asyncio.gather(*(self._in_queue(pod, place) for place in places))
        tasks = sum(counts)
        self.handed_on += tasks
        news = [] if pod.ended.harmless else [News(Event.WORKER_DIED, f"pod {pod.name}: {pod.ended.cause}")]
        if tasks:
            charged = "free of charge" if pod.ended.harmless else f"charged with a crash ({pod.ended.cause})"
            news.append(News(Event.TASKS_HANDED_ON, f"{tasks} tasks of pod {pod.name} were handed on, {charged}"))
        return news

    async def _in_queue(self, pod: Pod, place: Place) -> int:
        client, queue = self._looker.client(place.connection), self._looker.queue(place)
        assert pod.ended is not None
        if client is None:
            return 0
        try:
            seen = await client.call(queue.workers())
            dead = dead_boots(seen, pod.name, pod.ended)
            return sum([await self._take(client, queue, name, pod.ended) for name in dead])
        except HeadraceError as error:
            # Its beats stop, so another worker takes over when they have been missed for long enough.
            logger.warning("tasks of pod %s were not handed on at once: %s", pod.name, error)
            return 0

    async def _take(self, client: AsyncClient, queue: Queue, worker: str, ended: Ended) -> int:
        if ended.harmless:
            return await _hand_back(client, queue, worker)
        done = await reclaim(client, queue, Reclaim(worker, "*", new_nonce(), cause=ended.cause))
        self.buried += len(done.buried)
        return done.taken


async def _hand_back(client: AsyncClient, queue: Queue, worker: str) -> int:
    taken, more = 0, True
    while more:
        count, more = await client.call(queue.hand_back(worker, leave=True))
        taken += count
    return taken


class _Info(msgspec.Struct):
    started_ms: int = 0


def dead_boots(seen: Iterable[WorkerSeen], pod: str, ended: Ended) -> list[str]:
    """The workers of that pod that ended with its container, or before.

    Ends are told in whole seconds: of several boots, one that began in that very second may be the one that followed.
    """
    dead = sorted((_started_ms(each), each.name) for each in seen if is_dead(each, pod, ended))
    if ended.again_s is None and len(dead) > 1 and dead[-1][0] >= ended.at_s * 1_000:
        dead.pop()
    return [name for _, name in dead]


def is_dead(worker: WorkerSeen, pod: str, ended: Ended) -> bool:
    """Whether this is a boot of that pod from before its container ended: a later one lives."""
    return pod_of(worker.name) == pod and _started_ms(worker) < ended.alive_from_ms


def _started_ms(worker: WorkerSeen) -> int:
    try:
        return msgspec.json.decode(worker.info, type=_Info).started_ms if worker.info else 0
    except msgspec.DecodeError:
        return 0
