"""The stand-in for Redis on a socket: all commands run one after another, and who waits holds up nobody."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

import hiredis

from .fake_redis_session import Memory, Session, Wait
from .fake_redis_wire import Refused, encode
from .ports import HOST

logger = logging.getLogger(__name__)

_MORE: Final = object()
_BACKLOG: Final = 512


async def serve(port: int, ready: Callable[[], None]) -> None:
    """Serve on the loopback address until SIGTERM or SIGINT; `ready` is called when it listens. Raises OSError."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    memory, line = Memory(port), WaitingLine()
    listener = socket.create_server((HOST, port), backlog=_BACKLOG)
    server = await loop.create_server(lambda: Client(Session(memory), line), sock=listener)
    ready()
    await stop.wait()
    server.close()


class WaitingLine:
    """The connections whose command waits for what another one writes, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[Client, Wait] = {}

    def enter(self, client: Client, wait: Wait) -> None:
        """Called again with each write until `client` gets its reply."""
        self._waiting[client] = wait

    def leave(self, client: Client) -> None:
        """It waits no more."""
        self._waiting.pop(client, None)

    def written(self) -> None:
        """Something may be there now: the first in the line look first."""
        for client, wait in list(self._waiting.items()):
            client.look(wait)


class Client(asyncio.Protocol):
    """One connection. Its requests are carried out in order; the next is not looked at while one waits."""

    def __init__(self, session: Session, line: WaitingLine) -> None:
        self._session = session
        self._line = line
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._waits = False
        self._overdue: asyncio.TimerHandle | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._work()

    def eof_received(self) -> bool:
        # Not only once the connection is lost: what it would get in between would be lost with it.
        self._end_wait()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end_wait()
        self._session.close()

    # requests

    def _work(self) -> None:
        while self._transport is not None and not self._waits:
            try:
                request = self._reader.gets()
            except hiredis.ProtocolError as error:
                return self._hang_up(f"ERR Protocol error: {error}")
            if request is _MORE:
                return None
            if not isinstance(request, list) or not all(isinstance(word, bytes) for word in request):
                return self._hang_up("ERR Protocol error: a request is an array of strings")
            if request:
                self._run(request)
        return None

    def _run(self, request: list[bytes]) -> None:
        reply = self._guarded(lambda: self._session.run(request))
        if isinstance(reply, Wait):
            self._begin_wait(reply)
        else:
            self._send(reply)
            self._line.written()

    def _guarded(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Refused as refused:
            return refused
        except Exception as error:
            logger.exception("a command failed inside the stand-in")
            self._hang_up(f"ERR the stand-in for Redis failed: {type(error).__name__}: {error}")
            return error

    def _send(self, reply: Any) -> None:
        if self._transport is not None:
            self._transport.write(encode(reply, self._session.protocol))

    def _hang_up(self, text: str) -> None:
        self._send(Refused(text))
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # waiting

    def _begin_wait(self, wait: Wait) -> None:
        self._waits = True
        self._line.enter(self, wait)
        if wait.timeout_s:
            self._overdue = asyncio.get_running_loop().call_later(wait.timeout_s, self._waited, None)
        self.look(wait)

    def look(self, wait: Wait) -> None:
        """Whether what it waits for is there; then it gets its reply."""
        reply = self._guarded(wait.attempt)
        if reply is not None:
            self._waited(reply)

    def _waited(self, reply: Any) -> None:
        self._end_wait()
        self._send(reply)
        # What it sent meanwhile. Not from here: another connection's command is being carried out.
        asyncio.get_running_loop().call_soon(self._work)

    def _end_wait(self) -> None:
        self._waits = False
        self._line.leave(self)
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
