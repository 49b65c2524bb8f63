"""A stream of server-sent events as an answer.

It ends when the process stops, when the token that it was begun with no longer holds, and when its client reads too
slowly; clients begin again by themselves and say what they saw last.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import web

from .endpoint import BEGUN
from .problems import HttpProblem
from .services import Request, Services
from .sse import HEARTBEAT_S, MEDIA

logger = logging.getLogger(__name__)

RETRY_MS: Final = (1_000, 3_000)
"""Between these a client is told to wait before it comes again: not all at once after a restart."""


async def stream(
    services: Services, request: Request, chunks: AsyncGenerator[bytes, None], seconds: float | None
) -> web.StreamResponse:
    """Answer with these chunks until there are no more, or for so many seconds. They must not raise."""
    headers = {"Content-Type": MEDIA, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    headers |= {"X-Request-Id": request.id, "Server": "headrace"}
    async with aclosing(chunks):
        if request.http.method == "HEAD":
            return web.Response(headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request.http)
        request.http[BEGUN] = response.status
        try:
            await response.write(b"retry: %d\n\n" % random.randint(*RETRY_MS))
            await _write(services, request, response, chunks, seconds)
            await response.write_eof()
        except ConnectionError:
            logger.debug("The client of an event stream went away", extra={"fields": {"request_id": request.id}})
        except Exception:
            # An answer has begun: a problem document in the middle of it would be read as a part of it.
            logger.exception("An event stream broke off", extra={"fields": {"request_id": request.id}})
            if request.http.transport is not None:
                request.http.transport.abort()
        return response


async def _write(
    services: Services,
    request: Request,
    response: web.StreamResponse,
    chunks: AsyncGenerator[bytes, None],
    seconds: float | None,
) -> None:
    check_at = time.monotonic() + HEARTBEAT_S
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks:
                await response.write(chunk)
                if time.monotonic() >= check_at:
                    check_at += HEARTBEAT_S
                    if not holds(services, request):
                        return
    except TimeoutError:
        return


def holds(services: Services, request: Request) -> bool:
    """Whether the token that the request came with is still what it was."""
    try:
        return services.guard.identify(request.http.headers) == request.caller
    except HttpProblem:
        return False
