"""Server-sent events as they are written."""

from __future__ import annotations

import asyncio
from typing import Final

MEDIA: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
"""Seconds after which something is sent, so that nobody on the way takes the connection for dead."""
HEARTBEAT: Final = b": \n\n"


def event(name: str, data: bytes, place: str = "") -> bytes:
    """One event. `data` is JSON; a client's own bytes in it may have line breaks, which SSE would take for its own."""
    lines = data.replace(b"\r", b" ").replace(b"\n", b"\ndata: ")
    head = f"event: {name}\nid: {place}\n" if place else f"event: {name}\n"
    return head.encode() + b"data: " + lines + b"\n\n"


async def heard(news: asyncio.Event) -> bool:
    """Whether there is news before it is time for a heartbeat. Clears it."""
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            await news.wait()
    except TimeoutError:
        return False
    news.clear()
    return True
