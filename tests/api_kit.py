"""What the tests of the API share: an API on a free port, a client of it, and a worker's hands on the same Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

import openapi_check
from headrace import task as tasks
from headrace.broker.broker import Cycle, Queue, Report
from headrace.broker.client import AsyncClient
from headrace.broker.publishing import publish
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace.task import Attempt, Counters, Failure
from headrace_api.problems import type_of
from headrace_api.server import serving

TOKEN: Final = "a-token-of-more-than-16-characters"
EMAIL: Final = {
    "type": "send_email",
    "priority": 2,
    "payload": {"recipient": "user@example.com", "subject": "Hello World", "body": "This is a test email"},
    "max_retries": 3,
}
"""The original's example."""
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"recipient": {"type": "string"}, "subject": {"type": "string"}, "body": {"type": "string"}},
    "required": ["recipient", "subject", "body"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The code of a problem document, after looking at the rest of it."""
        body = self.json
        assert self.headers["Content-Type"] == "application/problem+json"
        assert body["status"] == self.status
        assert body["type"] == type_of(body["code"])
        assert body["title"] and body["detail"].endswith((".", "?"))
        assert body["request_id"] == self.headers["X-Request-Id"]
        assert "Traceback" not in self.text
        assert "redis://" not in self.text, "nothing of the inside is shown"
        return str(body["code"])

    @property
    def errors(self) -> dict[str, str]:
        """Pointer → detail and hint."""
        return {each["pointer"]: f"{each['detail']} ({each.get('hint')})" for each in self.json["errors"]}


class Api:
    """A running API, as a client sees it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, worker: Worker) -> None:
        self.url = url
        self.session = session
        self.worker = worker

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """One request; `json=`, `data=`, `headers=` as aiohttp takes them. OpenAPI must tell of its answer."""
        async with self.session.request(method, self.url + path, **options) as reply:
            openapi_check.check(method, path, reply.status, reply.headers, await reply.read())
            return Answer(reply.status, reply.headers, await reply.text())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def submit(self, body: Any = None, **headers: str) -> Answer:
        """Submit a document, or bytes as they are. Underscores in header names stand for hyphens."""
        data = body if isinstance(body, bytes) else json.dumps(EMAIL if body is None else body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", "/api/v1/tasks", data=data, headers={"Content-Type": "application/json"} | named)

    async def submitted(self, body: Any = None, **headers: str) -> str:
        """The id of a task that was accepted."""
        answer = await self.submit(body, **headers)
        assert answer.status == 201, answer.text
        return str(answer.json["task_id"])

    async def somebody_leaves(self, path: str) -> None:
        """A client asks, and closes its connection while the server is at it; the server has noticed after it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await self._in_flight(2)
        if path.partition("?")[0].endswith("/events"):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        await self._in_flight(1)

    async def _in_flight(self, number: int) -> None:
        """Until so many requests are being answered; the look itself is one."""
        async with asyncio.timeout(5):
            while f"\nheadrace_http_requests_in_flight {number}.0\n" not in (await self.get("/metrics")).text:
                pass

    async def task(self, task_id: str) -> Any:
        answer = await self.get(f"/api/v1/tasks/{task_id}")
        assert answer.status == 200, answer.text
        return answer.json


@dataclass(frozen=True)
class Claim:
    """One claimed task."""

    place: bytes
    envelope: bytes
    carried: bytes

    @property
    def task(self) -> tasks.Envelope:
        return tasks.decode_envelope(self.envelope)

    def report(
        self, outcome: str, argument: int | str = "", error: Failure | None = None, result: Any = None
    ) -> Report:
        old = tasks.parse_counters(self.carried)
        failed = int(outcome in {"retrying", "failed"})
        counters = Counters(old.attempts + 1, old.failures + failed, old.crashes, old.interruptions)
        now = time.time_ns() // 1_000_000
        raw = tasks.NO_RESULT if result is None else msgspec.Raw(msgspec.json.encode(result))
        attempt = Attempt(self.place.decode(), outcome, "worker-1", now - 50, now, error, None, raw)
        carried = tasks.extend(self.carried, counters, tasks.encode_attempt(attempt))
        record = tasks.record(outcome, self.envelope, carried)
        return Report(self.place, self.task.id, outcome, argument, self.task.type, record)


class Worker:
    """Claims and reports by the broker's own calls."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def claim(self, slots: int = 10, queue: str = "default", namespace: str = "default") -> list[Claim]:
        made = Queue(queue, namespace)
        await self.client.call(made.init())
        await self.client.call(made.beat("worker-1", time.time_ns()))
        cycle: Cycle = await self.client.call(made.cycle("worker-1", slots))
        return [Claim(*claim) for claim in cycle.claims]

    async def report(self, *reports: Report, queue: str = "default", namespace: str = "default") -> None:
        cycle: Cycle = await self.client.call(Queue(queue, namespace).cycle("worker-1", 0, reports))
        assert not cycle.verdicts, "every report was accepted"

    async def publish(self, name: str, description: Any, namespace: str = "default") -> None:
        """As a worker does that knows a type."""
        text = description if isinstance(description, bytes) else msgspec.json.encode(description)
        await self.client.call(publish(namespace, {name: text}))

    async def somebody_blocks(self) -> None:
        """Until a client waits in a blocking call."""
        async with asyncio.timeout(5):
            while "blocked_clients:0" in (await self.client.command("INFO", "clients")).decode():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def keys(self) -> list[str]:
        return sorted(key.decode() for key in await self.client.command("KEYS", "*"))


@contextlib.asynccontextmanager
async def running(
    redis_url: str, token: str | None = None, *, door: str | None = None, **changes: Any
) -> AsyncIterator[Api]:
    """An API on `redis_url`. `token` is sent by the client; `door` is another URL for the API itself (a proxy)."""
    patient = {"scan_s": 10.0}  # a machine that is busy must not cut lists short
    settings = ApiSettings.from_env({}, port=0, **patient | changes)
    client = AsyncClient(RedisSettings.parse(redis_url, "the test"))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        serving(settings, RedisSettings.parse(door or redis_url, "the test"), stop_s=2) as url,
        aiohttp.ClientSession(headers=headers) as session,
    ):
        try:
            yield Api(url, session, Worker(client))
        finally:
            await client.aclose()
