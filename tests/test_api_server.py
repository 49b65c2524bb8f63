"""The process around the routes: starting, refusing an address, stopping without losing a request."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from api_kit import EMAIL, Api, Worker, running
from chaos.proxy import FaultProxy
from headrace.broker.client import AsyncClient
from headrace.errors import BadSetting
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_api.server import serving
from headrace_cli.ports import free_port
from redis_server import RedisServer

RUN = """
import logging, os, sys
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_api.server import run
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
run(ApiSettings.from_env(os.environ), RedisSettings.from_env(os.environ))
"""


@asynccontextmanager
async def process(redis_url: str, port: int) -> AsyncIterator[Process]:
    """An API in a process of its own, that has said that it listens."""
    environ = {"HEADRACE_URL": redis_url, "PORT": str(port)}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, env=environ, stdout=PIPE)
    assert child.stdout is not None
    try:
        line = (await child.stdout.readline()).decode()
        assert line.startswith(f"The API listens on http://127.0.0.1:{port}, with redis://"), line
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_after_the_requests_it_has(redis_url: str, sign: signal.Signals) -> None:
    """Those who wait are answered, the process ends with 0."""
    port = free_port()
    redis = RedisSettings.parse(redis_url, "the test")
    async with process(redis_url, port) as child, aiohttp.ClientSession() as session:
        api = Api(f"http://127.0.0.1:{port}", session, Worker(AsyncClient(redis)))
        task_id = await api.submitted(EMAIL)
        waiting = asyncio.create_task(api.get(f"/api/v1/tasks/{task_id}?wait=50"))
        await api.worker.somebody_blocks()
        child.send_signal(sign)
        assert (await waiting).json["status"] == "pending"
        async with asyncio.timeout(10):
            assert await child.wait() == 0
        await api.worker.client.aclose()


async def test_it_does_not_start_without_the_c_parser(redis_url: str) -> None:
    """What the tests of hostile bytes show holds for that one only."""
    environ = {"HEADRACE_URL": redis_url, "PORT": "0", "AIOHTTP_NO_EXTENSIONS": "1"}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, env=environ, stdout=PIPE, stderr=PIPE)
    _, said = await child.communicate()
    assert child.returncode == 1
    assert b"ConfigError: aiohttp runs without its C parser, so the API does not start." in said


async def test_a_taken_port_is_said_in_a_sentence(redis_url: str) -> None:
    """Setting, value, and what to do."""
    async with running(redis_url) as api:
        settings = ApiSettings.from_env({}, port=api.port)
        with pytest.raises(BadSetting, match="0 takes a free one") as refused:
            async with serving(settings, RedisSettings.parse(redis_url, "the test")):
                pass
    assert str(refused.value) == (
        f"PORT is '{api.port}' (from the settings); allowed is a port that is free on 127.0.0.1 (address already in "
        "use). Stop what listens there, or choose another by --port or PORT; 0 takes a free one."
    )


async def test_it_starts_and_stops_without_redis() -> None:
    """Redis may come later; until then it is not ready, and stopping does not hang."""
    async with asyncio.timeout(10):
        async with running("redis://127.0.0.1:1/0") as api:
            assert (await api.get("/readyz")).status == 503


async def test_ipv6_loopback_works_too(redis_url: str) -> None:
    """`HEADRACE_HOST=::1` gives a URL that can be used as it is."""
    try:
        async with running(redis_url, host="::1") as api:
            assert api.url.startswith("http://[::1]:")
            assert (await api.submit()).status == 201
    except BadSetting as error:
        pytest.skip(f"no IPv6 on this machine: {error}")


async def test_a_submission_on_its_way_at_the_stop_is_finished(redis_server: RedisServer, redis_url: str) -> None:
    """Redis hangs, the server is told to stop, Redis comes back: the client gets its 201, and the task is there."""
    async with FaultProxy(redis_server.port) as proxy, aiohttp.ClientSession() as session:
        worker = Worker(AsyncClient(RedisSettings.parse(redis_url, "the test")))
        async with serving(ApiSettings.from_env({}, port=0), RedisSettings.parse(proxy.url, "the test")) as url:
            api = Api(url, session, worker)
            await api.submitted()
            await asyncio.gather(*(api.get("/livez") for _ in range(3)))  # connections that are there already
            proxy.blackhole()
            flying = asyncio.create_task(api.submit())
            await api.get("/livez")
            assert not flying.done()
            asyncio.get_running_loop().call_later(0.2, proxy.heal)
        answer = await flying
        assert answer.status == 201, answer.text
        claims = await worker.claim()
        await worker.client.aclose()
    assert answer.json["task_id"] in {claim.task.id for claim in claims}


async def test_a_client_that_reads_nothing_holds_up_no_stop(redis_url: str) -> None:
    """It has as long as all others; aiohttp would wait as long again for it."""
    payload = {"x": "y" * 60_000}
    stop_s = 2.0
    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        mine.setblocking(False)
        loop = asyncio.get_running_loop()
        redis = RedisSettings.parse(redis_url, "the test")
        async with aiohttp.ClientSession() as session:
            async with serving(ApiSettings.from_env({}, port=0), redis, stop_s=stop_s) as url:
                api = Api(url, session, Worker(AsyncClient(redis)))
                batch = {"tasks": [{"type": "t", "payload": payload}] * 15}
                for _ in range(12):
                    assert (await api.ask("POST", "/api/v1/tasks:batch", json=batch)).status == 201
                await loop.sock_connect(mine, ("127.0.0.1", api.port))
                await loop.sock_sendall(mine, b"GET /api/v1/tasks?limit=200&fields=payload HTTP/1.1\r\nHost: x\r\n\r\n")
                assert await loop.sock_recv(mine, 12) == b"HTTP/1.1 200"
                began = loop.time()
            assert stop_s <= loop.time() - began < 2 * stop_s
            await api.worker.client.aclose()
