"""An API server that is away or busy is not asked by every pool in every second, and is asked again soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kubernetes.aio import client

from headrace_cli.ports import free_port
from headrace_operator import slots
from headrace_operator.cluster import ClusterError
from headrace_operator.holdoff import Holdoff
from headrace_operator.requests import Requests

SCALE = "/apis/apps/v1/namespaces/shop/deployments/emails/scale"
STATUS = "/apis/headrace.dev/v1alpha1/namespaces/shop/workerpools/emails/status"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/headrace/leases/headrace-operator"


def test_nobody_is_asked_at_growing_intervals_and_at_once_when_it_answered() -> None:
    holdoff, now_s, pauses = Holdoff(), 100.0, []
    for _ in range(6):
        holdoff.unreachable("gone", now_s)
        holdoff.unreachable("gone too", now_s)
        began_s = now_s
        while holdoff.standing("pods", now_s):
            assert holdoff.standing("pods", now_s) == "gone"
            now_s += 0.5
        pauses.append(now_s - began_s)
    assert pauses == [0.5, 1, 2, 4, 5, 5]
    holdoff.reached("pods")
    holdoff.unreachable("gone", now_s)
    assert not holdoff.standing("pods", now_s + 0.5)


@pytest.mark.parametrize(
    ("after", "seconds"), [("3", 3), ("3600", 5), ("", 1), ("Mon, 30 Nov 2026 12:00:00 GMT", 1), ("-1", 1)]
)
def test_who_is_busy_is_left_alone_for_as_long_as_it_says_and_not_for_an_hour(after: str, seconds: int) -> None:
    holdoff = Holdoff()
    holdoff.busy("events", {"Retry-After": after}, "busy", 100.0)
    assert holdoff.standing("events", 100 + seconds - 0.01) == "busy"
    assert not holdoff.standing("events", 100 + seconds)
    assert not holdoff.standing("pods", 100.0), "too many Events are not too many pods"


class Server:
    """Answers everything with one status, and counts."""

    def __init__(self, status: int = 200, after: str = "1") -> None:
        self.status = status
        self.after = after
        self.asked: list[str] = []
        self.hangs = ""
        self.freed = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        await self.gate.wait()
        if self.hangs and self.hangs in request.path:
            await self.freed.wait()
        return web.json_response({"message": "no more"}, status=self.status, headers={"Retry-After": self.after})


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[Requests]:
    made = Requests(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{port}")))
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def answering(server: Server, port: int) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def ask_often(requests: Requests, path: str, seconds: float) -> list[str]:
    """Fifty pools that try all the while. Returns what they were told."""
    told: list[str] = []

    async def ask() -> None:
        while True:
            try:
                await requests.send("PATCH", path, {})
            except ClusterError as error:
                told.append(str(error))
            await asyncio.sleep(0.01)

    asking = [asyncio.create_task(ask()) for _ in range(50)]
    await asyncio.sleep(seconds)
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return told


async def test_one_that_wants_patience_gets_it_and_the_lease_is_asked_for_all_the_same() -> None:
    server, port = Server(429), free_port()
    async with answering(server, port), asking(port) as requests:
        told = await ask_often(requests.fenced(lambda: True), SCALE, 0.8)
        assert set(told) == {"the API server answers 429: no more"} and len(told) > 100
        assert server.asked.count(SCALE) <= slots.AT_ONCE, "those that were out at the first answer, and no more"
        server.status = 200
        await requests.send("PATCH", STATUS, {})
        await requests.send("GET", LEASE)
        await asyncio.sleep(1)
        await requests.send("PATCH", SCALE, {})


async def test_one_that_is_not_there_is_tried_a_few_times_a_second_and_found_when_it_is_back() -> None:
    port = free_port()
    async with asking(port) as requests:
        told = await ask_often(requests, SCALE, 1.2)
        assert len(told) > 100 and all("does not answer" in each for each in told)
        assert requests.made["PATCH", "deployments/scale", 0] <= 3 * slots.AT_ONCE
        async with answering(Server(), port), asyncio.timeout(10):
            while True:
                try:
                    await requests.send("PATCH", SCALE, {})
                    break
                except ClusterError:
                    await asyncio.sleep(0.05)


async def test_what_waited_too_long_for_its_turn_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that hangs: the pools behind the first sixteen would else write what they wanted minutes ago."""
    monkeypatch.setattr(slots, "LONG_S", 60.0)
    server, port = Server(), free_port()
    server.gate.clear()
    async with answering(server, port), asking(port) as requests:
        busy = SCALE.replace("emails", "busy")
        out = [asyncio.create_task(requests.send("PATCH", busy, {})) for _ in range(slots.AT_ONCE)]
        async with asyncio.timeout(10):
            while len(server.asked) < slots.AT_ONCE:  # noqa: ASYNC110 - the server's part counts
                await asyncio.sleep(0.01)
        monkeypatch.setattr(slots, "STALE_S", 0.2)
        with pytest.raises(ClusterError, match="too slow"):
            await requests.send("PATCH", SCALE, {})
        monkeypatch.undo()
        server.gate.set()
        await asyncio.gather(*out)
        assert SCALE not in server.asked
        await requests.send("PATCH", SCALE, {})


async def test_what_hangs_takes_no_place_of_others_for_long() -> None:
    """Fifty pools whose writes are never answered, and one whose is."""
    server, port = Server(), free_port()
    async with answering(server, port), asking(port) as requests:
        server.hangs = "stuck"
        path = SCALE.replace("emails", "stuck")
        out = [asyncio.create_task(requests.send("PATCH", path, {})) for _ in range(50)]
        await asyncio.sleep(0)
        async with asyncio.timeout(8):
            await requests.send("PATCH", SCALE, {})
        server.freed.set()
        await asyncio.gather(*out)
