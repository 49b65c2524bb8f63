"""The worker's port for probes and Prometheus."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from headrace.errors import ConfigError
from headrace.runtime import server as module
from headrace.runtime.server import REQUEST_BYTES, Health, WorkerServer
from headrace.runtime.stats import WorkerStats

LIMIT_S = 10.0


@dataclass
class Rig:
    """A running server, whose health the test sets."""

    stats: WorkerStats = field(default_factory=lambda: WorkerStats(["send_email"], slots=4))
    health: Health = field(default_factory=lambda: Health(alive=True, ready=True))

    def __post_init__(self) -> None:
        self.server = WorkerServer("127.0.0.1", 0, lambda: self.health, self.stats)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}{path}"

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.get(self.url(path), **options) as answer:
            return answer.status, await answer.json(content_type=None)

    async def raw(self, request: bytes) -> bytes:
        """All that comes back until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), LIMIT_S)
        finally:
            writer.close()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    rig.stats.redis_up = True
    await rig.server.start()
    yield rig
    await rig.server.stop()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
async def test_a_worker_that_is_well_says_ok(rig: Rig, path: str) -> None:
    """200 and a small JSON object."""
    status, body = await rig.get(path)
    assert (status, body["status"]) == (200, "ok")


async def test_livez_fails_only_for_what_a_restart_would_mend(rig: Rig) -> None:
    """Draining and an absent Redis leave it at 200: a restart would cost work and help nobody."""
    rig.health = Health(alive=True, ready=False, reason="it drains")
    rig.stats.redis_up = False
    assert (await rig.get("/livez"))[0] == 200
    rig.health = Health(alive=False, ready=True, reason="its requests stand still")
    assert await rig.get("/livez") == (503, {"status": "failing", "reason": "its requests stand still"})


async def test_readyz_follows_the_drain_and_not_redis(rig: Rig) -> None:
    """A worker that turns unready when Redis is away would be stopped first, busy or not."""
    rig.stats.redis_up = False
    assert (await rig.get("/readyz"))[0] == 200
    rig.health = Health(alive=True, ready=False, reason="it drains")
    assert await rig.get("/readyz") == (503, {"status": "failing", "reason": "it drains"})


async def test_health_is_about_the_work_it_can_do(rig: Rig) -> None:
    """503 without Redis, with the reason and the facts beside it."""
    rig.health = Health(alive=True, ready=True, facts={"worker": "host:1"})
    rig.stats.busy = 3
    assert await rig.get("/health") == (
        200,
        {"status": "ok", "slots": 4, "busy": 3, "redis_up": True, "worker": "host:1"},
    )
    rig.stats.redis_up = False
    status, body = await rig.get("/health")
    assert status == 503 and body["redis_up"] is False and "Redis" in body["reason"]


async def test_metrics_are_those_of_the_stats_now(rig: Rig) -> None:
    """Each scrape reads the numbers anew."""
    async with aiohttp.ClientSession() as session:
        for expected in (0, 1):
            async with session.get(rig.url("/metrics")) as answer:
                assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
                line = 'tasks_processed_total{status="completed",type="send_email"}'
                assert f"{line} {expected}.0" in await answer.text()
            rig.stats.types["send_email"].ended("completed", 0.1)


async def test_metrics_come_as_openmetrics_when_asked(rig: Rig) -> None:
    """Prometheus' own Accept header decides."""
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    async with aiohttp.ClientSession() as session, session.get(rig.url("/metrics"), headers=accept) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await answer.text()).endswith("# EOF\n")


async def test_scrapes_at_once_share_one_registry(rig: Rig) -> None:
    """The first requests race for the import; all are answered."""
    answers = await asyncio.gather(*(rig.raw(b"GET /metrics HTTP/1.1\r\n\r\n") for _ in range(5)))
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", 405),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez?verbose HTTP/1.1\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nNo colon\r\n: no name\r\n\xff: \x00\r\n\r\n", 200),
        (b"GET /" + b"x" * REQUEST_BYTES + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
async def test_every_request_gets_one_answer(rig: Rig, request_: bytes, status: int) -> None:
    """Well-formed or not: a status, a JSON body with its length, and the connection is closed."""
    head, _, body = (await rig.raw(request_)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Length: %d\r\n" % len(body) in head and body.startswith(b"{")


async def test_head_sends_no_body(rig: Rig) -> None:
    """The length of the body that GET would bring, and nothing behind it."""
    head, _, body = (await rig.raw(b"HEAD /livez HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"Content-Length: 15\r\n" in head and body == b""


async def test_a_client_that_says_nothing_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open socket does not stay open."""
    monkeypatch.setattr(module, "REQUEST_S", 0.05)
    assert await rig.raw(b"GET /livez HTTP/1.1\r\n") == b""


async def test_a_client_that_goes_away_leaves_no_error(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Port scanners are nobody's bug."""
    _, writer = await asyncio.open_connection("127.0.0.1", rig.server.port)
    writer.close()
    await writer.wait_closed()
    assert (await rig.get("/livez"))[0] == 200
    assert caplog.records == []


async def test_a_fault_in_the_health_check_is_a_500_and_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The probe fails loudly instead of hanging."""

    def broken() -> Health:
        raise RuntimeError("secret detail")

    rig.server._health = broken
    with caplog.at_level(logging.ERROR, "headrace.worker"):
        status, body = await rig.get("/livez")
    assert status == 500 and "secret" not in str(body)
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_port_in_use_is_a_sentence_with_a_remedy(rig: Rig) -> None:
    """The setting is named, and what to do."""
    second = WorkerServer("127.0.0.1", rig.server.port, lambda: rig.health, rig.stats)
    with pytest.raises(ConfigError, match=rf"port {rig.server.port} on 127\.0\.0\.1 .*HEADRACE_METRICS_PORT"):
        await second.start()


async def test_after_stop_nobody_listens_and_open_clients_are_dropped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped worker frees its port at once."""
    monkeypatch.setattr(module, "REQUEST_S", 2 * LIMIT_S)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.server.port)
    port = rig.server.port
    assert (await rig.get("/livez"))[0] == 200  # the first client's connection is accepted by now
    await rig.server.stop()
    assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_the_start_of_a_worker_imports_neither_framework_nor_prometheus() -> None:
    """Both would cost each worker a good part of its start; Prometheus' part is imported at the first scrape."""
    code = "import sys, headrace.runtime.server; print(sorted({'aiohttp', 'prometheus_client'} & set(sys.modules)))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.strip() == b"[]"
