"""Connections: how many there may be, how long they may take, and what those hear that are over a limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from api_kit import Api, running
from headrace_api.connections import MAX_REFUSED, SPARE_FILES, network_of

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of a fifth of a second."""
    monkeypatch.setattr("headrace_api.connections.TICK_S", 0.02)
    monkeypatch.setattr("headrace_api.server.HEADERS_S", 0.2)
    monkeypatch.setattr("headrace_api.server.UNREAD_S", 0.2)


@contextlib.asynccontextmanager
async def connected(api: Api, count: int = 1, address: str = "127.0.0.1") -> AsyncIterator[list[Streams]]:
    """So many connections from one address, known to the server."""
    before = await open_connections(api)
    made = [await asyncio.open_connection("127.0.0.1", api.port, local_addr=(address, 0)) for _ in range(count)]
    try:
        for reader, writer in made:
            writer.write(GET)
            await reader.readuntil(b"ok")
        assert await open_connections(api) == before + count
        yield made
    finally:
        for _, writer in made:
            writer.transport.abort()


async def open_connections(api: Api) -> int:
    found = re.search(r"^headrace_http_connections (\d+)", (await api.get("/metrics")).text, re.MULTILINE)
    assert found
    return int(found[1])


async def answer_of(streams: Streams, data: bytes = GET) -> bytes:
    """All that comes until the server closes."""
    reader, writer = streams
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def problem_in(answer: bytes) -> tuple[int, str]:
    """Status and code of an answer that is a whole problem document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    document = json.loads(body)
    assert b"Content-Type: application/problem+json" in head
    assert b"Connection: close" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert f"X-Request-Id: {document['request_id']}".encode() in head
    assert document["status"] == status
    return status, document["code"]


async def test_one_connection_too_many_is_503_until_one_is_closed(redis_url: str) -> None:
    """With a sentence, when it asks for something; those before it are served on."""
    async with running(redis_url, max_connections=10) as api, connected(api, 9) as others:
        refused = problem_in(await answer_of(await asyncio.open_connection("127.0.0.1", api.port)))
        again = problem_in(await answer_of(await asyncio.open_connection("127.0.0.1", api.port), GET[:7]))
        text = (await api.get("/metrics")).text
        others[0][1].transport.abort()
        async with asyncio.timeout(5):
            while await open_connections(api) == 10:
                pass
        async with connected(api):
            pass
    assert refused == again == (503, "too_many_connections")
    assert 'headrace_http_connections_refused_total{limit="all"} 2.0' in text


async def test_an_address_has_so_many_connections_and_others_have_theirs(redis_url: str) -> None:
    """429 for the one, nothing felt by the other."""
    async with running(redis_url, max_connections_per_address=3) as api, connected(api, 3, "127.0.0.2"):
        late = await asyncio.open_connection("127.0.0.1", api.port, local_addr=("127.0.0.2", 0))
        assert problem_in(await answer_of(late)) == (429, "too_many_of_address")
        async with connected(api, 2, "127.0.0.3"):
            pass


@pytest.mark.parametrize("header", ["X-Forwarded-For: 127.0.0.9", "X-Real-IP: 127.0.0.9", "Forwarded: for=127.0.0.9"])
async def test_no_header_gives_a_client_another_address(redis_url: str, header: str) -> None:
    """Anybody can write one, so none counts: neither for who has too many, nor against the one that it names."""
    forged = GET.replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode())
    assert forged != GET
    async with running(redis_url, max_connections_per_address=2) as api, connected(api, 2, "127.0.0.2") as others:
        for reader, writer in others:
            writer.write(forged)
            await reader.readuntil(b"ok")
        late = await asyncio.open_connection("127.0.0.1", api.port, local_addr=("127.0.0.2", 0))
        assert problem_in(await answer_of(late, forged)) == (429, "too_many_of_address")
        async with connected(api, 2, "127.0.0.9"):
            pass


async def test_those_who_wait_for_a_refusal_are_few(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of connections that say nothing keeps no more than those."""
    monkeypatch.setattr("headrace_api.connections.MAX_REFUSED", 2)
    async with running(redis_url, max_connections_per_address=1) as api, connected(api, 1, "127.0.0.2"):
        made = [await asyncio.open_connection("127.0.0.1", api.port, local_addr=("127.0.0.2", 0)) for _ in range(10)]
        async with asyncio.timeout(5):
            closed = [reader for reader, _ in made[2:] if await reader.read() == b""]
        assert len(closed) == 8
        assert [problem_in(await answer_of(each)) for each in made[:2]] == [(429, "too_many_of_address")] * 2
        for _, writer in made:
            writer.close()


@pytest.mark.usefixtures("hasty")
async def test_headers_that_drip_are_408(redis_url: str) -> None:
    """Each byte in time and the whole too slow; on a fresh connection and on one that was used before."""
    async with running(redis_url) as api:
        for first in (b"", GET):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(first)
            if first:
                await reader.readuntil(b'"ok"}')
            dripping = asyncio.create_task(drip(writer))
            async with asyncio.timeout(5):
                answer = await reader.read()
            dripping.cancel()
            writer.close()
            assert problem_in(answer) == (408, "headers_timeout")


async def drip(writer: asyncio.StreamWriter) -> None:
    """Headers that never end, a byte at a time."""
    for char in GET[:-4] + b"\r\nX-A: " + b"y" * 10_000:
        writer.write(bytes([char]))
        await asyncio.sleep(0.005)


@pytest.mark.usefixtures("hasty")
async def test_who_connects_and_says_nothing_is_closed(redis_url: str) -> None:
    """Without a word: nobody asked."""
    async with running(redis_url) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.usefixtures("hasty")
async def test_idle_and_waiting_connections_stay(redis_url: str) -> None:
    """Between two requests there are 75 s, and who waits for a task to end is no slow client."""
    async with running(redis_url) as api, connected(api) as [(reader, writer)]:
        task_id = await api.submitted()
        waited = await api.get(f"/api/v1/tasks/{task_id}?wait=0.6")
        writer.write(GET)
        assert b"200 OK" in await reader.readuntil(b"ok")
    assert waited.json["status"] == "pending"


@pytest.mark.usefixtures("hasty")
async def test_who_reads_no_answer_is_dropped(redis_url: str) -> None:
    """Its answers would fill memory; who reads slowly, but reads, is served."""
    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        mine.setblocking(False)
        loop = asyncio.get_running_loop()
        async with running(redis_url) as api:
            await loop.sock_connect(mine, ("127.0.0.1", api.port))
            metrics = GET.replace(b"livez", b"metrics")
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(10):
                    while True:
                        await loop.sock_sendall(mine, metrics)
                        await asyncio.sleep(0.001)
            async with asyncio.timeout(5):
                while await open_connections(api) != 1:
                    pass


@pytest.mark.parametrize(
    ("peername", "network"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 5, 0, 0), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_what_counts_as_one_address(peername: object, network: str) -> None:
    """A host may have a whole IPv6 network of 64 bits; a socket that is a file has no address."""
    assert network_of(peername) == network


ROOM = """
import logging, resource
from headrace_api.connections import room_for
logging.basicConfig(format="%(message)s")
print(room_for(2_000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("ulimit", "room", "files"),
    [("ulimit -Sn 256", 2_000, 2_000 + MAX_REFUSED + SPARE_FILES), ("ulimit -n 1000", 232, 1_000)],
)
def test_the_limit_of_files_is_raised_as_far_as_it_goes(ulimit: str, room: int, files: int) -> None:
    """And where it does not go far enough, fewer connections are taken, and the log says why."""
    done = subprocess.run(
        ["sh", "-c", f'{ulimit} && exec "$0" -c "$1"', sys.executable, ROOM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(room), str(files)]
    said = "The API takes 232 connections, not HEADRACE_MAX_CONNECTIONS=2000: this process may open 1000 files"
    assert done.stderr == (f"{said} (ulimit -n)\n" if room < 2_000 else "")
