"""What a worker and its child processes say to each other: JSON objects, each behind its length in four bytes.

Never pickle: a frame can hold texts and numbers, and nothing that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from headrace.task import Failure, Progress

if TYPE_CHECKING:
    from headrace.context import Ctx
    from headrace.runtime.attempt import Running

MAX_RESULT: Final = 16 * 1024**2
"""Bytes of a result that a child sends; the highest value of HEADRACE_MAX_RESULT, which the worker checks."""
_LENGTH: Final = 4


class Hello(msgspec.Struct, frozen=True):
    """The worker's first frame: what to import, and from where."""

    app: str
    """`module` or `module:attribute`."""
    path: list[str]
    """The worker's sys.path."""
    parent: int
    """Its process id."""
    log_level: int
    log_json: bool | None
    """None: the worker set up no logging of ours."""


class Stop(msgspec.Struct, frozen=True, tag_field="is", tag="stop"):
    """The attempt that runs is to end: its `ctx.cancelled` becomes true."""

    interrupt: bool
    """Raise CancelledError in it, too."""


class ProcessJob(msgspec.Struct, frozen=True, eq=False, tag_field="is", tag="job"):
    """One attempt for a child process. Two jobs are never equal: the object stands for the attempt."""

    type: str
    payload: msgspec.Raw
    id: str
    queue: str
    attempt: int
    epoch: int
    deadline: float
    """By time.monotonic(), which is the same clock for all processes of a machine."""
    trace: str | None = None

    @classmethod
    def of(cls, run: Running, ctx: Ctx[Any]) -> Self:
        """The job for a claimed task and the context made for its attempt."""
        payload = run.envelope.payload
        return cls(ctx.type, payload, ctx.id, ctx.queue, ctx.attempt, ctx.epoch, ctx.deadline, ctx.trace)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A child's word: that it is ready, and then how each job ended."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None
    kinds: tuple[str, ...] = ()
    """The failure's classes, nearest first, as `module:qualified name`."""
    retry_after_s: float | None = None
    """What a RetryAfter asks for."""
    progress: Progress | None = None
    """How far the job is: then this is no answer yet."""


def frame(message: msgspec.Struct) -> bytes:
    """The message as it goes through the pipe."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


class Unframer:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now."""
        self._buffer += data
        bodies = []
        while len(self._buffer) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._buffer[:_LENGTH], "big")
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH:end]))
            del self._buffer[:end]
        return bodies
