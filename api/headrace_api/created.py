"""The answer to an accepted submission, as one write of bytes put together here.

aiohttp's own Response costs a sixth of the whole request. This one is for HTTP/1.1 on a connection that stays open,
which is nearly every submission; `answer` falls back to aiohttp's for the rest.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Final

from aiohttp import HttpVersion11, web

JSON: Final = "application/json"

_TEMPLATE: Final = (
    b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nLocation: /api/v1/tasks/%b\r\nX-Request-Id: %b\r\n"
    b'Server: headrace\r\nDate: %b\r\nContent-Length: %d\r\n%b\r\n{"task_id":"%b","status":"submitted"}'
)
_BODY_SIZE: Final = len('{"task_id":"","status":"submitted"}')


class Created(web.StreamResponse):
    """201 for one task. `request_id` must not hold a line break; it is set by whoever made it."""

    status = 201
    keep_alive = True
    request_id = b""
    more = b""
    """Whole lines of further headers."""

    def __init__(self, http: web.BaseRequest, task_id: str) -> None:
        # Not the base's: nothing of its state is used, and `prepare` and `write_eof` are all that aiohttp calls.
        self._http = http
        self._task_id = task_id.encode()

    def force_close(self) -> None:
        """Say that the connection is closed after this answer, and close it."""
        if self.keep_alive:
            self.keep_alive = False
            add_header(self, "Connection", "close")

    async def prepare(self, request: web.BaseRequest) -> None:
        """Headers and body go out together, at the end."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send it. Raises ConnectionResetError if the client has gone."""
        protocol, task_id = self._http.protocol, self._task_id
        wire = protocol.transport
        if wire is None or wire.is_closing():
            raise ConnectionResetError("The client went away")
        size = _BODY_SIZE + len(task_id)
        wire.write(_TEMPLATE % (task_id, self.request_id, _date(), size, self.more, task_id))
        if protocol.writing_paused:
            await self._http.writer.drain()


def add_header(answer: web.StreamResponse, name: str, value: str) -> None:
    """One more header on an answer, of this kind or another. `name` and `value` must not hold a line break."""
    if isinstance(answer, Created):
        answer.more += b"%b: %b\r\n" % (name.encode(), value.encode())
    else:
        answer.headers.add(name, value)


def answer(http: web.Request, task_id: str) -> web.StreamResponse:
    """The answer, for this request's version of HTTP."""
    asked = http._message  # as in `routing`
    if asked.version == HttpVersion11 and not asked.should_close:
        return Created(http, task_id)
    headers = {"Content-Type": JSON, "Location": f"/api/v1/tasks/{task_id}"}
    return web.Response(body=b'{"task_id":"%b","status":"submitted"}' % task_id.encode(), status=201, headers=headers)


class _Clock:
    """The Date header, made once a second."""

    text = b""
    until_s = 0.0
    """By the monotonic clock, which is cheaper to compare than whole seconds of the other."""


def _date() -> bytes:
    if time.monotonic() >= _Clock.until_s:
        now = time.time()
        _Clock.text, _Clock.until_s = formatdate(int(now), usegmt=True).encode(), time.monotonic() + 1 - now % 1
    return _Clock.text
