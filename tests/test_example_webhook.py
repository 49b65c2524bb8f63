"""`call_webhook`: signed by Standard Webhooks, judged by the status, harmless to the worker."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
from aiohttp import web
from aiohttp.test_utils import TestServer

from examples import webhook
from examples.exchange import Door, Limits, Unavailable
from examples.ssrf import ForbiddenTarget, Policy
from examples.webhook import Hook, Method, Sender, deliver
from headrace import Permanent, RetryAfter

TASK = "550e8400-e29b-41d4-a716-446655440000"
OLD, NEW, FOREIGN = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
BODY = {"type": "order.shipped", "data": {"order_id": 1001, "note": "Grüße \U0001f30a"}}
PATIENT = Limits(total_s=5)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def official(secret: bytes) -> standardwebhooks.Webhook:
    """The verifier of the specification's authors."""
    return standardwebhooks.Webhook("whsec_" + base64.b64encode(secret).decode())


@asynccontextmanager
async def receiver(handler: Handler, limits: Limits = PATIENT) -> AsyncIterator[tuple[str, Sender]]:
    """A receiver on loopback: its URL, and a sender that may reach it."""
    app = web.Application()
    app.router.add_route("*", "/hook", handler)
    async with TestServer(app) as server:
        assert server.port is not None
        policy = Policy("EXAMPLES_WEBHOOK_HOSTS", loopback=frozenset({("127.0.0.1", server.port)}))
        yield f"http://127.0.0.1:{server.port}/hook", Sender(Door(policy, limits), (NEW, OLD))


class Recorder:
    """Takes every message and keeps it."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers
        self.messages: list[tuple[str, dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.messages.append((request.method, dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers=self.headers)


@pytest.mark.parametrize("secret", [OLD, NEW], ids=["old", "new"])
async def test_the_official_verifier_accepts_the_message_with_either_secret(secret: bytes) -> None:
    """While secrets are exchanged a receiver may hold the old or the new one."""
    recorder = Recorder()
    async with receiver(recorder.answer) as (url, sender):
        result = await deliver(Hook(TASK, url, "POST", BODY), sender, datetime.now(UTC))
    [(method, headers, body)] = recorder.messages
    assert (method, result.status) == ("POST", 200)
    assert headers["webhook-id"] == TASK
    assert headers["Content-Type"] == "application/json"
    assert official(secret).verify(body, headers) == BODY
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        official(FOREIGN).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        official(secret).verify(body + b" ", headers)


async def test_a_retry_has_the_same_id_and_a_new_timestamp() -> None:
    recorder = Recorder()
    now = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    async with receiver(recorder.answer) as (url, sender):
        await deliver(Hook(TASK, url, "POST", {}), sender, now)
        await deliver(Hook(TASK, url, "POST", {}), sender, now + timedelta(seconds=5))
    first, second = (headers for _, headers, _ in recorder.messages)
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 5
    assert first["webhook-signature"] != second["webhook-signature"]


def test_the_id_has_no_full_stop_which_separates_what_is_signed() -> None:
    assert webhook.message_id(f"reports.{TASK}") == f"reports_{TASK}"


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [
        ("POST", {}, b"{}"),
        ("PUT", {"a": 1}, b'{"a":1}'),
        ("PATCH", {"a": None}, b'{"a":null}'),
        ("GET", {}, b""),
        ("DELETE", {}, b""),
        ("DELETE", {"a": 1}, b'{"a":1}'),
    ],
)
async def test_each_method_sends_what_is_signed(method: Method, body: dict[str, Any], sent: bytes) -> None:
    recorder = Recorder(204)
    async with receiver(recorder.answer) as (url, sender):
        await deliver(Hook(TASK, url, method, body), sender, datetime.now(UTC))
    [(seen, headers, received)] = recorder.messages
    assert (seen, received) == (method, sent)
    official(NEW).verify(received, headers, json_parse=False)


async def test_the_receivers_half_agrees_with_the_official_signer() -> None:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": "v1,AAAA " + official(OLD).sign("msg_1", now, '{"a":1}'),
    }
    assert webhook.verify(headers, b'{"a":1}', [NEW, OLD], now.timestamp())
    assert not webhook.verify(headers, b'{"a":1}', [NEW], now.timestamp())
    assert not webhook.verify(headers, b'{"a":2}', [OLD], now.timestamp())
    assert not webhook.verify(headers, b'{"a":1}', [OLD], now.timestamp() + 301)
    assert not webhook.verify(headers, b'{"a":1}', [OLD], now.timestamp() - 302)
    for missing in headers:
        rest = {name: value for name, value in headers.items() if name != missing}
        assert not webhook.verify(rest, b'{"a":1}', [OLD], now.timestamp())


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 410, 413])
async def test_a_refusal_is_permanent(status: int) -> None:
    recorder = Recorder(status, {"Location": "/hook"} if status < 400 else None)
    async with receiver(recorder.answer) as (url, sender):
        with pytest.raises(Permanent, match=f"answered {status}"):
            await deliver(Hook(TASK, url, "POST", BODY), sender, datetime.now(UTC))
    assert len(recorder.messages) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_receiver_in_trouble_is_tried_again(status: int) -> None:
    async with receiver(Recorder(status).answer) as (url, sender):
        with pytest.raises(Unavailable, match=f"answered {status}"):
            await deliver(Hook(TASK, url, "POST", BODY), sender, datetime.now(UTC))


async def test_a_receiver_that_names_a_time_is_tried_again_then() -> None:
    async with receiver(Recorder(429, {"Retry-After": "42"}).answer) as (url, sender):
        with pytest.raises(RetryAfter) as caught:
            await deliver(Hook(TASK, url, "POST", BODY), sender, datetime.now(UTC))
    assert caught.value.seconds == 42


async def test_a_receiver_that_never_answers_is_tried_again() -> None:
    for_ever = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        await for_ever.wait()
        return web.Response()

    async with receiver(silent, Limits(total_s=0.1)) as (url, sender):
        with pytest.raises(Unavailable, match="did not answer within"):
            await deliver(Hook(TASK, url, "POST", BODY), sender, datetime.now(UTC))
        for_ever.set()


async def test_a_huge_reply_to_a_message_that_was_taken_does_not_send_it_again() -> None:
    """The status says that the receiver has it; how much it talks afterwards changes nothing."""

    async def talkative(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    async with receiver(talkative, Limits(total_s=5, reply_bytes=1 << 20)) as (url, sender):
        result = await deliver(Hook(TASK, url, "POST", BODY), sender, datetime.now(UTC))
    assert (result.status, result.reply_bytes) == (202, 1 << 20)


async def test_a_receiver_that_is_not_allowed_gets_nothing() -> None:
    recorder = Recorder()
    async with receiver(recorder.answer) as (url, _):
        closed = Sender(Door(Policy("EXAMPLES_WEBHOOK_HOSTS")), (NEW,))
        with pytest.raises(ForbiddenTarget):
            await deliver(Hook(TASK, url, "POST", BODY), closed, datetime.now(UTC))
    assert recorder.messages == []


async def test_without_a_secret_nothing_is_sent() -> None:
    """An unsigned webhook teaches receivers to believe anybody."""
    recorder = Recorder()
    async with receiver(recorder.answer) as (url, sender):
        with pytest.raises(Permanent, match="EXAMPLES_WEBHOOK_SECRETS"):
            await deliver(Hook(TASK, url, "POST", BODY), Sender(sender.door, ()), datetime.now(UTC))
    assert recorder.messages == []
