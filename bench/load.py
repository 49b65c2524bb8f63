"""An HTTP load generator of a process of its own, for machines without wrk: requests over connections that stay open.

    python load.py PORT CONNECTIONS SECONDS < REQUEST

REQUEST is sent as it is, again and again, each connection waiting for its answer. One line of JSON tells how many
answers came, and how many of them were not 2xx.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

import uvloop

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request = request
        self.until = until
        self.answers = 0
        self.refused = 0
        self.closed = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's are no subclass of asyncio.Transport
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if time.monotonic() < self.until:
            self._transport.write(self.request)
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(self._buffer, 0, end + 2)
        if length is None or len(self._buffer) < end + 4 + int(length[1]):
            return
        self.answers += 1
        self.refused += self._buffer[9:10] != b"2"
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def run(port: int, connections: int, seconds: float, request: bytes) -> None:
    loop = asyncio.get_running_loop()
    start = time.monotonic()
    made: list[Connection] = []
    for _ in range(connections):
        one = Connection(request, start + seconds)
        made.append(one)
        await loop.create_connection(lambda one=one: one, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(one.closed for one in made))
    took = time.monotonic() - start
    answers, refused = sum(one.answers for one in made), sum(one.refused for one in made)
    print(json.dumps({"answers": answers, "refused": refused, "wall_s": took}))


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.stdin.buffer.read()))
