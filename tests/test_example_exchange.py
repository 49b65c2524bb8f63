"""What one HTTP exchange may cost, and what each outcome means for the task."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from examples.exchange import Door, Limits, Reply, Request, Unavailable, exchange, retry_after_s
from examples.ssrf import Policy
from headrace import Permanent, RetryAfter

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
PATIENT = Limits(total_s=5)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, limits: Limits = PATIENT) -> AsyncIterator[tuple[str, Door]]:
    """A server on loopback with one handler: its URL, and a door that leads to it."""
    app = web.Application()
    app.router.add_route("*", "/", handler)
    async with TestServer(app) as server:
        assert server.port is not None
        policy = Policy("EXAMPLES_WEBHOOK_HOSTS", loopback=frozenset({("127.0.0.1", server.port)}))
        yield f"http://127.0.0.1:{server.port}/", Door(policy, limits)


async def test_the_body_goes_out_byte_for_byte_and_the_reply_comes_back() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), headers={"X-Seen": request.headers["X-Sent"]})

    async with serving(echo) as (url, door):
        reply = await exchange(Request("PUT", url, b'{"a": 1}\n', {"X-Sent": "1"}), door)
    assert (reply.status, reply.body, reply.headers["X-Seen"], reply.end) == (200, b'{"a": 1}\n', "1", "whole")


async def test_a_server_that_never_answers_is_left_at_the_time_limit() -> None:
    for_ever = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        await for_ever.wait()
        return web.Response()

    async with serving(silent, Limits(total_s=0.1)) as (url, door):
        with pytest.raises(Unavailable, match=r"did not answer within 0\.1 s"):
            await exchange(Request("GET", url), door)
        for_ever.set()


async def test_a_body_that_drips_for_ever_is_left_at_the_time_limit() -> None:
    """The status is known by then, and is kept: it often decides alone."""
    for_ever = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await for_ever.wait()
        return response

    async with serving(drip, Limits(total_s=0.5)) as (url, door):
        reply = await exchange(Request("GET", url), door)
        for_ever.set()
    assert (reply.status, reply.body, reply.end) == (200, b"first", "broken")


@pytest.mark.parametrize("announced", [True, False], ids=["Content-Length", "chunked"])
async def test_a_huge_reply_is_cut_at_the_limit(announced: bool) -> None:
    written = 0

    async def huge(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        if announced:
            response.content_length = 1 << 30
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))
            written += 1 << 16

    async with serving(huge, Limits(total_s=5, reply_bytes=1 << 20)) as (url, door):
        reply = await exchange(Request("GET", url), door)
    assert reply.end == "too_large"
    assert len(reply.body) == (0 if announced else 1 << 20)
    assert written < 1 << 25, "the sender was stopped, not read to its end"


async def test_a_compressed_reply_is_not_unpacked() -> None:
    """A gzip bomb of 10 MB in 10 kB costs 10 kB."""
    bomb = gzip.compress(bytes(10_000_000))

    async def packed(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(packed) as (url, door):
        reply = await exchange(Request("GET", url), door)
    assert reply.body == bomb


async def test_no_cookie_passes_from_one_exchange_to_the_next() -> None:
    seen: list[str | None] = []

    async def cookie(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        response = web.Response()
        response.set_cookie("tenant", "one")
        return response

    async with serving(cookie) as (url, door):
        await exchange(Request("GET", url), door)
        await exchange(Request("GET", url), door)
    assert seen == [None, None]


async def test_a_certificate_must_be_valid_for_the_name() -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="private")

    async def over_tls(name: str, trust: ssl.SSLContext | None) -> Reply:
        serving_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(serving_tls)
        app = web.Application()
        app.router.add_get("/", hello)
        server = TestServer(app, scheme="https")
        await server.start_server(ssl=serving_tls)
        assert server.port is not None
        policy = Policy("X", loopback=frozenset({("127.0.0.1", server.port)}))
        try:
            return await exchange(
                Request("GET", f"https://127.0.0.1:{server.port}/"), Door(policy, Limits(total_s=5), tls=trust)
            )
        finally:
            await server.close()

    assert (await over_tls("127.0.0.1", trusting)).body == b"private"
    with pytest.raises(Unavailable, match="certificate is not valid"):
        await over_tls("other.example", trusting)
    with pytest.raises(Unavailable, match="certificate is not valid"):
        await over_tls("127.0.0.1", None)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_success(status: int) -> None:
    _reply(status).require_success(NOW)


@pytest.mark.parametrize("status", [301, 304, 308, 400, 401, 403, 404, 405, 410, 413, 422])
def test_what_would_be_refused_again_is_permanent(status: int) -> None:
    with pytest.raises(Permanent, match=str(status)):
        _reply(status).require_success(NOW)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with pytest.raises(Unavailable, match=str(status)):
        _reply(status).require_success(NOW)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    with pytest.raises(RetryAfter, match=f"answered {status}") as caught:
        _reply(status, {"Retry-After": "17"}).require_success(NOW)
    assert caught.value.seconds == 17


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        ("999999999999999999999999", 3600),
        ("Mon, 15 Jan 2024 10:31:00 GMT", 60),
        ("Mon, 15 Jan 2024 10:31:00 -0000", 60),
        ("Mon, 15 Jan 2024 10:29:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("-5", None),
        ("1e9", None),
        ("²", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_bounded(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


def _reply(status: int, headers: dict[str, str] | None = None) -> Reply:
    return Reply("https://hooks.example", status, headers or {}, b"", "whole")
