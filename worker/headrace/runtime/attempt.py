"""One attempt of a task: what is known while it runs, and the pure functions that turn its end into a report."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace import task as tasks
from headrace.broker.broker import Report
from headrace.context import Ctx
from headrace.task import FIRST, NO_RESULT, Attempt, Counters, Envelope, Failure, State

if TYPE_CHECKING:
    from headrace.runtime.claims import QueueClaims
    from headrace.runtime.processes import ProcessJob
    from headrace.taskdef import TaskDef

logger = logging.getLogger("headrace.attempt")

MESSAGE_CHARS: Final = 2_000
TRACE_CHARS: Final = 8_000
REASONS: Final = frozenset({"timeout", "invalid_payload", "malformed"})

NO_ENVELOPE: Final = Envelope(version=0, priority=0, id="")

Key = tuple["QueueClaims", bytes]
"""Whose it is, and its place: two queues may give out the same one."""


class Running:
    """A claimed task in this process. Owned by the event loop; a handler's thread sees only its `ctx`."""

    __slots__ = (
        "abandoned",
        "arguments",
        "carried",
        "claims",
        "ctx",
        "definition",
        "envelope",
        "envelope_bytes",
        "job",
        "key",
        "place",
        "slot",
        "started",
        "stop_reason",
    )

    def __init__(self, claims: QueueClaims, place: bytes, envelope: bytes, carried: bytes) -> None:
        self.claims = claims
        self.place = place
        self.key: Key = (claims, place)
        self.envelope_bytes = envelope
        self.carried = carried
        self.envelope: Envelope = NO_ENVELOPE
        self.definition: TaskDef | None = None
        self.arguments: Any = None
        self.ctx: Ctx[Any] | None = None
        self.started = 0.0
        """Loop time; 0 while it waits for its slot."""
        self.slot: Any = None
        """What runs it: the slot's asyncio task, or nothing for a thread."""
        self.job: ProcessJob | None = None
        """Its job in a child process, if it runs in one."""
        self.stop_reason = ""
        """Why its handler was asked to end: timeout, cancelled, lost, drained."""
        self.abandoned = False
        """Its end was reported (or is no longer ours) while its handler still runs."""

    def is_stopped(self) -> bool:
        """Whether its handler was asked to end. (A method: it may change during any await.)"""
        return bool(self.stop_reason)

    @property
    def counters(self) -> Counters:
        return tasks.parse_counters(self.carried) if self.carried else FIRST


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of an attempt, and what follows."""

    outcome: State
    failure: Failure | None = None
    result: bytes | None = None
    argument: str | int = ""
    counts_as: str = "ok"
    """Which counter besides attempts grows: failure, interruption; ok for none."""


def report(run: Running, ending: Ending, worker: str, started_ms: int, ended_ms: int) -> Report:
    """The report of any ending."""
    before = run.counters
    after = Counters(
        before.attempts + 1,
        before.failures + (ending.counts_as == "failure"),
        before.crashes,
        before.interruptions + (ending.counts_as == "interruption"),
    )
    line = tasks.encode_attempt(
        Attempt(
            run.place.decode(),
            ending.outcome.value,
            worker,
            started_ms,
            ended_ms,
            error=ending.failure,
            result=msgspec.Raw(ending.result) if ending.result else NO_RESULT,
        )
    )
    record = tasks.record(ending.outcome.value, run.envelope_bytes, tasks.extend(run.carried, after, line))
    name = run.definition.name if run.definition else "unknown"
    return Report(run.place, run.envelope.id, ending.outcome.value, ending.argument, name, record)


def failure_of(error: BaseException) -> Failure:
    """An exception as texts, bounded. One from a child process brings its texts along."""
    given = vars(error).get("failure")
    if isinstance(given, Failure):
        return given
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    trace = _text(lambda: "".join(traceback.format_exception(from_application(error))))
    message = _text(lambda: str(error))[:MESSAGE_CHARS]
    return Failure(clean(name), clean(message), clean(trace[-TRACE_CHARS:]), _reason(error))


_OURS: Final = str(Path(__file__).parents[1])


def from_application(error: BaseException) -> BaseException:
    """The error with a traceback that begins in the application: the frames before are ours, in every attempt."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return error.with_traceback(trace or error.__traceback__)


def clean(text: str) -> str:
    """Text that JSON can hold: lone surrogates, as in names of files that are no UTF-8, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _text(make: Callable[[], str]) -> str:
    """What an exception says of itself runs code of the application."""
    try:
        return make()
    except BaseException as broken:
        return f"(no text: {type(broken).__name__})"


def _reason(error: BaseException) -> str:
    """One of our fixed words. Other people's exceptions have a `reason` too, which may be anything."""
    reason = vars(error).get("reason", getattr(type(error), "reason", ""))
    return reason if isinstance(reason, str) and reason in REASONS else ""


def classify(error: BaseException, run: Running, rng: Random) -> Ending:
    """What follows from a handler's exception: retry later, or the dead letter."""
    definition = run.definition
    assert definition is not None
    failures = run.counters.failures + 1
    try:
        delay_s = definition.retry.decide(error, failures, rng, run.envelope.max_retries)
    except Exception:  # an exception class may have code of its own there
        logger.exception("whether to retry %s could not be decided", run.envelope.type)
        delay_s = None
    if delay_s is None:
        return Ending(State.FAILED, failure_of(error), counts_as="failure")
    return Ending(State.RETRYING, failure_of(error), argument=max(0, round(delay_s * 1000)), counts_as="failure")


class HandlerTimeoutError(TimeoutError):
    """An attempt took longer than its type allows."""

    reason = "timeout"


class HandlerCancelledError(Exception):
    """A handler ended with CancelledError although nobody had asked it to end."""


def timed_out(run: Running) -> HandlerTimeoutError:
    """The error of an attempt that was cancelled at its soft timeout, or given up at its hard one."""
    assert run.definition is not None
    allowed = run.definition.soft_timeout_s
    return HandlerTimeoutError(f"The attempt took longer than {allowed:g} s, the timeout of {run.envelope.type!r}.")


def meant(error: BaseException, run: Running) -> BaseException:
    """What a CancelledError stands for: the soft timeout, or that something was cancelled that the handler awaited."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    if run.stop_reason == "timeout":
        stands_for: Exception = timed_out(run)
    else:
        stands_for = HandlerCancelledError("Something that the handler waited for was cancelled.")
    stands_for.__cause__ = error
    return stands_for


def unstarted(run: Running) -> Ctx[None]:
    """What a log line says of an attempt that never got as far as a context."""
    envelope = run.envelope
    return Ctx(
        id=envelope.id,
        type=envelope.type or "unknown",
        queue=run.claims.queue.name,
        attempt=run.counters.attempts + 1,
        epoch=run.claims.epoch,
        deadline=0.0,
        deps=None,
        trace=envelope.trace,
    )


def sentence(run: Running, outcome: str, now: float, failure: Failure | None) -> str:
    """The one log line of an attempt; `now` is loop time."""
    took = f" after {now - run.started:.3f} s" if run.started else ""
    why = "".join(f": {text}" for text in (failure.type, failure.message) if text) if failure else ""
    return f"{run.envelope.type or 'task'} {outcome}{took}{why}"
