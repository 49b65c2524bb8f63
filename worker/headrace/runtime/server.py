"""The worker's port for probes and Prometheus: /livez, /readyz, /health, /metrics.

Four GET routes with short answers need no web framework, and importing one costs a worker 0.3 s at its start and 16 MB.
So this speaks just enough HTTP/1.1: one request a connection, bounded in size and time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from headrace.runtime.stats import WorkerStats

logger = logging.getLogger("headrace.worker")

REQUEST_BYTES: Final = 16_384
REQUEST_S: Final = 5.0
"""A client has so long for its request, and again so long to take the answer."""
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker is."""

    alive: bool
    """False only if a restart would help."""
    ready: bool
    """Whether it takes tasks: not while it starts or drains."""
    reason: str = ""
    """Why not, as a sentence."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What else /health shows."""
    warnings: tuple[str, ...] = ()
    """What may lose tasks although it is ready."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    accept: str


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = JSON
    extra: str = ""
    """More header lines, each with its line end."""

    def message(self, *, with_body: bool) -> bytes:
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\nCache-Control: no-store\r\n{self.extra}Connection: close\r\n\r\n"
        )
        return head.encode() + (self.body if with_body else b"")


class WorkerServer:
    """Serves from `start` to `stop`, also while the worker drains."""

    def __init__(self, host: str, port: int, health: Callable[[], Health], stats: WorkerStats) -> None:
        self._host = host
        self._asked_port = port
        self._health = health
        self._stats = stats
        self._registry: CollectorRegistry | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen. Raises ConfigError if the address cannot be had."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._asked_port, limit=REQUEST_BYTES)
        except OSError as error:
            raise ConfigError(
                f"The health and metrics port {self._asked_port} on {self._host} cannot be opened ({error.strerror})",
                "Stop what uses it, or set HEADRACE_METRICS_PORT to another one; 0 takes a free one",
            ) from None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "the server is not started"
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and drop who is connected."""
        if self._server is not None:
            self._server.close()
        for writer in self._clients:
            writer.close()

    # one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await _read(reader)
            answer = request if isinstance(request, _Answer) else await self._answer(request)
            with_body = isinstance(request, _Answer) or request.method != "HEAD"
            writer.write(answer.message(with_body=with_body))
            async with asyncio.timeout(REQUEST_S):
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # the client went away or was too slow: it hears nothing, and nobody else is concerned
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _answer(self, request: _Request) -> _Answer:
        if request.method not in {"GET", "HEAD"}:
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is answered here.", "Allow: GET, HEAD\r\n")
        try:
            if request.path == "/metrics":
                return await self._metrics(request.accept)
            return self._probe(request.path, self._health())
        except Exception:
            logger.exception("%s could not be answered", request.path)
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a bug in headrace; the log says more.")

    def _probe(self, path: str, health: Health) -> _Answer:
        match path:
            case "/livez":
                return _verdict(health.alive, health)
            case "/readyz":
                return _verdict(health.alive and health.ready, health)
            case "/health":
                return self._whole(health)
        return _problem(HTTPStatus.NOT_FOUND, "There is /livez, /readyz, /health and /metrics.")

    def _whole(self, health: Health) -> _Answer:
        stats = self._stats
        facts = {"slots": stats.slots, "busy": stats.busy, "redis_up": stats.redis_up, **health.facts}
        if health.alive and health.ready and not stats.redis_up:
            away = "Redis cannot be reached; the worker tries again."
            health = replace(health, ready=False, reason=away)
        return _verdict(health.alive and health.ready, health, facts)

    async def _metrics(self, accept: str) -> _Answer:
        if self._registry is None:
            # prometheus-client takes a tenth of a second to import: not at the start, and not in the loop.
            await asyncio.to_thread(import_module, "headrace.metrics")
        from headrace.metrics import WorkerCollector, exposition, new_registry

        if self._registry is None:
            self._registry = new_registry("worker")
            self._registry.register(WorkerCollector(self._stats))
        body, content_type = exposition(self._registry, accept)
        return _Answer(HTTPStatus.OK, body, content_type)


async def _read(reader: asyncio.StreamReader) -> _Request | _Answer:
    """The request, or the answer to what is none."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        return _problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"A request has at most {REQUEST_BYTES} bytes.")
    first, *lines = head.split("\r\n")
    match first.split(" "):
        case [method, target, version] if version.startswith("HTTP/1."):
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            return _Request(method, target.partition("?")[0], headers.get("accept", ""))
    return _problem(HTTPStatus.BAD_REQUEST, "This is no HTTP/1.1 request.")


def _verdict(good: bool, health: Health, facts: Mapping[str, object] | None = None) -> _Answer:
    body: dict[str, object] = {"status": "ok" if good else "failing"}
    if not good and health.reason:
        body["reason"] = health.reason
    if health.warnings:
        body["warnings"] = health.warnings
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return _Answer(status, msgspec.json.encode({**body, **(facts or {})}))


def _problem(status: HTTPStatus, detail: str, extra: str = "") -> _Answer:
    body = {"title": status.phrase, "status": status.value, "detail": detail}
    return _Answer(status, msgspec.json.encode(body), "application/problem+json", extra)
