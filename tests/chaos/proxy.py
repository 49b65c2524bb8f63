"""A TCP proxy in front of Redis that loses, delays and cuts what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

ACCEPTING: Final = 5
"""Turns of the loop, and one to spare, from a connection that is accepted to the one in which it is served."""


class FaultProxy:
    """Forwards bytes both ways on a loopback port, until a fault is armed.

    `lose_reply(needle)`: the next request that holds the needle reaches Redis, its reply does not come back and the
    connection is reset. `lose_request(needle)`: it does not even reach Redis. `every(n)`: of all replies the n-th is
    swallowed so, then the one n later. `blackhole()`: nothing passes any more, in either direction, without a reset;
    `half_open()`: requests pass and nothing comes back; `forget()`: the connections there are swallow all for ever, as
    where a firewall forgot them, and new ones work. `delay_s`: seconds that each piece takes in each direction.
    `heal()` ends them all (connections of the time before are reset, if anything was held up).
    """

    def __init__(self, port: int, listen: int = 0) -> None:
        self.target = port
        self.port = listen
        self.faults = 0
        """How many faults have struck."""
        self.delay_s = 0.0
        self._lose_reply: list[bytes] = []
        self._lose_request: list[bytes] = []
        self._every = 0
        self._until_next = 0
        self._open = asyncio.Event()
        self._open.set()
        self._back = asyncio.Event()
        self._back.set()
        self._over = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        # A server that closes at once lets go of connections that it has just accepted, and asyncio leaves them open.
        asyncio.get_running_loop().remove_reader(self._server.sockets[0])
        for event in (self._open, self._back, self._over):
            event.set()
        self.reset()
        for _turn in range(ACCEPTING):
            await asyncio.sleep(0)
        self._server.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=5)
        await self._server.wait_closed()

    def lose_reply(self, needle: bytes) -> None:
        self._lose_reply.append(needle)

    def lose_request(self, needle: bytes) -> None:
        self._lose_request.append(needle)

    def every(self, count: int) -> None:
        """Swallow each count-th piece that comes back from Redis, and reset its connection; 0 = none."""
        self._every = self._until_next = count

    def blackhole(self) -> None:
        self._open.clear()

    def half_open(self) -> None:
        self._back.clear()

    def forget(self) -> None:
        self._forgotten |= self._writers

    def heal(self) -> None:
        self.delay_s = 0.0
        self.every(0)
        if not (self._open.is_set() and self._back.is_set()):
            self.reset()
        self._open.set()
        self._back.set()

    def reset(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _struck(self, armed: list[bytes], data: bytes) -> bool:
        for needle in armed:
            if needle in data:
                armed.remove(needle)
                self.faults += 1
                return True
        return False

    def _its_turn(self) -> bool:
        if not self._every:
            return False
        self._until_next -= 1
        if self._until_next:
            return False
        self._until_next = self._every
        self.faults += 1
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._over.is_set():
            writer.transport.abort()
            return
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            back, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(upstream)
            await self._forward(reader, writer, back, upstream)
        except OSError:
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self._writers.discard(end)
                    self._forgotten.discard(end)
                    end.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        muted = False

        def request(data: bytes) -> bool:
            nonlocal muted
            if self._struck(self._lose_request, data):
                return False
            muted = muted or self._struck(self._lose_reply, data)
            return True

        out = asyncio.create_task(self._pump(reader, upstream, request))
        home = asyncio.create_task(self._pump(back, writer, lambda _: not muted and not self._its_turn()))
        await asyncio.wait({out, home}, return_when=asyncio.FIRST_COMPLETED)
        for task in (out, home):
            task.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await task

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], bool]
    ) -> None:
        while data := await reader.read(1 << 16):
            await self._hold(data, writer)
            if not passes(data):
                return
            writer.write(data)
            await writer.drain()

    async def _hold(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Wait until this piece may go on to `writer`; a test's own proxy waits for something of its own."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if writer in self._forgotten:
            await self._over.wait()
        await self._open.wait()
        if self._is_home(writer):
            await self._back.wait()

    def _is_home(self, writer: asyncio.StreamWriter) -> bool:
        """Whether it leads to a client, and not to Redis."""
        return bool(writer.get_extra_info("sockname")[1] == self.port)
