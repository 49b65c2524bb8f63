"""How many connections there may be, in all and from one address, and how long one may take to say what it wants.

A connection costs memory before anything is known about it, so these limits come before tokens. What is over a limit
gets its answer when it sends something, for only then do clients read one; then it is closed. One tick a second looks
at all of them: per request there is nothing to set up and nothing to cancel.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

from .problems import Problem
from .request_ids import request_id

logger = logging.getLogger(__name__)

HEADERS_S: Final = 10.0
"""Seconds from a connection, or from the first byte of a later request, to the end of the headers."""
UNREAD_S: Final = 30.0
"""Seconds for which a client may take nothing of the answer that waits for it."""
TICK_S: Final = 1.0
LEAVE_TICK_S: Final = 0.02
MAX_REFUSED: Final = 256
"""Connections over a limit that may wait for their answer; more are closed without one."""
SPARE_FILES: Final = 512
"""Files that a process opens besides its clients' connections."""

TOO_MANY: Final = Problem(
    503,
    "too_many_connections",
    "Service Unavailable",
    "This server has as many connections as it takes.",
    "Try again in a moment, and use one connection for many requests.",
    headers={"Retry-After": "1"},
)
TOO_MANY_OF_YOURS: Final = Problem(
    429,
    "too_many_of_address",
    "Too Many Requests",
    "There are as many connections from your address as this server takes from one.",
    "Use one connection for many requests, and close those that you no longer need.",
    headers={"Retry-After": "1"},
)
TOO_SLOW: Final = Problem(
    408,
    "headers_timeout",
    "Request Timeout",
    f"The headers did not arrive within {HEADERS_S:g} s.",
    "Send them at once.",
)


class Watched(Protocol):
    """A connection, as the tick sees it."""

    def tick(self, seconds: float) -> None:
        """So much time has passed."""

    def drop(self) -> None:
        """Close it at once."""


@dataclass
class Connections:
    """All connections of one server."""

    most: int
    most_of_address: int
    refused: Counter[str] = field(default_factory=Counter)
    """Code of a problem → connections."""
    leaving: bool = False
    """Each answer from now on says that its connection is closed after it."""
    _all: set[Watched] = field(default_factory=set, repr=False)
    _waiting: set[Watched] = field(default_factory=set, repr=False)
    """Over a limit, and not answered yet."""
    _of_address: Counter[str] = field(default_factory=Counter, repr=False)

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, connection: Watched, address: str) -> Problem | None:
        """A new connection from this network (see `network_of`); the problem if it is over a limit."""
        problem = self._judge(address)
        if problem is None:
            self._all.add(connection)
            self._of_address[address] += 1
            return None
        self.refused[problem.code] += 1
        if len(self._waiting) >= MAX_REFUSED:
            connection.drop()
        else:
            self._waiting.add(connection)
        return problem

    def _judge(self, address: str) -> Problem | None:
        if len(self._all) >= self.most:
            return TOO_MANY
        return TOO_MANY_OF_YOURS if self._of_address[address] >= self.most_of_address else None

    def leave(self, connection: Watched, address: str) -> None:
        """It was closed."""
        self._waiting.discard(connection)
        if connection not in self._all:
            return
        self._all.discard(connection)
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    async def take_leave(self, within_s: float) -> None:
        """Wait until all clients have heard so, but no longer than this: who is idle does not ask.

        A connection that is closed with an answer that does not say it may have the next request on it already.
        """
        self.leaving = True
        over = asyncio.get_running_loop().time() + within_s
        while self._all and asyncio.get_running_loop().time() < over:  # noqa: ASYNC110 - it happens in the kernel
            await asyncio.sleep(LEAVE_TICK_S)

    def drop(self) -> None:
        """Close all at once, whatever they wait for."""
        for each in tuple(self._all):
            each.drop()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Close within who is too slow. At the end nobody waits for a refusal any more."""
        task = asyncio.create_task(self._tick(), name="headrace-connections")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for each in tuple(self._waiting):
                each.drop()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for each in (*self._all, *self._waiting):
                each.tick(TICK_S)


def network_of(peername: object) -> str:
    """One address, as limits count: of IPv6 it is the network of 64 bits, for one host may have all of it."""
    host = peername[0] if isinstance(peername, tuple) and peername else ""
    if ":" not in host:
        return str(host)
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def bytes_of(problem: Problem) -> bytes:
    """A whole answer, for who sent nothing that could be called a request; the connection is closed after it."""
    name = request_id(None)
    body = problem.body(request_id=name)
    headers = problem.all_headers(name) | {"Content-Length": str(len(body)), "Connection": "close"}
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    return f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n{lines}\r\n".encode() + body


def room_for(connections: int) -> int:
    """Raise this process' limit of open files for so many connections; how many it has room for."""
    wanted = connections + MAX_REFUSED + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        allowed = soft
    room = max(10, min(connections, allowed - MAX_REFUSED - SPARE_FILES))
    if room < connections:
        said = (
            "The API takes %d connections, not HEADRACE_MAX_CONNECTIONS=%d: this process may open %d files (ulimit -n)"
        )
        logger.warning(said, room, connections, allowed)
    return room
