"""Many tasks at once: retry, replay, cancel or delete those that fit a filter, as a job with a count and progress.

A job is kept in Redis and carried out in steps by one process that holds its lease (`headrace.bulk_run`). If that
process dies, another goes on where it stopped, and counts no task twice.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, get_args

import msgspec

from headrace import listing, queues
from headrace.broker.broker import Call, Depth, Queue
from headrace.broker.keys import NamespaceKeys
from headrace.broker.shared import shared_call
from headrace.bulk_job import Action, BulkJob, Chosen, Count, Kept, Order, Work, job_of, work_of
from headrace.errors import FieldError, InvalidRequest, TooManyBulks, UnknownBulk, WrongCount
from headrace.filters import Filter
from headrace.queues import Caller
from headrace.task import State, queue_of

_ID: Final = re.compile(r"[0-9a-f]{20}")
MAX_IDS: Final = 1_000
MAX_RUNNING: Final = 8
"""Jobs of a namespace that run at once."""
MAX_KEPT: Final = 100
KEEP_S: Final = 86_400
"""Seconds for which a job is kept after its last step."""
LEASE_MS: Final = 5_000
"""A process that keeps nothing for so long has lost its job to the next one that looks."""
COUNT_S: Final = 5.0
"""Seconds that counting may take."""
COUNT_PAGE: Final = 200
"""Tasks a page when counting, so that others get their turn."""

WAITING: Final = (State.PENDING, State.SCHEDULED, State.RETRYING, State.PARKED)
POSSIBLE: Final[Mapping[Action, tuple[State, ...]]] = {
    "retry": (State.FAILED, State.RETRYING, State.SCHEDULED),
    "replay": (State.FAILED,),
    "cancel": (*WAITING, State.PROCESSING),
    "delete": (State.FAILED, State.COMPLETED, State.CANCELLED),
}
"""The states in which a task may be for an action."""
DEFAULT: Final[Mapping[Action, tuple[State, ...]]] = {
    "retry": (State.FAILED,),
    "replay": (State.FAILED,),
    "cancel": WAITING,
    "delete": (State.FAILED,),
}
"""Those that are meant by a filter that names none."""


def new_owner() -> str:
    """A name for a process that carries out jobs."""
    return secrets.token_hex(8)


__all__ = ["Action", "BulkJob", "Chosen", "Count", "Jobs", "Order", "Work", "check", "new_owner"]


class Jobs:
    """The bulk jobs of one namespace. All methods raise StoreUnavailable and RedisError, too."""

    def __init__(self, client: Caller, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    # for whoever orders

    async def count(self, order: Order, limit_s: float = COUNT_S) -> Count:
        """How many tasks it is about: exactly, or those seen in so many seconds. Raises InvalidRequest."""
        filter = check(order)
        if filter is None:
            return Count(len(set(order.ids)))
        wanted = await self._queues(order, filter)
        if _is_plain(filter):
            depths = [await queues.depth(self._client, queue) for queue in wanted]
            return Count(sum(_counted(depth, filter.states) for depth in depths))
        return await self._count_one_by_one(wanted, filter, time.monotonic() + limit_s)

    async def _count_one_by_one(self, wanted: list[Queue], filter: Filter, until: float) -> Count:
        found, cursor = 0, None
        while True:
            page = await listing.page(self._client, wanted, listing.Ask(filter, cursor, COUNT_PAGE))
            found, cursor = found + len(page.items), page.next
            if cursor is None:
                return Count(found)
            if time.monotonic() > until:
                return Count(found, truncated=True)

    async def start(self, order: Order, expected_count: int | None = None, owner: str = "") -> BulkJob:
        """Begin a job. `owner` is who carries it out; '' = whichever process takes it first.

        Raises InvalidRequest, TooManyBulks, and WrongCount if another number of tasks than expected fit: then nothing
        was done.
        """
        filter = check(order)
        if expected_count is not None:
            counted = await self.count(order)
            if counted != Count(expected_count):
                raise WrongCount(expected_count, counted.found, counted.truncated)
        names = tuple(queue.name for queue in await self._queues(order, filter))
        ids = tuple(dict.fromkeys(order.ids))
        kept = Kept(order.action, names, order.who, filter.text() if filter else "", ids)
        bulk_id = secrets.token_hex(10)
        lease_ms = LEASE_MS if owner else 0
        args = ("", bulk_id, msgspec.json.encode(kept), owner, lease_ms, MAX_RUNNING, MAX_KEPT, KEEP_S)
        begun = await self._client.call(self._call("bulk_start", args))
        if not begun:
            raise TooManyBulks(MAX_RUNNING)
        return await self.get(bulk_id)

    async def _queues(self, order: Order, filter: Filter | None) -> list[Queue]:
        if filter is None:
            named = {name for each in order.ids if (name := queue_of(each)) is not None}
            return [Queue(name, self.namespace) for name in sorted(named)]
        given = order.queues
        names = await queues.names(self._client, self.namespace) if given is None else sorted(given)
        return [Queue(name, self.namespace) for name in names if not filter.queues or name in filter.queues]

    async def get(self, bulk_id: str) -> BulkJob:
        """The job as it is now. Raises UnknownBulk."""
        fields = await self._read(bulk_id)
        try:
            return job_of(bulk_id, fields)
        except (msgspec.DecodeError, ValueError):  # something foreign wrote it
            raise UnknownBulk(bulk_id) from None

    async def ls(self) -> list[BulkJob]:
        """Those that are kept, newest first."""
        ids = [id_.decode() for id_ in await self._client.command("ZREVRANGE", self._key(), 0, -1)]
        jobs = []
        for bulk_id in ids:
            try:
                jobs.append(await self.get(bulk_id))
            except UnknownBulk:
                continue  # forgotten meanwhile
        return jobs

    async def abort(self, bulk_id: str) -> BulkJob:
        """End a job after the step that it is in. Raises UnknownBulk."""
        if not _ID.fullmatch(bulk_id) or not await self._client.call(self._call("bulk_abort", (bulk_id,), int)):
            raise UnknownBulk(bulk_id[:64])
        return await self.get(bulk_id)

    # for whoever carries out

    async def take(self, owner: str, bulk_id: str = "") -> Work | None:
        """A job whose owner is gone, or this one, from now on in this owner's hands; None if there is none.

        Its own it gets also when it has ended: the answer to its last `save` may have been lost.
        """
        found: str = await self._client.call(self._call("bulk_take", ("", owner, LEASE_MS, bulk_id)))
        if not found:
            return None
        return work_of(found, await self._read(found))

    async def save(self, work: Work, owner: str, chosen: Sequence[Chosen], *, last: bool = False) -> str:
        """Keep how far the job is, and what the next step acts on. Returns running, done, aborted or lost."""
        texts = (msgspec.json.encode(work.progress), msgspec.json.encode(chosen))
        args = ("", work.id, owner, LEASE_MS, *texts, int(last), KEEP_S)
        return await self._client.call(self._call("bulk_save", args))

    async def let_go(self, work: Work, owner: str) -> None:
        """Leave a job to whoever takes it next, at once."""
        await self._client.call(self._call("bulk_save", ("", work.id, owner, 0, "", "", 0, KEEP_S)))

    def _call(self, name: str, args: Sequence[bytes | str | int], parse: Any = bytes.decode) -> Call[Any]:
        return shared_call(name, self.namespace, args, parse)

    def _key(self, bulk_id: str = "") -> str:
        key = NamespaceKeys(self.namespace)["bulk"]
        return f"{key}:{bulk_id}" if bulk_id else key

    async def _read(self, bulk_id: str) -> dict[bytes, bytes]:
        if not _ID.fullmatch(bulk_id):
            raise UnknownBulk(bulk_id[:64])
        flat = await self._client.command("HGETALL", self._key(bulk_id))
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if b"order" not in fields or b"begun" not in fields:
            raise UnknownBulk(bulk_id)
        return fields


Purged = Literal["waiting", "dead"]
"""What a queue may be emptied of."""


_EITHER: Final = FieldError("", "it needs either a filter or ids", "give one of the two")


def purge_order(queue: str, tasks: Purged, who: str) -> Order:
    """All that waits in a queue is cancelled, or its dead letters are deleted. Raises InvalidRequest."""
    if tasks not in get_args(Purged):
        raise InvalidRequest([FieldError("/tasks", f"{tasks!r} cannot be purged", "say waiting, or dead")])
    action: Action = "cancel" if tasks == "waiting" else "delete"
    return Order(action, Filter(states=DEFAULT[action]), queues=(queue,), who=who)


def refuse_both(filter: object | None, ids: object | None) -> None:
    """Ids beside a filter are refused also if there are none: who gives a list means no other tasks. Raises
    InvalidRequest."""
    if filter is not None and ids is not None:
        raise InvalidRequest([_EITHER])


def check(order: Order) -> Filter | None:
    """The order's filter with the states that are meant; None for one by ids. Raises InvalidRequest."""
    if (order.filter is None) == (not order.ids):
        raise InvalidRequest([_EITHER])
    if len(order.ids) > MAX_IDS:
        detail = f"has {len(order.ids)} ids, the limit is {MAX_IDS}"
        raise InvalidRequest([FieldError("/ids", detail, "give a filter, or several orders")])
    if order.filter is None:
        return None
    wrong = [state for state in order.filter.states if state not in POSSIBLE[order.action]]
    if wrong:
        detail = f"a task that is {wrong[0]} cannot be {PARTICIPLES[order.action]}"
        hint = f"possible are {', '.join(POSSIBLE[order.action])}"
        raise InvalidRequest([FieldError("/filter", detail, hint)])
    return replace(order.filter, states=order.filter.states or DEFAULT[order.action])


PARTICIPLES: Final[Mapping[Action, str]] = {
    "retry": "retried",
    "replay": "replayed",
    "cancel": "cancelled",
    "delete": "deleted",
}

_LATER: Final = {State.SCHEDULED, State.RETRYING}
_COUNTED: Final = {State.PENDING, State.PROCESSING, State.PARKED, State.FAILED} | _LATER


def _is_plain(filter: Filter) -> bool:
    """Whether Redis keeps the number: whole states, without any other condition."""
    states = set(filter.states)
    plain = Filter(states=filter.states, queues=filter.queues)
    return filter == plain and states <= _COUNTED and (states >= _LATER or not _LATER & states)


def _counted(depth: Depth, states: Sequence[State]) -> int:
    numbers = {
        State.PENDING: depth.waiting,
        State.PROCESSING: depth.processing,
        State.PARKED: depth.parked,
        State.FAILED: depth.dead,
        State.SCHEDULED: depth.delayed,
        State.RETRYING: 0,  # counted with the scheduled ones
    }
    return sum(numbers[state] for state in states)
