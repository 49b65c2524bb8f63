"""Who works: every worker that beats or holds tasks, what it said of itself, and what it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from headrace.broker.broker import Queue, TaskView, WorkerSeen
from headrace.broker.demand import parse_beat
from headrace.client import Pause, Run, Steps
from headrace.filters import Filter
from headrace.listing import BUDGET, MAX_LIMIT, Ask, Caller, Page, carry_out, look_through
from headrace.task import State

LOOK_AGAIN_S: Final = 1.5
"""Seconds in which a worker with the usual beat of one second shows that it lives."""


class _Said(msgspec.Struct, frozen=True):
    """What a worker says of itself, as far as it is shown."""

    worker_id: str = ""
    version: str = ""
    host: str = ""
    pid: int = 0
    concurrency: int = 0
    started_ms: int = 0
    metrics_port: int = 0
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker process."""

    name: str
    """Its WORKER_ID and a random part that is new at each start."""
    queues: tuple[str, ...]
    worker_id: str = ""
    version: str = ""
    """Of headrace; '' for a worker too old to say, and so on below."""
    host: str = ""
    pid: int = 0
    slots: int = 0
    started_ms: int = 0
    types: tuple[str, ...] = ()
    """Types that it knows."""
    draining: bool = False
    """It claims no more."""
    alive: bool | None = None
    """Whether its beat changes; None: it was looked at only once."""
    held: int = 0
    """Tasks that it holds."""
    running: tuple[TaskView, ...] = ()
    """These, without payloads; fewer than `held` if there were too many to look at."""


@dataclass(slots=True)
class _Row:
    info: WorkerInfo
    beats: dict[str, str] = field(default_factory=dict)
    """Queue → beat."""


async def workers(client: Caller, queues: Sequence[Queue], budget: int = BUDGET) -> list[WorkerInfo]:
    """Whoever works in these queues, by name. Raises StoreUnavailable, RedisError."""
    return await carry_out(look(queues, budget), client)


def look(queues: Sequence[Queue], budget: int = BUDGET, again_s: float = 0.0) -> Steps[list[WorkerInfo]]:
    """The steps of `workers`; after `again_s` seconds, if any, it looks again to see who is alive."""
    rows = yield from _rows(queues)
    running = yield from _running(queues, budget)
    if again_s > 0 and rows:
        yield Pause(again_s)
        later = yield from _rows(queues)
        for name, row in rows.items():
            row.info = replace(row.info, alive=name in later and _beats_on(row.beats, later[name].beats))
    return [replace(rows[name].info, running=tuple(running.get(name, ()))) for name in sorted(rows)]


def _beats_on(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether the worker itself wrote meanwhile; `?` is the mark of one who takes it for dead."""
    return any(beat and not beat.startswith("?") and beat != before.get(queue) for queue, beat in now.items())


def _rows(queues: Sequence[Queue]) -> Steps[dict[str, _Row]]:
    rows: dict[str, _Row] = {}
    for queue in sorted(queues, key=lambda each: each.name):
        found: list[WorkerSeen] = yield Run(queue.workers())
        for seen in found:
            row = rows.setdefault(seen.name, _Row(WorkerInfo(seen.name, ())))
            row.beats[queue.name] = seen.beat
            row.info = _with(row.info, queue.name, seen)
    return rows


def _with(info: WorkerInfo, queue: str, seen: WorkerSeen) -> WorkerInfo:
    said = _read(seen.info)
    return replace(
        info,
        queues=(*info.queues, queue),
        worker_id=said.worker_id or info.worker_id,
        version=said.version or info.version,
        host=said.host or info.host,
        pid=said.pid or info.pid,
        slots=said.concurrency or info.slots,
        started_ms=said.started_ms or info.started_ms,
        types=said.types or info.types,
        draining=info.draining or parse_beat(seen.beat).draining,
        held=info.held + seen.held,
    )


def _read(info: bytes) -> _Said:
    """What cannot be read (something foreign wrote it) says nothing."""
    try:
        return msgspec.json.decode(info, type=_Said)
    except msgspec.DecodeError:
        return _Said()


def _running(queues: Sequence[Queue], budget: int) -> Steps[dict[str, list[TaskView]]]:
    page: Page = yield from look_through(
        queues, Ask(Filter(states=(State.PROCESSING,)), limit=MAX_LIMIT, budget=budget)
    )
    running: dict[str, list[TaskView]] = {}
    for seen in page.items:
        running.setdefault(seen.worker or "", []).append(seen)
    return running
