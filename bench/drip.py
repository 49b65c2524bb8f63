"""Connections from many loopback addresses that send a byte a second: half of them headers, half of them bodies.

python bench/drip.py PORT CONNECTIONS

It prints `ready` when all are there, and at SIGTERM how many were closed by the server, and made anew, since then.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from typing import Final

EVERY_S: Final = 1.0
HEADERS: Final = b"GET /api/v1/stats HTTP/1.1\r\nHost: x\r\nX-Slow: "
TOKEN: Final = "a-token-of-those-who-only-drip"
BODY: Final = (
    b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Authorization: Bearer %b\r\nContent-Length: 60000\r\n\r\n{"a": "' % TOKEN.encode()
)
AT_ONCE: Final = 100


class Drippers:
    """All of them, of one process."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._addresses = itertools.cycle(f"127.1.{i // 250}.{i % 250 + 1}" for i in range(count))
        self.there = asyncio.Semaphore(0)
        self.closed = 0

    async def drip(self, start: bytes) -> None:
        """For ever, from a new connection whenever the server has had enough."""
        while True:
            try:
                async with self._gate:
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", self._port, local_addr=(next(self._addresses), 0)
                    )
                    writer.write(start)
                self.there.release()
                while not writer.is_closing():
                    await asyncio.sleep(EVERY_S)
                    writer.write(b"y")
            except OSError:
                await asyncio.sleep(EVERY_S)
            self.closed += 1


async def main(port: int, count: int) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    drippers = Drippers(port, count)
    tasks = [asyncio.create_task(drippers.drip((HEADERS, BODY)[i % 2])) for i in range(count)]
    for _ in tasks:
        await drippers.there.acquire()
    print("ready", flush=True)
    before = drippers.closed
    await stop.wait()
    print(drippers.closed - before, flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
