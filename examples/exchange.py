"""One HTTP request to a host that a payload named: guarded, bounded in time and size, and judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from typing import Literal

import aiohttp
from aiohttp.abc import AbstractResolver

from examples.ssrf import Admitted, ForbiddenTarget, Policy
from headrace import Permanent, RetryAfter

MAX_RETRY_AFTER_S = 3600.0
"""A server that asks for more patience is asked again after an hour all the same."""

_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


class Unavailable(Exception):  # noqa: N818 - named for the outcome
    """The other side could not be reached or could not answer now; the task is tried again with backoff."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange may cost."""

    total_s: float = 10.0
    """From looking up the name to the last byte of the reply, in seconds."""
    reply_bytes: int = 1_000_000
    """Bytes of the body that are read."""


@dataclass(frozen=True, slots=True)
class Door:
    """The way out for one kind of task."""

    policy: Policy
    limits: Limits = Limits()
    resolver: AbstractResolver | None = None
    """None: the system's."""
    tls: SSLContext | None = None
    """None: the system's authorities."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. `body` goes out byte for byte, so that it can be signed."""

    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Its content is a stranger's: nothing here is trusted or logged."""

    target: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    end: Literal["whole", "too_large", "broken"]
    """How the body ended: complete, cut at the limit, or by a lost connection or the time limit."""

    def require_success(self, now: datetime) -> None:
        """Return for 2xx. Else raise what the status calls for: Permanent, RetryAfter or Unavailable."""
        status = self.status
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise Permanent(
                f"{self.target} answered {status}, a redirect. Redirects are not followed, as they could "
                "lead anywhere; submit the task with the final address."
            )
        if 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY:
            raise Permanent(f"{self.target} answered {status}: the same request would be refused again.")
        message = f"{self.target} answered {status}; it will be asked again."
        wait_s = retry_after_s(self.headers.get("Retry-After"), now)
        raise Unavailable(message) if wait_s is None else RetryAfter(wait_s, message)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header (seconds or a date), within 0 and MAX_RETRY_AFTER_S.

    None when there is no such header, or it makes no sense.
    """
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), MAX_RETRY_AFTER_S)
    try:
        due = parsedate_to_datetime(value)
    except ValueError:
        return None
    due = due if due.tzinfo else due.replace(tzinfo=UTC)
    return min(max((due - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


async def exchange(request: Request, door: Door) -> Reply:
    """Send `request` and read the reply, whatever its status.

    Raises ForbiddenTarget when the policy refuses the URL or the address behind it, and Unavailable when
    there is no reply: no address, no connection, no valid certificate, no answer in time.
    """
    target = door.policy.admit(request.url)
    try:
        async with _send(request, target, door) as response:
            body, end = await _read(response, door.limits.reply_bytes)
            return Reply(target.name, response.status, response.headers, body, end)
    except aiohttp.InvalidURL as error:
        raise ForbiddenTarget(f"{target.name} cannot be called: its host is not written in a usual way.") from error
    except TimeoutError as error:
        raise Unavailable(f"{target.name} did not answer within {door.limits.total_s:g} s.") from error
    except aiohttp.ClientError as error:
        raise Unavailable(f"{target.name} could not be reached: {_cause(error)}.") from error


@asynccontextmanager
async def _send(request: Request, target: Admitted, door: Door) -> AsyncIterator[aiohttp.ClientResponse]:
    # A session for each exchange: its gate knows the one target it was made for, and no cookie or kept
    # connection passes from one task to another.
    connector = aiohttp.TCPConnector(
        socket_factory=target.open_socket,
        resolver=door.resolver,
        ssl=door.tls or True,
        use_dns_cache=False,
        happy_eyeballs_delay=None,
        force_close=True,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=door.limits.total_s),
        headers={"User-Agent": "headrace-examples", "Accept-Encoding": "identity"},
    )
    async with (
        session,
        session.request(
            request.method,
            target.url,
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
        ) as response,
    ):
        yield response


async def _read(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, Literal["whole", "too_large", "broken"]]:
    body = bytearray()
    if (response.content_length or 0) > limit:
        return b"", "too_large"
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                return bytes(body[:limit]), "too_large"
    except (TimeoutError, aiohttp.ClientError, asyncio.IncompleteReadError):
        # The status arrived and often decides alone: the caller judges whether it needs the rest.
        return bytes(body), "broken"
    return bytes(body), "whole"


def _cause(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name has no address"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not valid for this name"
    if isinstance(error, aiohttp.ClientOSError) and error.strerror:
        return error.strerror
    return type(error).__name__
