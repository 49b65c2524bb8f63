"""One queue on a real server, with a short verb for each transition and for a look at what lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace import task
from headrace.broker.broker import (
    Beat,
    Cycle,
    Depth,
    NewTask,
    Queue,
    Reclaim,
    Report,
    TaskView,
    WorkerSeen,
    view,
)
from headrace.broker.keys import STREAMS
from model_redis import Wire
from model_task import QUEUE, Claim, claims_of

NOW: Final = 1_800_000_000_000
"""The test's clock, in ms."""


@dataclass
class Desk:
    """Every verb is one call, carried out at once."""

    wire: Wire
    queue: Queue
    now: int = NOW

    @classmethod
    def at(cls, socket: Path) -> Desk:
        """A desk whose queue has its streams."""
        desk = cls(Wire(socket), Queue(QUEUE))
        desk.init()
        return desk

    def init(self, run_id: str = "") -> tuple[int, bool]:
        return self.wire.run(self.queue.init(run_id, self.now))

    def submit(self, *batch: NewTask, max_depth: int = 0, touch: bool = False) -> list[str]:
        """The status of each."""
        call = self.queue.submit(batch, max_depth, touch=touch, now_ms=self.now)
        return [answer.status for answer in self.wire.run(call)]

    def cycle(
        self, worker: str, slots: int, reports: Sequence[Report] = (), *, order: str = STREAMS, touch: bool = False
    ) -> Cycle:
        call = self.queue.cycle(worker, slots, reports, order=order, touch=touch, now_ms=self.now)
        return self.wire.run(call)

    def claim(self, worker: str = "w", slots: int = 1) -> list[Claim]:
        return claims_of(self.cycle(worker, slots).claims)

    def one(self, worker: str = "w") -> Claim:
        """The next task, which must be there."""
        (claim,) = self.claim(worker)
        return claim

    def report(self, *reports: Report, worker: str = "w") -> list[Any]:
        """The verdicts on those that were not accepted: [] = all were."""
        verdicts = self.cycle(worker, 0, reports).verdicts
        return [verdicts[report.place] for report in reports if report.place in verdicts]

    def reconcile(self, worker: str = "w") -> list[Claim]:
        return claims_of(self.wire.run(self.queue.reconcile(worker)).others)

    def beat(self, worker: str = "w", counter: int = 1) -> Beat:
        return self.wire.run(self.queue.beat(worker, counter))

    def reclaim(self, worker: str = "w", seen: str = "*", **order: Any) -> tuple[str, int]:
        call = self.queue.reclaim(Reclaim(worker, seen, order.pop("nonce", "n"), **order), now_ms=self.now)
        done = self.wire.run(call)
        return done.what, done.taken

    def hand_back(self, worker: str = "w", *places: str, leave: bool = False) -> tuple[int, bool]:
        call = self.queue.hand_back(worker, places or ("*",), leave=leave, now_ms=self.now)
        return self.wire.run(call)

    def promote(self, *ids: str) -> int:
        return self.wire.run(self.queue.promote(ids, now_ms=self.now))[0]

    def cancel(self, id_: str, *, force: bool = False) -> str:
        return self.wire.run(self.queue.cancel(id_, force=force, now_ms=self.now))

    def replay(self, id_: str, last_place: str = "") -> str:
        return self.wire.run(self.queue.replay(id_, last_place))

    def release(self, *keys: str) -> int:
        return self.wire.run(self.queue.release(keys))

    def pause(self, paused: bool = True) -> bool:
        return self.wire.run(self.queue.pause(paused, self.now))

    def depth(self) -> Depth:
        return self.wire.run(self.queue.depth())

    def workers(self) -> dict[str, WorkerSeen]:
        return {seen.name: seen for seen in self.wire.run(self.queue.workers())}

    def view(self, id_: str) -> TaskView | None:
        found = self.wire.run(self.queue.get(id_))
        return None if found is None else view(id_, self.queue.name, found)

    def state(self, id_: str) -> str:
        """`absent`, or the state."""
        seen = self.view(id_)
        return "absent" if seen is None else seen.state.value

    def counters(self, id_: str) -> task.Counters:
        seen = self.view(id_)
        assert seen is not None
        return seen.counters

    # -- raw looks and touches

    def key(self, suffix: str) -> str:
        return self.queue.keys[suffix]

    def raw(self, name: str, suffix: str, *words: bytes | str | int) -> Any:
        """A plain command on one key of the queue."""
        return self.wire.command(name, self.key(suffix), *words)

    def marker(self) -> int:
        """Length of the wake list."""
        return int(self.raw("LLEN", "wake"))

    def drop_marker(self) -> None:
        self.raw("DEL", "wake")

    def expire(self, id_: str) -> None:
        """The record's time is over."""
        assert self.wire.command("DEL", self.key("t") + id_) == 1

    def destroy_group(self, digit: str) -> bool:
        """What a restore or a slip of an administrator does."""
        return bool(self.wire.command("XGROUP", "DESTROY", self.key(digit), "g"))

    def completed(self) -> int:
        return self.depth().ended("completed")

    def is_idle(self) -> bool:
        """No live task, no entry, no claim, nothing held, nobody asked."""
        depth = self.depth()
        empty = not any(self.wire.command("EXISTS", self.key(key)) for key in ("later", "body", "parked", "u", "rev"))
        return empty and depth.live == 0 and all(s.length == s.pending == 0 for s in depth.streams.values())
