"""The Lease has its own way to the API server: however much the pools write, it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from headrace_operator.lease import Lease
from headrace_operator.requests import Requests

POOLS = 1_000
WRITE_S = 0.05


class SlowWrites:
    """An API server on a port: a Lease at once, everything else in WRITE_S."""

    def __init__(self) -> None:
        self.renewals = 0
        self.waiting = asyncio.Event()
        """The first of the others has come."""
        self.writes = 0

    async def answer(self, request: web.Request) -> web.Response:
        if "/leases" not in request.path:
            self.waiting.set()
            await asyncio.sleep(WRITE_S)
            self.writes += 1
            return web.json_response({})
        self.renewals += request.method == "PUT"
        spec = (await request.json())["spec"] if request.method == "PUT" else {}
        return web.json_response({"metadata": {"resourceVersion": str(self.renewals)}, "spec": spec})


@asynccontextmanager
async def running(server: SlowWrites) -> AsyncIterator[Requests]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    requests = Requests(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")))
    try:
        yield requests
    finally:
        await requests.aclose()
        await runner.cleanup()


async def test_a_thousand_pools_that_write_do_not_starve_the_lease() -> None:
    """Each write takes its place again: a request that queues would be behind all of them."""
    server = SlowWrites()
    async with running(server) as requests:
        fenced = requests.fenced(lambda: True)

        async def write(number: int) -> Any:
            while True:
                await fenced.send("PATCH", f"/apis/apps/v1/namespaces/shop/deployments/{number}/scale", {})

        writers = [asyncio.create_task(write(number)) for number in range(POOLS)]
        try:
            await server.waiting.wait()
            lease, before = Lease(requests, "headrace", "me"), server.writes
            assert await lease.acquire(asyncio.Event())
            assert server.writes - before < POOLS / 2
            assert server.renewals == 1 and lease.leads()
        finally:
            for each in writers:
                each.cancel()
            await asyncio.gather(*writers, return_exceptions=True)


async def test_a_thousand_pools_that_tell_do_not_delay_one_that_scales() -> None:
    """As when the Redis of half of them goes away, while the others are at work."""
    server = SlowWrites()
    async with running(server) as requests:
        status = "/apis/headrace.dev/v1alpha1/namespaces/shop/workerpools/{}/status"
        tellers = [asyncio.create_task(requests.send("PATCH", status.format(n), {})) for n in range(POOLS)]
        await server.waiting.wait()
        for _ in range(3):
            before = server.writes
            await requests.send("PATCH", "/apis/apps/v1/namespaces/shop/deployments/busy/scale", {})
            assert server.writes - before < POOLS / 20
        for each in tellers:
            each.cancel()
        await asyncio.gather(*tellers, return_exceptions=True)
