"""Requests that nobody in his right mind would send, made from those that are in order: the same for the same seed.

`requests(seed)` never ends. Each is the bytes of one HTTP/1.1 request; most are whole, so that a connection can serve
many, and a few are damaged anywhere.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from headrace_api.app import ROUTES

from .fuzz_values import FIELDS, HEADERS, IDS, ODD, QUERIES, QUEUES, TEXTS, TYPES

DAMAGED: Final = 0.02
"""Share of requests that are damaged anywhere, so that the server may wait for the rest."""
PATIENCE_S: Final = 20.0
"""Seconds for an answer to a whole request."""
DAMAGED_PATIENCE_S: Final = 0.1


_SUBMITTING: Final = tuple(route for route in ROUTES if route.submits)


def requests(seed: int) -> Iterator[tuple[bytes, bool]]:
    """Requests, and whether each is whole."""
    dice = random.Random(seed)
    while True:
        whole = dice.random() >= DAMAGED
        data = _request(dice)
        yield (data if whole else _damaged(data, dice)), whole


def _request(dice: random.Random) -> bytes:
    route = dice.choice(_SUBMITTING if dice.random() < 0.3 else ROUTES)
    method = (
        route.method
        if dice.random() < 0.9
        else dice.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "X"))
    )
    target = _target(route.path, dice)
    headers = {"Host": "x", "Content-Type": "application/json"}
    for name, values in dice.sample(HEADERS, dice.choice((0, 0, 0, 0, 1, 1, 3))):
        headers[name] = dice.choice(values)
    body = b"" if method in {"GET", "HEAD"} and dice.random() < 0.9 else _body(dice)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _target(path: str, dice: random.Random) -> str:
    def part(found: re.Match[str]) -> str:
        return dice.choice(IDS if found[1] in {"id", "job"} else QUEUES).replace(" ", "%20")

    target = re.sub(r"{(\w+)}", part, path)
    if dice.random() < 0.05:
        target += dice.choice(("/", "//", ":", ":x", "/..", "%2f", ";a=b", "\\"))
    query = "&".join(dice.sample(QUERIES, dice.choice((0, 0, 0, 1, 2))))
    return f"{target}?{query}" if query else target


def _body(dice: random.Random) -> bytes:
    if dice.random() < 0.15:
        return dice.choice(TEXTS)
    document: dict[str, Any] = {"type": "send_email", "payload": {"a": 1}} if dice.random() < 0.9 else {}
    if dice.random() < 0.2:
        document["type"] = dice.choice(TYPES)
    for _ in range(dice.choice((0, 0, 1, 1, 2, 4))):
        document[dice.choice(FIELDS)] = dice.choice(ODD)
    if dice.random() < 0.15:
        document = {"tasks": [document] * dice.choice((0, 1, 3))}
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _damaged(data: bytes, dice: random.Random) -> bytes:
    text = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(text))
        match dice.randrange(3):
            case 0:
                text[at] = dice.randrange(256)
            case 1:
                del text[at : at + dice.choice((1, 4, 40))]
            case _:
                text[at:at] = dice.choice(
                    (b"\r\n", b"\x00", b"\n", b" ", b":", b"\xff", b"Transfer-Encoding: chunked\r\n")
                )
        text = text or bytearray(b"\n")
    return bytes(text)


_TASK_ID: Final = re.compile(rb'"task_id":"([^"]+)"')


@dataclass
class Tally:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    """0 = no answer, to a damaged request."""
    failures: list[bytes] = field(default_factory=list)
    """Requests that got a 5xx, or whole ones that got no answer."""
    accepted: set[str] = field(default_factory=set)
    """Ids of the tasks that were said to be stored."""

    def count(self, status: int, answer: bytes, data: bytes, whole: bool) -> None:
        self.statuses[status] += 1
        if status >= 500 or (status == 0 and whole):
            self.failures.append(data[:2_000])
        if status in {201, 207}:
            self.accepted |= {found.decode() for found in _TASK_ID.findall(answer)}

    @property
    def total(self) -> int:
        return self.statuses.total()


async def send(port: int, count: int, seed: int, connections: int = 8) -> Tally:
    """So many requests, over so many connections."""
    source, tally = requests(seed), Tally()
    left = iter(range(count))

    async def work() -> None:
        client = _Client(port)
        for _ in left:
            data, whole = next(source)
            tally.count(*await client.ask(data, whole), data, whole)
        client.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return tally


class _Client:
    """One connection, made anew when the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes, whole: bool) -> tuple[int, bytes]:
        """The status, or 0, and the body. A connection that the server was about to close is tried again once."""
        for _ in range(2):
            fresh = self._streams is None
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                async with asyncio.timeout(PATIENCE_S if whole else DAMAGED_PATIENCE_S):
                    status, answer, stays = await self._exchange(*self._streams, data)
            except (OSError, EOFError, TimeoutError):
                status, answer, stays = 0, b"", False
            if not (stays and whole):
                self.close()
            if status or fresh:
                return status, answer
        return 0, b""

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> tuple[int, bytes, bool]:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if not length or data.startswith(b"HEAD ") or status == 304:
            return status, b"", bool(length)
        answer = await reader.readexactly(int(length[1]))
        return status, answer, b"\r\nconnection: close" not in head.lower()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None


def told(tally: Tally) -> str:
    """Statuses and how often, in one line."""
    return ", ".join(f"{status or 'none'} {count:,}" for status, count in sorted(tally.statuses.items()))
