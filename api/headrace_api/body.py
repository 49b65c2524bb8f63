"""Reading a request's body: its media type, its size and its pace are bounded before a byte of it means anything."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import hdrs, web

from headrace.errors import TooLarge

from .problems import HttpProblem

DEADLINE_S: Final = 15.0
"""Seconds from the headers to the end of the body; aiohttp has no such limit."""


NDJSON: Final = "application/x-ndjson"
LINES: Final = frozenset({NDJSON, "application/ndjson", "application/jsonl"})
"""Media types of JSON by the line."""
_CLOSING: Final = {"Connection": "close"}
"""Where the next request would begin is unknown."""


async def read_body(request: web.Request, limit: int, deadline_s: float = DEADLINE_S, *, lines: bool = False) -> bytes:
    """The body, of at most `limit` bytes; with `lines` JSON by the line is taken too.

    Raises HttpProblem (415, 408, 400) or TooLarge.
    """
    headers = request.headers
    media_type = headers.get(hdrs.CONTENT_TYPE, "")
    if media_type != "application/json":
        _check_media_type(media_type, lines)
    if hdrs.CONTENT_ENCODING in headers:
        _check_encoding(headers[hdrs.CONTENT_ENCODING])
    content = request.content
    if content.is_eof():
        body = content.read_nowait(-1)
    else:
        declared = request.content_length
        if declared is not None and declared > limit:
            raise TooLarge("body", declared, limit)
        body = await _read_slowly(request, limit, deadline_s)
    if len(body) > limit:
        raise TooLarge("body", len(body), limit)
    return body


async def _read_slowly(request: web.Request, limit: int, deadline_s: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            while len(body) <= limit and not request.content.at_eof():
                body += await request.content.readany()
    except TimeoutError:
        detail = f"The body did not arrive within {deadline_s:g} s."
        raise HttpProblem(408, "body_timeout", detail, "Send it at once.", headers=_CLOSING) from None
    except (web.RequestPayloadError, web.HTTPException) as error:
        detail = "The body ended too early or is badly framed."
        raise HttpProblem(400, "bad_body", detail, headers=_CLOSING) from error
    return bytes(body)


def is_by_line(request: web.Request) -> bool:
    """Whether the body says of itself that each of its lines is JSON."""
    return request.content_type in LINES


def _check_media_type(given: str, lines: bool) -> None:
    essence, _, parameters = given.partition(";")
    essence = essence.strip().lower()
    known = essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))
    if not known and not (lines and essence in LINES):
        named = f"{given[:80]!r}" if given else "missing"
        hint = "Send Content-Type: application/json" + (
            ", or application/x-ndjson for a task a line." if lines else "."
        )
        raise HttpProblem(415, "unsupported_media_type", f"The Content-Type is {named}.", hint)
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.strip() == "charset" and value.strip(' "') not in {"utf-8", "utf8", "us-ascii"}:
            raise HttpProblem(415, "unsupported_media_type", "The charset is not UTF-8.", "Send JSON as UTF-8.")


def _check_encoding(given: str) -> None:
    if given.strip().lower() not in {"", "identity"}:
        detail = f"The Content-Encoding is {given[:80]!r}; bodies are taken uncompressed only."
        raise HttpProblem(
            415, "unsupported_encoding", detail, "Send the body as it is.", headers={"Accept-Encoding": "identity"}
        )
