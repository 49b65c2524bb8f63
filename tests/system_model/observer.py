"""Looks at each script that Redis carries out, and says so if one may not have been carried out then."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import hiredis

from chaos.checker import End
from chaos.look import end_of
from headrace.broker.broker import Queue, view
from headrace.broker.keys import STREAMS
from headrace.task import queue_of
from model_dump import complaints, look
from model_redis import Wire

from .world import World

LOOK_EVERY: Final = 50
"""Scripts between two looks at all that lies in Redis."""
REFUSED_WHEN_FULL: Final = {"submit", "replay", "bulk_start"}
"""What brings more in; with full memory all others go on, or it would never become less."""
_FULL: Final = re.compile(r"OOM|used memory > 'maxmemory'")
_ID: Final = re.compile(rb'^\{"v":\d+,"p":\d,"i":"([^"]+)"')


class Observer:
    """Of one run."""

    def __init__(self, world: World, wire: Wire, queues: Sequence[Queue], dead_after_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self.history = hashlib.sha256()
        """Of what was carried out, when: the same seed gives the same one."""
        self.expired: dict[str, End] = {}
        """How tasks had ended whose records are gone, for their time had come."""
        self._world = world
        self._wire = wire
        self._queues = {queue.keys.prefix.encode(): queue for queue in queues}
        self._dead_after_s = dead_after_s
        self._beats: dict[tuple[bytes, str], float] = {}
        self._claimed: dict[tuple[bytes, bytes], str] = {}
        """Queue and place → who claimed it."""

    def forget(self) -> None:
        """Redis lost its last moments: what was claimed in them may be claimed again."""
        self._claimed.clear()

    def saw(self, script: str, prefix: bytes, words: list[bytes], reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._refused(script, str(reply))
            return
        self.counts[script] += 1
        self.history.update(f"{self._world.now:.6f} {script} {len(words)}\n".encode())
        match script:
            case "beat":
                self._beats[prefix, words[0].decode()] = self._world.now
            case "cycle":
                self._cycle(prefix, words, reply)
            case "reclaim":
                self._reclaim(prefix, words[1].decode(), words[2], reply)
        if self.counts.total() % LOOK_EVERY == 0:
            self.look()

    def expires(self, key: bytes) -> None:
        prefix, _, task_id = key.rpartition(b"t:")
        queue, name = self._queues[prefix], task_id.decode()
        [found] = self._wire.run(queue.find([name]))
        assert found is not None, f"{key!r} expires, and is no record"
        self.counts["expired"] += 1
        self.expired[name] = end_of(view(name, queue.name, found))

    def look(self) -> None:
        """What lies in Redis agrees with itself."""
        for queue in self._queues.values():
            said = complaints(look(self._wire, queue))
            assert not said, f"what lies in queue {queue.name} contradicts itself: {said}"

    def _refused(self, script: str, said: str) -> None:
        self.counts[f"{script} refused"] += 1
        if _FULL.search(said):
            assert script in REFUSED_WHEN_FULL, f"with full memory {script} is refused, and nothing can drain: {said}"

    def _cycle(self, prefix: bytes, words: list[bytes], reply: Any) -> None:
        worker, order = words[0].decode(), words[2].decode()
        # Nothing waits for so long that a worker would leave the order of priorities.
        assert order == STREAMS, f"{worker} claims in the order {order}"
        for digit, *rows in reply[3]:
            for entry, envelope in zip(rows[::2], rows[1::2], strict=True):
                self._claim(prefix, digit + entry, worker)
                self._belongs(prefix, envelope)

    def _claim(self, prefix: bytes, place: bytes, worker: str) -> None:
        before = self._claimed.get((prefix, place))
        assert before is None, f"{place!r} was given to {before}, now to {worker}"
        self._claimed[prefix, place] = worker
        self.counts["claims"] += 1

    def _belongs(self, prefix: bytes, envelope: bytes) -> None:
        found = _ID.match(envelope)
        assert found, f"an envelope without an id: {envelope[:80]!r}"
        of, lies = queue_of(found[1].decode()), self._queues[prefix].name
        assert of == lies, f"{found[1]!r} is of queue {of} and was claimed from {lies}"

    def _reclaim(self, prefix: bytes, worker: str, seen: bytes, reply: Any) -> None:
        if not reply[1]:
            return
        self.counts["reclaimed"] += reply[1]
        silent_s = self._world.now - self._beats.get((prefix, worker), float("-inf"))
        assert seen == b"*" or silent_s >= self._dead_after_s, (
            f"{worker} beat {silent_s:.2f} s ago and was taken for dead; that takes {self._dead_after_s:g} s"
        )
