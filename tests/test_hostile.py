"""Hostile bytes: attacks on HTTP framing, bodies that never come, JSON bombs. Good clients notice nothing of them.

The table of attacks is research by its authors' names for them: request smuggling by ambiguous lengths, header tricks,
and lines that parsers read differently. Each is refused with 400 and the connection closed; nothing is stored.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api_kit import EMAIL, Api, running
from headrace.broker.broker import Queue
from headrace_api import store

BODY = json.dumps(EMAIL).encode()
SIZE = b"Content-Length: %d\r\n" % len(BODY)
TYPE = b"Host: localhost\r\nContent-Type: application/json\r\n"
POST = b"POST /api/v1/tasks HTTP/1.1\r\n" + TYPE
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = re.compile(rb"HTTP/1\.[01] 400 ")
"""What the parser refuses has no version that could be trusted."""
GET_SLOWLY = b"GET /api/v1/tasks/ID HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=1\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)

FRAMING: dict[str, bytes] = {
    "length and chunks": POST + SIZE + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "two lengths": POST + SIZE + b"Content-Length: 5\r\n\r\n" + BODY,
    "a signed length": POST + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length with a space before the colon": POST + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "chunks with a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "bare line feeds": (POST + SIZE).replace(b"\r\n", b"\n") + b"\n" + BODY,
    "a folded header": POST + b"X-A: b\r\n c\r\n" + SIZE + b"\r\n" + BODY,
    "no host": POST.replace(b"Host: localhost\r\n", b"") + SIZE + b"\r\n" + BODY,
    "two hosts": POST + b"Host: elsewhere\r\n" + SIZE + b"\r\n" + BODY,
    "a zero byte in a header": POST + b"X-A: b\x00c\r\n" + SIZE + b"\r\n" + BODY,
    "a zero byte in a name": POST + b"X\x00A: b\r\n" + SIZE + b"\r\n" + BODY,
    "a chunk size in 0x": CHUNKED + b"0x%b" % CHUNK + b"0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a line feed in a chunk extension": CHUNKED + b"5;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "HTTP/3.7": POST.replace(b"HTTP/1.1", b"HTTP/3.7") + SIZE + b"\r\n" + BODY,
    "a method with a bracket": POST.replace(b"POST", b"PO[ST") + SIZE + b"\r\n" + BODY,
    "200 headers": POST + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + SIZE + b"\r\n" + BODY,
    "a header of 9 kB": POST + b"X-A: " + b"y" * 9_000 + b"\r\n" + SIZE + b"\r\n" + BODY,
    "a target of 9 kB": POST.replace(b"/api/v1/tasks", b"/" + b"y" * 9_000) + SIZE + b"\r\n" + BODY,
    "a TLS greeting": bytes.fromhex("1603010200010001fc0303") + b"\x00" * 40 + b"\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
}

PASSED_ON: dict[str, tuple[bytes, int]] = {
    "a foreign host in an absolute target": (
        POST.replace(b"/api", b"http://evil.example/api") + SIZE + b"Connection: close\r\n\r\n" + BODY,
        201,
    ),
    "chunks in HTTP/1.0": (
        CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNK + b"0\r\n\r\n",
        201,
    ),
    "dots in the path": (b"GET /a/../metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "encoded slashes": (b"GET /api/v1/tasks/..%2f..%2fmetrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "a line break in the path": (b"GET /api/%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "a line break in an id": (
        b"GET /api/v1/tasks/a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        404,
    ),
    "TRACE": (b"TRACE /api/v1/tasks HTTP/1.1\r\nHost: x\r\nCookie: secret\r\nConnection: close\r\n\r\n", 405),
    "an Expect that is no text": (
        b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: 200\xb0ok\r\nConnection: close\r\n\r\n",
        417,
    ),
    "an Expect that is no text, for what is not there": (
        b"GET /api/nowhere HTTP/1.1\r\nHost: x\r\nExpect: 200\xb0ok\r\nConnection: close\r\n\r\n",
        417,
    ),
    "OPTIONS from a browser": (
        b"OPTIONS /api/v1/tasks HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n",
        405,
    ),
}


async def raw(api: Api, data: bytes, timeout_s: float = 10.0) -> bytes:
    """Send these bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@asynccontextmanager
async def a_good_client(api: Api) -> AsyncIterator[list[float]]:
    """Submits all the while; its times in seconds. Any answer but 201 fails the test."""
    times: list[float] = []
    stop = asyncio.Event()

    async def submit() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            await api.submitted()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(submit())
    try:
        yield times
    finally:
        stop.set()
        await task


@pytest.mark.parametrize("name", FRAMING)
async def test_ambiguous_framing_is_400_and_closes(redis_url: str, name: str) -> None:
    """The parser refuses before any route is asked; the answer is a problem document without the attacker's bytes."""
    async with running(redis_url) as api:
        answer = await raw(api, FRAMING[name])
        again = await api.submit()
        pending = (await api.get("/api/v1/stats")).json["pending"]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert REFUSED.match(head), answer[:300]
    assert b"application/problem+json" in head
    assert b"aiohttp" not in head, "the server names no version"
    document = json.loads(body.decode())
    assert document["code"] in {"bad_http", "bad_body"}
    assert len(re.findall(rb"^HTTP/1", answer, re.MULTILINE)) == 1, "one answer: no smuggled second request was read"
    assert (again.status, pending) == (201, 1), "only the good submission is stored"


@pytest.mark.parametrize("name", PASSED_ON)
async def test_odd_but_legal_requests_reach_nothing_they_should_not(redis_url: str, name: str) -> None:
    """Foreign hosts count for nothing, paths are not normalised into other routes, no header is forged."""
    data, status = PASSED_ON[name]
    async with running(redis_url) as api:
        answer = await raw(api, data)
    head = answer.partition(b"\r\n\r\n")[0]
    assert re.match(rb"HTTP/1\.[01] %d " % status, head), answer[:200]
    assert len(re.findall(rb"^HTTP/1", answer, re.MULTILINE)) == 1, "answered once, and closed"
    assert b"X-Evil" not in head
    assert b"secret" not in answer
    assert b"Access-Control" not in head


async def test_a_smuggled_second_request_is_not_carried_out(redis_url: str) -> None:
    """Length and chunks together, with a whole request hidden in the body: neither of them is stored."""
    hidden = POST + SIZE + b"\r\n" + BODY
    attack = POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden
    async with running(redis_url) as api:
        answer = await raw(api, attack)
        keys = await api.worker.keys()
    assert REFUSED.match(answer)
    assert keys == []


@pytest.mark.parametrize("before", [b"", GET_SLOWLY], ids=["read already", "waiting behind another"])
@pytest.mark.parametrize("route", [b"/tasks", b"/tasks:batch"])
async def test_a_bad_chunk_in_the_middle_of_a_body_is_answered_at_once(
    redis_url: str, before: bytes, route: bytes
) -> None:
    """Not when the deadline of bodies is over; once, and what follows is not read as a request."""
    async with running(redis_url) as api:
        task = (await api.submitted()).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(before.replace(b"ID", task) + CHUNKED.replace(b"/tasks", route) + CHUNK)
        await api.get("/livez")  # the server has read so far
        writer.write(b"0x1\r\n\r\n")
        writer.write(POST + SIZE + b"\r\n" + BODY)
        async with asyncio.timeout(10):  # less than the deadline
            answer = await reader.read()
        pending = (await api.get("/api/v1/stats")).json["pending"]
        writer.close()
    answers = answer.split(b"HTTP/1.1 ")[1:]
    assert [each[:3] for each in answers] == ([b"200"] if before else []) + [b"400"]
    assert json.loads(answers[-1].partition(b"\r\n\r\n")[2])["code"] == "bad_body"
    assert pending == 1, "that of the beginning"


async def test_bodies_that_never_come_hold_up_nobody(redis_url: str) -> None:
    """300 connections that send a header and half a body: good submissions stay as quick, and all end at the stop."""
    half = POST + b"Content-Length: 5000\r\n\r\n" + BODY[:20]
    async with running(redis_url) as api:
        async with a_good_client(api) as quiet:
            await asyncio.sleep(0.3)
        connections = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(300)]
        for _, writer in connections:
            writer.write(half)
        async with a_good_client(api) as attacked:
            for _ in range(10):
                for _, writer in connections[::10]:
                    writer.write(b"x")
                await asyncio.sleep(0.03)
        stats = (await api.get("/api/v1/stats")).json
        for _, writer in connections:
            writer.close()
    assert stats["pending"] == len(quiet) + len(attacked), "none of the halves is stored"
    assert percentile(attacked) < max(5 * percentile(quiet), 0.2)


def percentile(times: list[float], share: float = 0.9) -> float:
    return sorted(times)[int(len(times) * share)]


TWICE = b",".join(b'"k%d":1' % (i // 2) for i in range(7_000))
BOMBS: dict[str, bytes] = {
    "arrays in 60 kB": b'{"type": "t", "payload": {"a": [' + b"[]," * 20_000 + b"[]]}}",
    "objects in 60 kB": b'{"type": "t", "payload": {"a": [' + b"{}," * 20_000 + b"{}]}}",
    "depth": b'{"type": "t", "payload": {"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
    "depth without an end": b'{"type": "t", "payload": ' + b'{"a":' * 12_000,
    "quotes without an end": b'{"type": "t", "payload": {"a": "' + b'\\"' * 30_000,
    "digits": b'{"type": "t", "payload": {"a": ' + b"9" * 60_000 + b"}}",
    "3,500 keys, each twice": b'{"type": "t", "payload": {' + TWICE + b"}}",
    "unknown fields": b'{"type": "t", ' + b",".join(b'"k%d":1' % i for i in range(5_000)) + b"}",
    "escapes": b'{"type": "t", "payload": {"a": "' + b"\\u0022" * 10_000 + b'", "a": 1}}',
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
async def test_json_bombs_are_refused_quickly(redis_url: str, name: str) -> None:
    """Small in bytes, large in work: refused with a 4xx. What grows faster than its input takes many seconds of CPU."""
    async with running(redis_url) as api:
        await api.get("/livez")
        began = time.process_time()
        answer = await api.submit(BOMBS[name])
        spent = time.process_time() - began
        keys = await api.worker.keys()
    assert 400 <= answer.status < 500, answer.text[:300]
    assert answer.code
    assert len(answer.text) < 2_000
    assert spent < 1
    assert keys == []


async def test_gzip_bombs_are_never_opened(redis_url: str) -> None:
    """1 kB that would be 1 MB: the encoding is refused, not unpacked."""
    bomb = gzip.compress(b'{"type": "t", "payload": {"a": "' + b"x" * 1_000_000 + b'"}}')
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with running(redis_url) as api:
        answer = await api.ask("POST", "/api/v1/tasks", data=io.BytesIO(bomb), headers=headers)
    assert (answer.status, answer.code) == (415, "unsupported_encoding")


async def test_a_thousand_bad_requests_beside_good_ones(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attack in turn, many at once: no 5xx, good submissions all pass, only they are stored."""
    monkeypatch.setattr(store, "DEADLINE_S", 10.0)  # a Redis that gets no CPU is not what is tried here
    async with running(redis_url) as api:
        async with a_good_client(api) as good:
            for _ in range(3):
                attacks = [raw(api, data) for data in FRAMING.values()]
                bombs = [api.submit(body) for body in BOMBS.values()]
                answers = await asyncio.gather(*attacks)
                refused = await asyncio.gather(*bombs)
                assert all(answer == b"" or REFUSED.match(answer) for answer in answers)
                assert {answer.status // 100 for answer in refused} == {4}
        stats = (await api.get("/api/v1/stats")).json
        text = (await api.get("/metrics")).text
    assert good
    assert stats["pending"] == len(good)
    assert not re.search(r'code="5\d\d"', text)


async def test_pipelined_requests_are_answered_in_order(redis_url: str) -> None:
    """Also by the quick answer, which writes its bytes itself."""
    requests = [POST + SIZE + b"X-Request-Id: n%d\r\n\r\n" % i + BODY for i in range(20)]
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: last\r\nConnection: close\r\n\r\n"
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {})
        answer = await raw(api, b"".join(requests) + last)
    found = re.findall(rb"X-Request-Id: (\w+)", answer)
    assert found == [*(b"n%d" % i for i in range(20)), b"last"]


async def test_large_bodies_are_read_on_when_reading_was_paused(redis_url: str) -> None:
    """Each is larger than what is buffered of a body: reading stops and goes on. By length, in chunks, pipelined."""
    large = json.dumps({"tasks": [EMAIL | {"payload": {"text": "x" * 2_000}}] * 900}).encode()
    head = POST.replace(b"/tasks", b"/tasks:batch")
    by_length = head + b"Content-Length: %d\r\n\r\n" % len(large) + large
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (large[:70_000], large[70_000:]))
    in_chunks = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with running(redis_url) as api:
        answer = await raw(api, by_length + in_chunks + by_length + last)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"201", b"201", b"201", b"200"]


@pytest.mark.slow
async def test_a_client_that_reads_nothing_does_not_fill_memory(redis_url: str) -> None:
    """Who sends without end and takes no answers is not read any further, once the sockets' buffers are full."""
    request = POST + SIZE + b"X-Request-Id: " + b"x" * 128 + b"\r\n\r\n" + BODY

    async def send_for_ever() -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(mine, request * 100)
            await asyncio.sleep(0)

    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        mine.setblocking(False)
        async with running(redis_url) as api:
            await api.worker.publish("send_email", {})
            await asyncio.get_running_loop().sock_connect(mine, ("127.0.0.1", api.port))
            sending = asyncio.create_task(send_for_ever())
            before, after = -1, await _stored(api)
            while before < after or after == 0:
                assert after < 25_000, "10 MB of answers wait, more than sockets hold: it is read for ever"
                await asyncio.sleep(0.5)
                before, after = after, await _stored(api)
            sending.cancel()
            assert (await api.submit()).status == 201, "the others are served"


async def _stored(api: Api) -> int:
    return (await api.worker.client.call(Queue("default").depth())).waiting


async def test_clients_that_leave_in_the_middle_are_no_errors(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Resets at every point of a request: nothing in the log, the next client is served."""
    whole = POST + SIZE + b"\r\n" + BODY
    async with running(redis_url) as api:
        for cut in range(1, len(whole), 7):
            _, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(whole[:cut])
            await asyncio.sleep(0)
            writer.transport.abort()
        assert (await api.submit()).status == 201
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
