"""A lean connection to Redis: one socket, hiredis' parser, answers in the order of the requests.

redis-py costs 50 µs of CPU a call where this costs 18; at a worker's and the API's rates that is the difference. It
keeps no pool and repeats nothing: a lost answer is the caller's to judge, and every script can be sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import hiredis

from headrace.errors import HeadraceError, StoreFull, StoreUnavailable
from headrace.redis_settings import RedisSettings

from .broker import Call
from .packing import packed, packed_call
from .refusals import remedied
from .waiters import Answer, Waiters
from .words import Command

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")

_FULL: Final = ("OOM", "MISCONF", "NOREPLICAS")
_AWAY: Final = ("LOADING", "BUSY", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "UNBLOCKED")
_READ_LIMIT: Final = 1 << 18


class RedisError(HeadraceError):
    """Redis refused a command for a reason that only a person can mend: no rights, wrong type, unknown command."""

    code = "store_refused"


class Connection(asyncio.BufferedProtocol):
    """Requests go out as they come; answers are handed to their callbacks in the same order."""

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings
        self.run_id = ""
        self.version = (0, 0, 0)
        """Zeros if the server does not say."""
        self.lost: StoreUnavailable | None = None
        """Why the connection ended; None while it stands."""
        self._reader = hiredis.Reader()
        self._buffer = bytearray(_READ_LIMIT)
        self._view = memoryview(self._buffer)
        self._answers: deque[Answer] = deque()
        self._asked = 0.0
        self._heard = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = Waiters()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's are no subclass of asyncio.Transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        reader, answers = self._reader, self._answers
        self._heard = time.monotonic()
        reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type] # its stub forgot the buffer protocol
        try:
            # An answer may close the connection, and then those behind it have been told that it is lost.
            while self.lost is None and (reply := reader.gets()) is not False:
                answers.popleft()(reply)
        except hiredis.ProtocolError as error:
            self.close(f"the server does not speak Redis' protocol ({error})")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the server closed the connection", False)
        # Cycles keep this object until the collector comes, which in an outage is many connections later.
        self._view = memoryview(b"")
        self._buffer = bytearray()
        if not self._closed.done():
            self._closed.set_result(None)

    def _end(self, reason: str, answered: bool) -> None:
        if self.lost is None:
            self.lost = StoreUnavailable(str(self.settings), reason, answered)
        answers, self._answers = self._answers, deque()
        for answer in answers:
            try:
                answer(self.lost)
            except Exception:  # the others must hear of it all the same
                logger.exception("an answer could not be handled")

    # the callers' side

    @property
    def outstanding(self) -> int:
        """Requests without an answer."""
        return len(self._answers)

    def stalled_s(self) -> float:
        """Seconds for which requests are out and nothing came back."""
        return time.monotonic() - max(self._asked, self._heard) if self._answers else 0.0

    def silent_s(self) -> float:
        """Seconds since the last byte came."""
        return time.monotonic() - self._heard

    def give_up(self, seconds: float) -> bool:
        """End it if requests are out and nothing came back for so long. Whether that was so."""
        stalled = self.stalled_s() >= seconds
        if stalled:
            self.close(f"no answer within {seconds:g} s")
        return stalled

    def send(self, args: Command, answer: Answer) -> None:
        """Send one command; `answer` is called once, now if the connection is lost."""
        # Packed first, for that refuses what is no text: an answer to nothing would be given the next reply.
        self._send(packed(args), answer)

    def _send(self, text: bytes, answer: Answer) -> None:
        if self.lost is not None or self._transport is None:
            answer(self.lost or StoreUnavailable(str(self.settings), "not connected yet"))
            return
        if not self._answers:
            self._asked = time.monotonic()
        self._answers.append(answer)
        self._transport.write(text)

    def send_call(self, call: Call[Any], answer: Answer) -> None:
        """Send one script call. A server that lost its scripts gets the source, which is safe: it ran nothing."""

        def checked(reply: Any) -> None:
            if isinstance(reply, Exception) and _is_no_script(reply):
                self.send(call.words_with_source, answer)
            else:
                answer(reply)

        self._send(packed_call(call), checked)

    def send_confirmed(self, call: Call[Any], follow: Command, answer: Callable[[Any, Any], None]) -> None:
        """Send a script call and the command that confirms it; `answer` gets both replies at once."""

        def checked(reply: Any, said: Any) -> None:
            if _is_no_script(reply):
                # What was said confirms nothing: the script has not run.
                self._send_pair(packed(call.words_with_source), follow, answer)
            else:
                answer(reply, said)

        self._send_pair(packed_call(call), follow, checked)

    def _send_pair(self, first: bytes, second: Command, answer: Callable[[Any, Any], None]) -> None:
        replies: list[Any] = []
        self._send(first, replies.append)
        self.send(second, lambda said: answer(replies[0], said))

    async def command(self, *args: bytes | str | int, timeout_s: float | None = None) -> Any:
        """One command's reply. Raises StoreUnavailable, StoreFull, RedisError."""
        return await self._wait(self.send, args, timeout_s)

    async def call(self, call: Call[R], timeout_s: float | None = None) -> R:
        """One script's parsed reply. Raises StoreUnavailable, StoreFull, RedisError."""
        return call.parse(await self._wait(self.send_call, call, timeout_s))

    async def calls(self, calls: Sequence[Call[R]], timeout_s: float) -> list[R | Exception]:
        """Many scripts in one write: what each gave, or the RedisError or ValueError that it met instead.

        Raises StoreUnavailable if the connection is or gets lost, for all of them.
        """
        if not calls:
            return []
        replies: list[Any] = await self._wait(self._send_all, calls, timeout_s)
        found: list[R | Exception] = []
        for call, reply in zip(calls, replies, strict=True):
            try:
                found.append(self.explained(reply) if isinstance(reply, Exception) else call.parse(reply))
            except ValueError as error:
                found.append(error)
        return found

    def _send_all(self, calls: Sequence[Call[Any]], done: Answer) -> None:
        """`done` is called with all replies, or with the loss of the connection."""
        replies: list[Any] = [None] * len(calls)
        left = len(calls)

        def answered(at: int, reply: Any) -> None:
            nonlocal left
            if _is_no_script(reply):
                self.send(calls[at].words_with_source, partial(answered, at))
                return
            replies[at] = reply
            left -= 1
            if isinstance(reply, StoreUnavailable):
                done(reply)
            elif left == 0:
                done(replies)

        self._send_at_once(b"".join(map(packed_call, calls)), [partial(answered, at) for at in range(left)])

    def _send_at_once(self, text: bytes, answers: Sequence[Answer]) -> None:
        """As `_send`, for many: one write, and so one system call where it fits."""
        if self.lost is not None or self._transport is None:
            answers[0](self.lost or StoreUnavailable(str(self.settings), "not connected yet"))
            return
        if not self._answers:
            self._asked = time.monotonic()
        self._answers.extend(answers)
        self._transport.write(text)

    async def confirmed(self, call: Call[R], follow: Command, timeout_s: float) -> tuple[R, Any]:
        """A script's parsed reply, and the reply of the command that confirms it. Raises as `call` does."""

        def start(call: Call[R], answer: Answer) -> None:
            def both(reply: Any, said: Any) -> None:
                failed = next((each for each in (reply, said) if isinstance(each, Exception)), None)
                answer(failed or (reply, said))

            self.send_confirmed(call, follow, both)

        reply, said = await self._wait(start, call, timeout_s)
        return call.parse(reply), said

    def _wait(self, send: Callable[[T, Answer], None], what: T, timeout_s: float | None) -> Awaitable[Any]:
        return self._waiters.wait(self, send, what, self.settings.timeout_s if timeout_s is None else timeout_s)

    def explained(self, error: Exception) -> Exception:
        """The headrace error for an error reply, or for the loss of the connection."""
        said = explain(error, self.settings)
        if isinstance(error, hiredis.ReplyError) and str(error).startswith("READONLY"):
            # It was the master once. Who connects anew asks the sentinels, or whatever stands before it, who is.
            self.close(str(error), answered=True)
        return said

    def close(self, reason: str = "closed", *, answered: bool = False) -> None:
        """End it now; what was outstanding gets StoreUnavailable. `answered`: because of what Redis said."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason, answered)

    def abandon(self) -> None:
        """Close the socket of a connection whose event loop was closed before it: nothing else can be done with it."""
        if self._transport is not None:
            # No transport of asyncio can be closed without its loop; uvloop's are by then.
            raw = getattr(self._transport.get_extra_info("socket"), "_sock", None)
            if raw is not None:
                raw.close()
        self.lost = self.lost or StoreUnavailable(str(self.settings), "its event loop is closed")
        self._answers.clear()
        self._view = memoryview(b"")
        self._buffer = bytearray()

    async def wait_closed(self) -> None:
        """Until its socket is closed, for whatever reason."""
        await asyncio.shield(self._closed)


def _is_no_script(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def explain(error: Exception, settings: RedisSettings) -> Exception:
    """The headrace error for a reply of Redis."""
    if not isinstance(error, hiredis.ReplyError):
        return error
    return by_word(str(error), str(settings))


def by_word(text: str, where: str) -> HeadraceError:
    """The headrace error for an error reply's text, of the server at `where`."""
    word = text.partition(" ")[0]
    if word in _FULL or "OOM command not allowed" in text:
        return StoreFull(where, text)
    if word in _AWAY:
        return StoreUnavailable(where, text, answered=True)
    return RedisError(f"Redis at {where} refused a command: {remedied(text)}")
