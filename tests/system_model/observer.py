"""Looks at each script that Redis carries out, and says so if one may not have been carried out then."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, Final

import hiredis

from chaos.look import QUEUE
from model_dump import complaints, look
from model_redis import Wire

from .world import World

LOOK_EVERY: Final = 50
"""Scripts between two looks at all that lies in Redis."""


class Observer:
    """Of one run."""

    def __init__(self, world: World, wire: Wire, dead_after_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self.history = hashlib.sha256()
        """Of what was carried out, when: the same seed gives the same one."""
        self._world = world
        self._wire = wire
        self._dead_after_s = dead_after_s
        self._beats: dict[str, float] = {}
        self._claimed: dict[str, str] = {}
        """Place → who claimed it."""

    def forget(self) -> None:
        """Redis lost its last moments: what was claimed in them may be claimed again."""
        self._claimed.clear()

    def saw(self, script: str, words: list[bytes], reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self.counts[f"{script} refused"] += 1
            return
        self.counts[script] += 1
        self.history.update(f"{self._world.now:.6f} {script} {len(words)}\n".encode())
        match script:
            case "beat":
                self._beats[words[0].decode()] = self._world.now
            case "cycle":
                self._cycle(words[0].decode(), reply)
            case "reclaim":
                self._reclaim(words[1].decode(), words[2], reply)
        if self.counts.total() % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """What lies in Redis agrees with itself."""
        said = complaints(look(self._wire, QUEUE))
        assert not said, f"what lies in Redis contradicts itself: {said}"

    def _cycle(self, worker: str, reply: Any) -> None:
        for digit, *rows in reply[3]:
            for entry in rows[::2]:
                place = (digit + entry).decode()
                assert place not in self._claimed, f"{place} was given to {self._claimed[place]}, now to {worker}"
                self._claimed[place] = worker
                self.counts["claims"] += 1

    def _reclaim(self, worker: str, seen: bytes, reply: Any) -> None:
        if not reply[1]:
            return
        self.counts["reclaimed"] += reply[1]
        silent_s = self._world.now - self._beats.get(worker, float("-inf"))
        assert seen == b"*" or silent_s >= self._dead_after_s, (
            f"{worker} beat {silent_s:.2f} s ago and was taken for dead; that takes {self._dead_after_s:g} s"
        )
