"""Webhooks after the Standard Webhooks specification: signed, with an id that retries do not change."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from examples.exchange import Door, Request, exchange
from headrace import Permanent

Method = Literal["POST", "PUT", "PATCH", "GET", "DELETE"]

TOLERANCE_S = 300
"""How far the timestamp of a request may be from the receiver's clock, in seconds."""


class Delivered(msgspec.Struct, frozen=True):
    """The receiver took the message."""

    status: int
    """Its HTTP status, 200 to 299."""
    reply_bytes: int
    """How much of its reply was read; the content is not kept."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One message to deliver."""

    task_id: str
    url: str
    method: Method
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sender:
    """Where messages may go and what they are signed with."""

    door: Door
    secrets: tuple[bytes, ...]


def message_id(task_id: str) -> str:
    """The `webhook-id` of a task: its id, so receivers can drop what they have already seen.

    The id is signed as `id.timestamp.body`, so it must not hold a full stop, and ids of named queues do.
    """
    return task_id.replace(".", "_")


def sign(webhook_id: str, timestamp_s: int, body: bytes, secret: bytes) -> str:
    """One signature, `v1,<base64>`, over id, timestamp and body."""
    content = b"%s.%d.%s" % (webhook_id.encode(), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()


def signed_headers(webhook_id: str, timestamp_s: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The three headers of a message; one signature for each secret, so that either side can change first."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(sign(webhook_id, timestamp_s, body, secret) for secret in secrets),
    }


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes], now_s: float) -> bool:
    """The receiver's half: whether one of `secrets` signed this message within TOLERANCE_S of `now_s`."""
    webhook_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (webhook_id and stamp.isascii() and stamp.isdigit()):
        return False
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        return False
    given = [word.encode() for word in headers.get("webhook-signature", "").split(" ")]
    wanted = [sign(webhook_id, int(stamp), body, secret).encode() for secret in secrets]
    return any(hmac.compare_digest(a, b) for a in given for b in wanted)


async def deliver(hook: Hook, sender: Sender, now: datetime) -> Delivered:
    """Send one message.

    A 2xx means that the receiver has it, however long its reply: sending it again would deliver it twice.
    Raises Permanent (forbidden target, redirect, other 4xx), RetryAfter or exchange.Unavailable.
    """
    if not sender.secrets:
        raise Permanent(
            "This worker has no secret to sign webhooks with; "
            "its operator sets EXAMPLES_WEBHOOK_SECRETS to `whsec_` and 32 random bytes in base64."
        )
    bare = not hook.body and hook.method in ("GET", "DELETE")
    body = b"" if bare else msgspec.json.encode(hook.body)
    headers = signed_headers(message_id(hook.task_id), int(now.timestamp()), body, sender.secrets)
    if not bare:
        headers["Content-Type"] = "application/json"
    reply = await exchange(Request(hook.method, hook.url, body, headers), sender.door)
    reply.require_success(now)
    return Delivered(reply.status, len(reply.body))
