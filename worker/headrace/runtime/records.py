"""Records of tasks that ended well at their first attempt, which nearly all do: as `task.record(…)` writes them, but
with all that one has in common with the one before it kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace.runtime.attempt import Running
from headrace.task import Counters, State

_OUTCOME: Final = State.COMPLETED.encode()
_MIDDLE: Final = b'%b\n{"p":"' % Counters(attempts=1).text().encode()
"""Between envelope and place."""


class CompletedRecords:
    """Of one worker. `ms` makes Unix milliseconds of loop time."""

    def __init__(self, worker: str, ms: Callable[[float], int]) -> None:
        self._worker = worker.encode()
        self._ms = ms
        self._length = -1
        self._head = b""
        """Of an envelope of that length."""
        self._started = self._ended = -1.0
        self._tail = b""
        """Of an attempt without a result that began and ended at these times."""

    def record(self, run: Running, ended: float, result: bytes | None) -> bytes:
        """The record of a run that ended at this loop time, with its result as JSON."""
        envelope = run.envelope_bytes
        if len(envelope) != self._length:
            self._length = len(envelope)
            self._head = b"%b %d\n" % (_OUTCOME, self._length)
        # uvloop's time stands still while it works through what is ready: attempts that do not wait share both.
        if run.started != self._started or ended != self._ended:
            self._keep(run.started, ended)
        if not result:
            return b"".join((self._head, envelope, _MIDDLE, run.place, self._tail))
        return b"".join((self._head, envelope, _MIDDLE, run.place, self._tail[:-1], b',"r":', result, b"}"))

    def forget(self) -> None:
        """Loop time stands for another time from now on."""
        self._started = -1.0

    def _keep(self, started: float, ended: float) -> None:
        self._started, self._ended = started, ended
        times = (self._ms(started), self._ms(ended))
        self._tail = b'","o":"%b","w":"%b","s":%d,"e":%d}' % (_OUTCOME, self._worker, *times)
