"""Each transition as a request: the call that goes to Redis, and what the model answers to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.broker.broker import NewTask, Queue, Reclaim, Report
from model_net import Request
from model_queue import ModelQueue
from model_redis import RefusedError
from model_task import timeless


@dataclass
class Calls:
    """Requests to one queue; a request carries the time at which it was made, however late it arrives."""

    queue: Queue
    model: ModelQueue
    now: int

    def init(self, run_id: str) -> Request:
        now, m = self.now, self.model
        return Request("init", self.queue.init(run_id, now), lambda: m.init(run_id, now))

    def submit(self, batch: Sequence[NewTask], max_depth: int, touch: bool) -> Request:
        now, m = self.now, self.model
        call = self.queue.submit(batch, max_depth, touch=touch, now_ms=now)
        return Request("submit", call, lambda: m.submit(batch, max_depth, touch, now))

    def cycle(self, worker: str, slots: int, reports: Sequence[Report], order: str, touch: bool) -> Request:
        now, m = self.now, self.model
        call = self.queue.cycle(worker, slots, reports, order=order, touch=touch, now_ms=now)
        return Request("cycle", call, lambda: m.cycle(worker, slots, reports, order, touch, now))

    def promote(self, ids: Sequence[str], limit: int) -> Request:
        now, m = self.now, self.model
        call = self.queue.promote(ids, limit=limit, now_ms=now)
        return Request("promote", call, lambda: m.promote(ids, limit, now))

    def reclaim(self, order: Reclaim) -> Request:
        now, m = self.now, self.model
        return Request("reclaim", self.queue.reclaim(order, now_ms=now), lambda: m.reclaim(order, now))

    def hand_back(self, worker: str, places: Sequence[str], leave: bool) -> Request:
        now, m = self.now, self.model
        call = self.queue.hand_back(worker, places, leave=leave, now_ms=now)
        return Request("hand_back", call, lambda: m.hand_back(worker, places, leave, now))

    def cancel(self, id_: str, force: bool) -> Request:
        now, m = self.now, self.model
        call = self.queue.cancel(id_, force=force, now_ms=now)
        return Request("cancel", call, lambda: m.cancel(id_, force, now))

    def replay(self, id_: str, place: str, touch: bool) -> Request:
        call = self.queue.replay(id_, place, touch=touch)
        return Request("replay", call, lambda: self.model.replay(id_, place, touch))

    def purge(self, ids: Sequence[str], before_ms: int, keep: int, limit: int) -> Request:
        call = self.queue.purge(ids, before_ms=before_ms, keep=keep, limit=limit)
        return Request("purge", call, lambda: self.model.purge(ids, before_ms, keep, limit))

    def release(self, keys: Sequence[str], limit: int) -> Request:
        return Request("release", self.queue.release(keys, limit=limit), lambda: self.model.release(keys, limit))

    def pause(self, paused: bool) -> Request:
        now, m = self.now, self.model
        return Request("pause", self.queue.pause(paused, now), lambda: m.pause(paused, now))

    def beat(self, worker: str, counter: int, info: bytes) -> Request:
        call = self.queue.beat(worker, counter, info)
        return Request("beat", call, lambda: self.model.beat(worker, counter, info), shape=_sorted_asked)

    def reconcile(self, worker: str, known: Sequence[str]) -> Request:
        call = self.queue.reconcile(worker, [place.encode() for place in known])
        return Request("reconcile", call, lambda: self.model.reconcile(worker, known))

    def get(self, id_: str) -> Request:
        return Request("get", self.queue.get(id_), lambda: self.model.get(id_))

    def workers(self) -> Request:
        return Request("workers", self.queue.workers(), self.model.workers, shape=_by_name)

    def depth(self) -> Request:
        return Request("depth", self.queue.depth(), self.model.depth, shape=_lengths)

    def demand(self) -> Request:
        return Request("demand", self.queue.demand(0), self.model.depth, shape=_lengths)


def _sorted_asked(raw: list[Any]) -> list[Any]:
    paused, due, asked, oldest, *rest = raw
    return [paused, due, sorted(asked), oldest, *rest]


def _by_name(raw: list[Any]) -> dict[bytes, tuple[bytes, bytes, int]]:
    return {name: (beat, info, held) for name, beat, info, held in zip(*(raw[i::4] for i in range(4)), strict=True)}


def _lengths(raw: list[Any]) -> dict[str, tuple[int, int]]:
    rows = raw[0]
    # Without its group a stream has no number of claims, and nothing is claimed in it.
    return {
        d.decode(): (length, claimed or 0) for d, length, claimed in zip(rows[::4], rows[1::4], rows[2::4], strict=True)
    }


def matches(expected: object, raw: object) -> bool:
    """Whether a reply is the expected one; a text is expected of an error."""
    if isinstance(raw, RefusedError):
        return isinstance(expected, str) and expected in str(raw)
    return bool(expected == raw) or bool(timeless(expected) == timeless(raw))


NO_GROUP: Final = "NOGROUP"
