"""The floor of the HTTP rows: aiohttp routes that read JSON and answer JSON, and do nothing else.

`/lean` uses msgspec and is the floor; `/plain` is what aiohttp's own helpers make of it.
"""

from __future__ import annotations

import sys

import msgspec
import uvloop
from aiohttp import web

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


async def lean(request: web.Request) -> web.Response:
    body = _decode(await request.read())
    answer = _encode({"task_id": "550e8400-e29b-41d4-a716-446655440000", "status": body["type"]})
    return web.Response(body=answer, status=201, content_type="application/json")


async def plain(request: web.Request) -> web.Response:
    body = await request.json()
    answer = {"task_id": "550e8400-e29b-41d4-a716-446655440000", "status": body["type"]}
    return web.json_response(answer, status=201)


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_post("/lean", lean)
    app.router.add_post("/plain", plain)
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=uvloop.new_event_loop()
    )
